"""The failed cells that the last words of a run name.

A failed cell is a success to Kubeflow, so that the other cells go on. The step that ends the run with them
(`tamis.kubeflow.require_whole`) is the only one whose words Kubeflow keeps.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_HEAD = re.compile(r"^(\d+) of the (?:results could not be made|experiment's cells failed)")
_CELL = re.compile(r"^  (?P<stage>\w+) of '(?P<name>[^']+)': (?P<reason>.*)$")
_EARLIER_CELL = re.compile(r"^  (?P<name>\S+), (?P<stage>\w+): (?P<reason>.*)$")
_ADVICE_ON_ALL = re.compile(r"^  to do:   (?:fix|mend) the cause")


@dataclass(frozen=True)
class FailedCell:
    """A cell without a result: its name, what could not be made of it, and why."""

    name: str
    artifact: str
    reason: str


def failed_cells(words: str) -> tuple[int, list[FailedCell]]:
    """The number of failed cells, and those that the words of a step name.

    Kubernetes keeps 4,096 bytes, so the words may name fewer. Both are empty if the words are about something else.
    """
    first, *lines = words.splitlines() or [""]
    head = _HEAD.match(first)
    if head is None:
        return 0, []
    found: list[FailedCell] = []
    for line in lines:
        if _ADVICE_ON_ALL.match(line):
            break
        if cell := _CELL.match(line) or _EARLIER_CELL.match(line):
            found.append(FailedCell(cell["name"], cell["stage"], cell["reason"]))
        elif found:
            last = found.pop()
            found.append(FailedCell(last.name, last.artifact, f"{last.reason}\n{line}"))
    return int(head[1]), found
