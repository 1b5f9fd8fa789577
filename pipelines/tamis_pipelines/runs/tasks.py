"""The steps of a run from v2beta1's list of tasks, for servers that do not give the workflow's manifest.

The list has a task for each of Argo's nodes, by name, without its place: raters and cells cannot be told apart.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tamis_pipelines.runs.steps import Status, Step, Work

# Names of tasks that Kubeflow wraps around steps, and of the attempts of a step.
_WRAPPER = re.compile(
    r"(\(\d+(:\d+)?\)$|-drivers?$|^executor$|^iteration|^for-loop-\d+$|^exit-handler|^condition-|\.onExit|^root$)"
)
_NUMBER = re.compile(r"-\d+$")
_STATES = {
    "SUCCEEDED": Status.DONE,
    "SKIPPED": Status.OMITTED,
    "FAILED": Status.FAILED,
    "CANCELED": Status.UNFINISHED,
    "RUNNING": Status.RUNNING,
    "CANCELING": Status.RUNNING,
}
_AFTER_THE_END = {Status.RUNNING: Status.UNFINISHED, Status.WAITING: Status.OMITTED}
Task = dict[str, Any]


def tasks_as_steps(tasks: Sequence[Task], *, ended: bool) -> list[Step]:
    """The steps in a list of tasks, in the order in which they began."""
    works: dict[str, list[Work]] = {}
    for task in sorted(tasks, key=lambda one: str(one.get("start_time") or "~")):
        if (name := _step_in(task)) is None:
            continue
        status = _STATES.get(task.get("state") or "", Status.WAITING)
        status = _AFTER_THE_END.get(status, status) if ended else status
        words = str((task.get("error") or {}).get("message") or "")
        works.setdefault(name, []).append(Work((), status, words=words))
    return [Step(_NUMBER.sub("", name), name, tuple(made), several=len(made) > 1) for name, made in works.items()]


def _step_in(task: Task) -> str | None:
    """The step of a task, or None if Kubeflow has wrapped the task around steps."""
    name = str(task.get("display_name") or "")
    # The workflow has a task too. Its children have its name and a number.
    children = [str(child.get("pod_name") or "") for child in task.get("child_tasks") or []]
    itself = bool(name) and any(re.fullmatch(rf"{re.escape(name)}-\d+", child) for child in children)
    return None if not name or itself or _WRAPPER.search(name) else name


def errors_of(run: dict[str, Any]) -> dict[str, str]:
    """The errors that newer servers put into failed tasks and into the run, by step; the run's own under "the run"."""
    found: dict[str, str] = {}
    for task in (run.get("run_details") or {}).get("task_details") or []:
        words = str((task.get("error") or {}).get("message") or "").strip()
        name = _step_in(task)
        if words and name and task.get("state") == "FAILED":
            found.setdefault(_NUMBER.sub("", name), words)
    if words := str((run.get("error") or {}).get("message") or "").strip():
        found["the run"] = words
    return found
