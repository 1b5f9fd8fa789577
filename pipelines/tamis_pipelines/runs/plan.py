"""The steps that a workflow has, from its templates: all of them, in order, before the first has started."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from tamis_pipelines.runs.loops import Lists, Loop
from tamis_pipelines.runs.workflow import Workflow, argument, tasks_in

_DRIVER = "-driver"
_HOLDS_ITERATIONS = "iteration-iterations"
_NUMBER = re.compile(r"-\d+$")  # kfp adds it to tasks of the same component


@dataclass(frozen=True)
class PlannedStep:
    """A step of a workflow.

    Attributes:
        name: its name, as in "select".
        title: a name that no other step has: with the list of its loop, if several steps have the same name.
        key: its place (`workflow.Place.key`).
        loops: the loops that it is in, outermost first.
        cells: the cells that its one pod works for, if it is in no loop.
    """

    name: str
    title: str
    key: tuple[str, ...]
    loops: tuple[Loop, ...]
    cells: tuple[str, ...] = ()


def planned_steps(workflow: Workflow) -> list[PlannedStep]:
    """The steps of a workflow, in the order in which they may run. Kubeflow's own pods are left out."""
    steps = list(_walk(workflow, workflow.entrypoint, (), (), Lists(workflow)))
    count = Counter(step.name for step in steps)
    return [replace(step, title=_told_apart(step)) if count[step.name] > 1 else step for step in steps]


def _told_apart(step: PlannedStep) -> str:
    """A title that differs from those of other steps of the same name."""
    over = step.loops[-1].over if step.loops else ""
    return f"{step.name} ({over})" if over else step.key[-1]


def _walk(
    workflow: Workflow, template: str, key: tuple[str, ...], loops: tuple[Loop, ...], lists: Lists
) -> Iterator[PlannedStep]:
    tasks = {task["name"]: task for task in tasks_in(workflow.templates.get(template, {}))}
    ends = []
    for name in _in_order(tasks):
        task, driver = tasks[name], tasks.get(f"{name}{_DRIVER}")
        if name.endswith(_DRIVER):
            continue
        inner = workflow.templates.get(task.get("template", ""), {})
        if not tasks_in(inner) or "container-driver" in (driver or {}).get("template", ""):
            title = _title(name, argument(driver or {}, "task"))
            yield PlannedStep(title, title, (*key, name), loops, () if loops else lists.cells(name))
        elif name == _HOLDS_ITERATIONS:
            loop = lists.loop(argument(tasks.get("iteration-driver", {}), "task"))
            yield from _walk(workflow, task["template"], key, (*loops, loop), lists)
        else:
            yield from _walk(workflow, task["template"], (*key, name), loops, lists)
        for hook in (task.get("hooks") or {}).values():
            ends.append((hook["template"], (*key, name, "onExit")))
    for hook_template, hook_key in ends:
        yield from _walk(workflow, hook_template, hook_key, loops, lists)


def _title(name: str, description: dict[str, Any]) -> str:
    """The name of a step: the task's display name if it has one, otherwise its name without kfp's number."""
    shown = str((description.get("taskInfo") or {}).get("name") or name)
    return _NUMBER.sub("", name) if shown == name else shown


def _in_order(tasks: dict[str, dict[str, Any]]) -> list[str]:
    """The names of tasks so that each comes after those that it depends on, and as late as those behind it allow."""
    needed = {
        name: re.findall(r"[\w-]+(?=\.\w)", task.get("depends") or "") or task.get("dependencies") or []
        for name, task in tasks.items()
    }

    @cache
    def behind(name: str) -> int:
        return max((1 + behind(other) for other, others in needed.items() if name in others), default=0)

    return sorted(tasks, key=behind, reverse=True)
