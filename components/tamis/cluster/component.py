"""Kubeflow components of a run's beginning and end."""

from typing import List  # noqa: UP035  (kfp reads this spelling only)

from kfp.dsl import Artifact, Dataset, Input, Markdown, Output, PipelineTaskFinalStatus

from tamis.kubeflow import step


@step("base")
def start_run(name: str, started: Output[Artifact], outcomes: str = "") -> None:
    """Leave the mark that the run has begun, beside its artifacts and in the folder `outcomes`."""
    from tamis.cluster.milestones import start
    from tamis.kubeflow import ending

    with ending(started):
        start(name=name, uri=started.uri, path=started.path, outcomes=outcomes)


@step("base")
def require_all_cells(
    report: Input[Artifact],
    results: Input[List[Dataset]],  # noqa: UP006
    finished: Output[Artifact],
    bases: Input[List[Dataset]] = None,  # noqa: UP006
    judgements: Input[List[Dataset]] = None,  # noqa: UP006
    outcomes: str = "",
) -> None:
    """Leave the mark that all is done, and fail if a cell has no result: after the report, so all others are done."""
    from tamis.cluster.milestones import finish
    from tamis.kubeflow import ending, require_whole

    paths = [artifact.path for artifact in [*(bases or []), *results, *(judgements or [])]]
    with ending(finished):
        failures = finish(paths, report=report.uri, uri=finished.uri, path=finished.path, outcomes=outcomes)
    require_whole(failures)


@step("base")
def note_outcome(status: PipelineTaskFinalStatus, name: str, outcome: Output[Markdown], outcomes: str = "") -> None:
    """Write how the run ended, whatever happened before; with `outcomes`, also as a file in that folder."""
    from tamis.cluster.outcome import note
    from tamis.kubeflow import ending

    with ending():
        note(status, name=name, path=outcome.path, uri=outcome.uri, folder=outcomes)
