"""Groups: the cells, base models and raters of a run that share a pod, as the parameters of Kubeflow's pipelines."""

from __future__ import annotations

from typing import Any

_OF_CELLS = ("finetuning", "judging")  # parts of a cell that mostly say the same for all cells


def grouped(arguments: dict[str, Any], cells_per_pod: int = 1, *, together: bool = True) -> dict[str, Any]:
    """The parameters of a pipeline on Kubeflow, from those of a local run (`RunSettings.arguments`).

    Args:
        arguments: parameters with a list of cells, or of subsets.
        cells_per_pod: cells in a group. Every step of a group has one pod.
        together: whether imported raters share a pod; otherwise raters are not in groups.

    Returns:
        The parameters with `cells` as a list of groups. A group has a list for each part of a cell: "subset",
        "finetuning", "evaluation", and "judging" if cells are judged. What a part has in common for all cells is in the
        parameters "finetuning", "evaluation" and "judging". All subsets of a run without training are one group.
    """
    made = dict(arguments)
    if together:
        made["raters"] = _raters(arguments["raters"])
    if "cells" not in arguments:
        return made
    cells = [cell | {"evaluation": {}} for cell in arguments["cells"]]
    for part in _OF_CELLS:
        if part in cells[0]:
            made[part] = _common([cell[part] for cell in cells])
            own = [{name: value for name, value in cell[part].items() if name not in made[part]} for cell in cells]
            cells = [cell | {part: left} for cell, left in zip(cells, own, strict=True)]
    made["cells"] = larger([{part: [settings] for part, settings in cell.items()} for cell in cells], cells_per_pod)
    made["bases"] = [arguments["bases"]]
    return made


def larger(groups: list[dict[str, list[Any]]], number: int) -> list[dict[str, list[Any]]]:
    """Groups of `number` cells each, the last one of the rest, from groups of one cell each."""
    together = [groups[first : first + number] for first in range(0, len(groups), number)]
    return [{part: [one for group in those for one in group[part]] for part in those[0]} for those in together]


def _raters(raters: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Imported raters in one group, which takes seconds, and every other one in its own."""
    imported = [rater for rater in raters if rater.get("backend", {}).get("kind") == "import"]
    return [*([imported] if imported else []), *([rater] for rater in raters if rater not in imported)]


def _common(each: list[dict[str, Any]]) -> dict[str, Any]:
    """The settings that all of `each` have with the same value."""
    first = each[0]
    return {name: value for name, value in first.items() if all(one.get(name, ...) == value for one in each)}
