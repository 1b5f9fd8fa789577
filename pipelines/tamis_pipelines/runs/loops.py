"""The names of the raters, cells or base models that an iteration of a loop, or a step for several cells, works for.

Kubeflow only numbers iterations. The numbers follow the order of the list that the loop goes through. That list is an
argument of the run, or a step has made it of one: then the step's output has the name of the input, and the same order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tamis_pipelines.runs.workflow import PREFIX, Workflow, argument, tasks_in

_OF_CELLS = "cells"  # the input of a step that works for several cells in one pod


@dataclass(frozen=True)
class Loop:
    """A loop over a list.

    Attributes:
        over: the list's name, as in "cells"; empty if it is unknown.
        items: the names that each iteration works for, in the order of the list; None if the list is unknown.
    """

    over: str
    items: tuple[tuple[str, ...], ...] | None

    def names(self, number: int) -> tuple[str, ...]:
        """The names that the iteration `number`, from 0, works for; its number, from 1, if there is no name."""
        known = self.items[number] if self.items is not None and number < len(self.items) else ()
        return known or (str(number + 1),)


class Lists:
    """The lists that the steps of a workflow work through."""

    def __init__(self, workflow: Workflow) -> None:
        self._arguments = workflow.parameters()
        self._tasks = {
            task["name"].removesuffix("-driver"): argument(task, "task")
            for template in workflow.templates.values()
            for task in tasks_in(template)
            if task["name"].endswith("-driver")
        }
        sources = [source for task in self._tasks.values() for source in _inputs(task).values()]
        self._makers = {_made(source).get("producerTask") for source in sources}

    def loop(self, task: Mapping[str, Any]) -> Loop:
        """The loop that Kubeflow's description of a task has."""
        source = (task.get("parameterIterator") or {}).get("items") or {}
        if "raw" in source:
            return Loop("", tuple(names_of(item) for item in json.loads(source["raw"])))
        over, items = self._list(_inputs(task).get(source.get("inputParameter", "")) or {})
        return Loop(over, None if items is None else tuple(names_of(item) for item in items))

    def cells(self, name: str) -> tuple[str, ...]:
        """The names of the cells that one pod of the task `name` works for; empty where it works for the whole run."""
        if name in self._makers:
            return ()  # it makes lists for others
        _, items = self._list(_inputs(self._tasks.get(name, {})).get(_OF_CELLS) or {})
        return names_of(items or [])

    def _list(self, source: Mapping[str, Any]) -> tuple[str, list[Any] | None]:
        """The name and the items of the list that an input of a task is; None if the list is unknown."""
        if made := _made(source):
            inputs = _inputs(self._tasks.get(made.get("producerTask") or "", {}))
            return self._list(inputs.get(made.get("outputParameterKey") or "") or {})
        name = str(source.get("componentInputParameter") or "").removeprefix(PREFIX)
        items = self._arguments.get(name)
        return name, items if isinstance(items, list) else None


def _made(source: Mapping[str, Any]) -> dict[str, Any]:
    """The output of another task that an input is; empty if it is something else."""
    return source.get("taskOutputParameter") or {}


def _inputs(task: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return (task.get("inputs") or {}).get("parameters") or {}


def names_of(item: Any) -> tuple[str, ...]:
    """The names in one item of a list: one name, or several if the item is a group.

    Items are settings with a `name`; cells, whose name is their subset's; or lists of those.
    """
    if isinstance(item, str):
        return (item,)
    if isinstance(item, list):
        return tuple(name for member in item for name in names_of(member))
    if not isinstance(item, Mapping):
        return ()
    if name := item.get("name"):
        return (f"{name} {item['shard']}" if item.get("shard") else str(name),)
    return names_of(item.get("subset") or [])
