"""What a loop's iterations are about: the names of the raters, cells or base models that it goes through."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tamis_pipelines.runs.workflow import PREFIX


@dataclass(frozen=True)
class Loop:
    """A loop over a list.

    Attributes:
        over: the list's name, as in "cells"; empty if it is unknown.
        items: the names of what each iteration is about, in the order of the list; None if the list is unknown.
    """

    over: str
    items: tuple[tuple[str, ...], ...] | None

    @classmethod
    def of(cls, iterator: Mapping[str, Any], parameters: Mapping[str, Any]) -> Loop:
        """The loop that `parameterIterator` of a task describes, in a run with these arguments."""
        source = iterator.get("items") or {}
        over = str(source.get("inputParameter") or "").removeprefix(PREFIX)
        items = parameters.get(over)
        if "raw" in source:
            items = json.loads(source["raw"])
        if not isinstance(items, list):
            return cls(over, None)
        return cls(over, tuple(names_of(item) for item in items))

    def names(self, number: int) -> tuple[str, ...]:
        """The names of what the iteration `number`, from 0, is about; its number, from 1, where it has no name."""
        known = self.items[number] if self.items is not None and number < len(self.items) else ()
        return known or (str(number + 1),)


def names_of(item: Any) -> tuple[str, ...]:
    """The names of what one item of a loop's list is about: one, or several if the item is a group.

    Items are settings with a `name`, cells (whose name is their subset's), or lists of those.
    """
    if isinstance(item, str):
        return (item,)
    if isinstance(item, list):
        return tuple(name for member in item for name in names_of(member))
    if not isinstance(item, Mapping):
        return ()
    if name := item.get("name"):
        return (f"{name} {item['shard']}" if item.get("shard") else str(name),)
    inner = [item["subset"]] if "subset" in item else [value for value in item.values() if isinstance(value, list)]
    return tuple(name for value in inner for name in names_of(value))
