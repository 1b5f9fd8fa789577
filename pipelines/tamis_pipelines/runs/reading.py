"""Reads a run from the best source that the server offers.

The state comes from v2beta1, which has the right state of a run. Steps, names and reasons come from the workflow's
manifest in v1beta1: 2.17 never fills the errors of v2beta1, and its list of tasks stops changing once Argo has packed
the workflow's nodes. Without a manifest, the list of tasks is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from tamis_pipelines.runs.reasons import Reason, reasons_of, with_failed_cells
from tamis_pipelines.runs.run import WAYS_TO_NAME, Run, State
from tamis_pipelines.runs.steps import Status, Step, steps_of
from tamis_pipelines.runs.tasks import errors_of, tasks_as_steps
from tamis_pipelines.runs.workflow import UnreadableError, Workflow
from tamis_pipelines.server import Connection, KubeflowError

_STATES = {
    "SUCCEEDED": State.SUCCEEDED,
    "SKIPPED": State.SUCCEEDED,
    "FAILED": State.FAILED,
    "CANCELED": State.STOPPED,
    "CANCELING": State.STOPPING,
    "PAUSED": State.RUNNING,
    "RUNNING": State.RUNNING,
}


def read(connection: Connection, run_id: str) -> Run:
    """Read a run.

    Raises:
        KubeflowError: when the server does not answer, refuses, or does not know the run.
    """
    try:
        answer = connection.request("GET", f"/apis/v2beta1/runs/{run_id}", doing=f"asking for the run {run_id}")
    except KubeflowError as error:
        if not error.missing:
            raise
        gone = KubeflowError(f"the server has no run {run_id}", allowed=WAYS_TO_NAME, status=error.status)
        gone.permanent = True
        raise gone from None
    unread: list[str] = []
    workflow = None
    try:
        workflow = workflow_of(connection, run_id)
        state = _state(answer, workflow)
        steps, reasons = _understood(workflow, state)
    except UnreadableError as error:
        unread.append(str(error))
        state = _state(answer, workflow)
        tasks = (answer.get("run_details") or {}).get("task_details") or []
        steps, reasons = tasks_as_steps(tasks, ended=state.ended), []
        unread.append(
            "so the states of steps may be old, raters and cells are not named, and reasons may be missing"
            if steps
            else "and the server lists no steps either"
        )
    return Run(
        id=run_id,
        name=str(answer.get("display_name") or run_id),
        url=connection.page(f"runs/details/{run_id}"),
        state=state,
        began=str(answer.get("created_at") or ""),
        ended=str(answer.get("finished_at") or "") if state.ended else "",
        steps=tuple(steps),
        reasons=tuple(_reasons(state, reasons, answer, steps)),
        unread=tuple(unread),
    )


def _understood(workflow: Workflow, state: State) -> tuple[list[Step], list[Reason]]:
    """The steps of a workflow, and why they failed.

    Raises:
        UnreadableError: when a node or a template has another form than Argo Workflows 4.0 gives it.
    """
    try:
        steps = with_failed_cells(steps_of(workflow, ended=state.ended))
        return steps, reasons_of(workflow, steps)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        problem = f"the workflow's nodes have an unknown form ({type(error).__name__}: {error})"
        raise UnreadableError(problem) from error


def workflow_of(connection: Connection, run_id: str) -> Workflow:
    """The workflow of a run, from v1beta1 of the API.

    Raises:
        UnreadableError: when the server does not have it, or not in a form that can be read.
        KubeflowError: when the server does not answer.
    """
    try:
        answer = connection.request("GET", f"/apis/v1beta1/runs/{run_id}", doing="asking for the workflow")
    except KubeflowError as error:
        # v2beta1 has just answered, so an error of this request alone will not go away.
        if error.away and error.status != HTTPStatus.INTERNAL_SERVER_ERROR:
            raise
        raise UnreadableError(f"the server does not return the workflow's manifest ({error.problem})") from None
    manifest = (answer.get("pipeline_runtime") or {}).get("workflow_manifest")
    if not manifest:
        raise UnreadableError("the server does not return the workflow's manifest (v1beta1 has none for this run)")
    return Workflow.parse(manifest)


def _state(answer: dict[str, Any], workflow: Workflow | None) -> State:
    state = _STATES.get(answer.get("state") or "", State.PENDING)
    stopped = any(map(_is_stop, answer.get("state_history") or [])) or (workflow is not None and workflow.stopped)
    if stopped and state is State.FAILED:
        return State.STOPPED
    return State.STOPPING if stopped and not state.ended else state


def _reasons(state: State, found: list[Reason], answer: dict[str, Any], steps: Sequence[Step]) -> Iterator[Reason]:
    """Why a run failed or was stopped: from the manifest, otherwise from v2beta1, otherwise only what failed."""
    if not state.ended or state is State.SUCCEEDED:
        return
    if state is State.STOPPED:
        yield _stopped(answer)
    errors = errors_of(answer)
    for reason in found:
        yield replace(reason, words=errors[reason.step]) if reason.silent and reason.step in errors else reason
    if found:
        return
    for words in dict.fromkeys(errors.values()):
        yield Reason(", ".join(step for step in errors if errors[step] == words), words)
    if not errors and state is State.FAILED:
        failed = [step.name for step in steps for work in step.works if work.status is Status.FAILED]
        what = ", ".join(dict.fromkeys(failed)) or "the run"
        yield Reason(what, "the server does not say why; the run's page in the UI has the logs of its pods")


def _stopped(answer: dict[str, Any]) -> Reason:
    times = [change.get("update_time") for change in answer.get("state_history") or [] if _is_stop(change)]
    return Reason("the run", f"it was stopped by hand{f' at {times[0]}' if times else ''}")


def _is_stop(change: dict[str, Any]) -> bool:
    return change.get("state") in ("CANCELING", "CANCELED")
