"""Kubeflow components of a run's start and end."""

from typing import List  # noqa: UP035  kfp reads typing.List only

from kfp.dsl import Artifact, Input, Markdown, Output, PipelineTaskFinalStatus

from tamis.kubeflow import step


@step("base")
def start(cells: List[dict], outcomes: str = "") -> List[dict]:  # noqa: UP006
    """Give the failed steps of earlier runs' cells the number of their next attempt."""
    return cells


@step("base")
def note_outcome(status: PipelineTaskFinalStatus, outcome: Output[Markdown], outcomes: str = "") -> None:
    """Say how the run ended, whatever happened before; with `outcomes`, also as a file in that folder."""
    from tamis.cluster.outcome import note

    note(status, page=outcome.path, folder=outcomes)


@step("base")
def require_all_cells(report: Input[Artifact]) -> None:
    """Fail if the report says that a cell has no result: all others are done."""
    from tamis.core.artifacts import Artifact as Made
    from tamis.core.failures import Failure
    from tamis.kubeflow import require_whole

    failed = Made.open(report.path, "report").manifest.facts["failed"]
    require_whole([Failure.model_validate(one) for one in failed])
