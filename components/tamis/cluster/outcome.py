"""The outcome of a run on Kubeflow: how it ended, what failed and why, as one JSON file and as a page for the UI."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

from tamis.cluster import page
from tamis.cluster.workflow import Witness, ask
from tamis.core.errors import TamisError
from tamis.core.marks import CellFailed, LastWords, Marks, now, read_marks
from tamis.core.run_place import RunPlace, known, place_of
from tamis.core.settings import Settings
from tamis.core.storage import locate, write_bytes

log = logging.getLogger(__name__)
State = Literal["SUCCEEDED", "FAILED", "STOPPED", "UNFINISHED", "UNKNOWN"]
_STOPPED = "stopped"  # code of the error of a step that was told to stop
_SUCCESS = ("COMPLETE", "SUCCEEDED")  # Kubeflow's words; kfp.local has the second
_COMPARED = 500  # characters


class FinalStatus(Protocol):
    """What Kubeflow tells the last step (docs/decisions/0027 says what of it is true)."""

    state: str
    pipeline_job_resource_name: str


class Outcome(Settings):
    """How a run ended.

    Attributes:
        run: id of the run; also the name of its file.
        name: name of the run in Kubeflow.
        workflow: name of its Argo workflow, of which its pods' names are made.
        state: SUCCEEDED: every step and every cell has a result. FAILED: a step or a cell has none. STOPPED: the run
            was ended by hand, or by the loss of its pods, and no step failed. UNKNOWN: no mark of the run could be
            read. UNFINISHED: it has begun and has no end (only from the folder's reader; no file says this).
        reason: why it did not succeed, in one sentence.
        started: ISO 8601, UTC; empty if that is not known.
        ended: the same; the time of the last step.
        report: URI of the report's page; empty if it was not written.
        cells_failed: cells without a result.
        steps_failed: last words of steps that failed and were not successful in a later attempt.
        unread: what could not be read or written; what it would have said is missing here.
    """

    run: str
    name: str
    workflow: str
    state: State
    reason: str = ""
    started: str = ""
    ended: str = ""
    report: str = ""
    cells_failed: tuple[CellFailed, ...] = ()
    steps_failed: tuple[LastWords, ...] = ()
    unread: tuple[str, ...] = ()


def note(status: FinalStatus, *, name: str, path: str, uri: str, folder: str = "") -> Outcome:
    """Put the outcome of a run together, and write it as a page and, into `folder`, as `<run>.json`.

    Args:
        status: what Kubeflow tells the last step.
        name: name of the run.
        path: Markdown file of the page.
        uri: URI of that page, from which the run is known.
        folder: local folder or object-storage prefix of the outcomes; none if empty.

    Raises:
        StorageError: when the run has succeeded, and `folder` refuses the file. A run that has not succeeded is
            failed already; its page then says that the file is missing.
    """
    place = place_of(uri, folder) or RunPlace(status.pipeline_job_resource_name)
    workflow = status.pipeline_job_resource_name.rsplit("/", 1)[-1]
    outcome = put_together(place, read_marks(place), status.state, ask(workflow), name=name, workflow=workflow)
    if outcome.state != "SUCCEEDED":
        log.error("the run %s ended as %s: %s", outcome.run, outcome.state, outcome.reason)
    if folder:
        try:
            write_bytes(locate(folder) / f"{outcome.run}.json", outcome.model_dump_json(indent=2).encode())
        except TamisError as error:
            if outcome.state == "SUCCEEDED":
                raise
            log.error("%s", error)
            outcome = outcome.model_copy(update={"unread": (*outcome.unread, error.problem)})
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(page.markdown(outcome), encoding="utf-8")
    return outcome


def put_together(
    place: RunPlace, marks: Marks, told: str, witness: Witness | None, *, name: str, workflow: str
) -> Outcome:
    """The outcome of the run at `place`.

    Args:
        place: of the run.
        marks: what its steps have left.
        told: the state that Kubeflow tells the last step.
        witness: what the workflow says; None if it could not be read.
        name: name of the run.
        workflow: name of its workflow.
    """
    finished = marks.finished
    cells = tuple(finished.failed if finished is not None else marks.cells)
    steps = () if finished is not None else _together(marks.words, witness)
    state, reason = _judged(marks, cells, steps, told, witness)
    return Outcome(
        run=place.run,
        name=known(name),
        workflow=workflow,
        state=state,
        reason=reason,
        started=marks.started.at if marks.started is not None else "",
        ended=now(),
        report=finished.report if finished is not None else "",
        cells_failed=cells,
        steps_failed=steps,
        unread=tuple(marks.unread),
    )


def _judged(
    marks: Marks, cells: Sequence[CellFailed], steps: Sequence[LastWords], told: str, witness: Witness | None
) -> tuple[State, str]:
    """The state and the reason. `told` is Kubeflow's state.

    RUNNING says nothing: it is told of runs with reused steps, and of runs that were ended by hand.
    """
    if cells and marks.finished is not None:
        missing = len({cell.cell for cell in cells})
        return (
            "FAILED",
            f"{missing} {'cell has' if missing == 1 else 'cells have'} no result; the report has all others",
        )
    if marks.finished is not None or (witness is not None and witness.complete):
        return "SUCCEEDED", ""
    if witness is not None and witness.stopped:
        return "STOPPED", "the run was ended by hand"
    if failed := [step for step in steps if step.code != _STOPPED]:
        named = ", ".join(dict.fromkeys(f"'{step.step}'" for step in failed))
        return "FAILED", f"these steps failed: {named}"
    if told == "FAILED" or witness is not None:
        if marks.unread:
            return "FAILED", "a step failed; what the steps noted cannot be read"
        return "FAILED", "a step failed without leaving a reason, as happens when memory runs out"
    if marks.read:
        return "STOPPED", "no step has failed: the run was ended by hand, or its pods were removed"
    if told in _SUCCESS:
        return "SUCCEEDED", ""
    return "UNKNOWN", "no mark of the run can be read, and Kubeflow does not say how it ended"


def _together(words: Sequence[LastWords], witness: Witness | None) -> tuple[LastWords, ...]:
    """The last words of each step, in order of time: of its own mark, or else of the workflow."""
    latest = {(one.step, one.what): one for one in words}.values()
    told = witness.failed if witness is not None else ()
    others = [one for one in told if not any(one.step == own.step and _same(one, own) for own in latest)]
    return (*latest, *others)


def _same(told: LastWords, own: LastWords) -> bool:
    """Whether a pod's message is how a step's own words begin; Kubernetes keeps only the first of them."""
    return told.words[:_COMPARED].strip() in own.words
