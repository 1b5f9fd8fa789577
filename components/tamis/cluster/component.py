"""Kubeflow face of a run's end."""

from typing import List  # noqa: UP035  (kfp reads this spelling only)

from kfp.dsl import Artifact, Dataset, Input, Markdown, Output, PipelineTaskFinalStatus

from tamis.kubeflow import step


@step("base")
def note_outcome(status: PipelineTaskFinalStatus, outcome: Output[Markdown], outcomes: str = "") -> None:
    """Say how the run ended, whatever happened before; with `outcomes`, also as a file in that folder."""
    from tamis.cluster.outcome import note

    note(status, page=outcome.path, folder=outcomes)


@step("base")
def require_all_cells(
    report: Input[Artifact],
    results: Input[List[Dataset]],  # noqa: UP006
    bases: Input[List[Dataset]] = None,  # noqa: UP006
    judgements: Input[List[Dataset]] = None,  # noqa: UP006
) -> None:
    """Fail if a cell has no result: after the report, so that all others are done."""
    from tamis.core.failures import failure_in
    from tamis.kubeflow import require_whole

    paths = [artifact.path for artifact in [*(bases or []), *results, *(judgements or [])]]
    failures = [failure for path in paths if (failure := failure_in(path))]
    # What was to be judged after its cell had failed says so again.
    require_whole(list({(failure.name, failure.stage): failure for failure in failures}.values()))
