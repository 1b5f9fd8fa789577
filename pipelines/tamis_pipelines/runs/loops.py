"""What a loop's iterations, and steps for several cells, are about: names of raters, cells or base models.

Kubeflow numbers iterations only. Their numbers follow the order of the list that the loop goes through, and that list
is an argument of the run, or made of one by a step that keeps its order.
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
        items: the names of what each iteration is about, in the order of the list; None if the list is unknown.
    """

    over: str
    items: tuple[tuple[str, ...], ...] | None

    def names(self, number: int) -> tuple[str, ...]:
        """The names of what the iteration `number`, from 0, is about; its number, from 1, where it has no name."""
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

    def loop(self, task: Mapping[str, Any]) -> Loop:
        """The loop that Kubeflow's description of a task has."""
        source = (task.get("parameterIterator") or {}).get("items") or {}
        if "raw" in source:
            return Loop("", tuple(names_of(item) for item in json.loads(source["raw"])))
        over, items = self._list(_inputs(task).get(source.get("inputParameter", "")) or {})
        return Loop(over, None if items is None else tuple(names_of(item) for item in items))

    def cells(self, task: Mapping[str, Any]) -> tuple[str, ...]:
        """The names of the cells that one pod of a task works for; empty where that is not an input of its own."""
        return names_of(self._list(_inputs(task).get(_OF_CELLS) or {})[1] or [])

    def _list(self, source: Mapping[str, Any]) -> tuple[str, list[Any] | None]:
        """The name and the items of the list that an input of a task is; None if the list is unknown."""
        if produced := source.get("taskOutputParameter"):
            inputs = _inputs(self._tasks.get(produced.get("producerTask") or "", {}))
            lists = [(name, items) for name, items in map(self._list, inputs.values()) if items is not None]
            return lists[0] if len(lists) == 1 else ("", None)
        name = str(source.get("componentInputParameter") or "").removeprefix(PREFIX)
        items = self._arguments.get(name)
        # Pods' tolerations are lists too, of something that has no name.
        return name, items if isinstance(items, list) and (not items or names_of(items)) else None


def _inputs(task: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return (task.get("inputs") or {}).get("parameters") or {}


def names_of(item: Any) -> tuple[str, ...]:
    """The names of what one item of a list is about: one, or several if the item is a group.

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
