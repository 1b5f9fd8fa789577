"""Kubeflow components of a run's beginning and end."""

from typing import NamedTuple, Optional

from kfp.dsl import Artifact, Input, Markdown, Output, PipelineTaskFinalStatus

from tamis.components import step


@step("base")
def start_run(
    name: str,
    started: Output[Artifact],
    outcomes: str = "",
    cells: Optional[list] = None,  # noqa: UP045
    bases: Optional[list] = None,  # noqa: UP045
    pool: Optional[dict] = None,  # noqa: UP045
    raters: Optional[list] = None,  # noqa: UP045
    embedding: Optional[dict] = None,  # noqa: UP045
    neighbors: Optional[dict] = None,  # noqa: UP045
    curation: Optional[dict] = None,  # noqa: UP045
) -> NamedTuple("Outputs", cells=list, bases=list, perplexity=int, deita=int, influence=int, others=int):  # type: ignore[valid-type]
    """Leave the mark that the run has begun, and give what failed in earlier runs the number of its next attempt.

    The marks are beside the run's artifacts and in the folder `outcomes`.
    """
    from tamis.cluster.attempts import numbered
    from tamis.cluster.milestones import start
    from tamis.kubeflow import ending

    with ending(started):
        start(name=name, uri=started.uri, path=started.path, outcomes=outcomes)
        about = [pool, raters, embedding, neighbors, curation]
        return numbered(cells or [], bases or [], about, uri=started.uri, outcomes=outcomes)


@step("base")
def require_all_cells(report: Input[Artifact], finished: Output[Artifact], outcomes: str = "") -> None:
    """Leave the mark that all is done, and fail if the report says that a cell has no result."""
    from tamis.cluster.milestones import finish
    from tamis.kubeflow import ending, require_whole

    with ending(finished):
        failures = finish(report.path, report=report.uri, uri=finished.uri, path=finished.path, outcomes=outcomes)
    require_whole(failures)


@step("base")
def note_outcome(status: PipelineTaskFinalStatus, name: str, outcome: Output[Markdown], outcomes: str = "") -> None:
    """Write how the run ended, whatever happened before; with `outcomes`, also as a file in that folder."""
    from tamis.cluster.outcome import note
    from tamis.kubeflow import ending

    with ending():
        note(status, name=name, path=outcome.path, uri=outcome.uri, folder=outcomes)
