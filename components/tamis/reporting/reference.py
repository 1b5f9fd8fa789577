"""The paper's published figures, for the cells that a run shares with the paper."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tamis.core.settings import load_yaml
from tamis.reporting.experiment import Group

MEAN, DEVIATION = "mean", "deviation"
_FILE = Path(__file__).parent / "references" / "ds2.yaml"
_CHANGED = ("alpagasus", "deita", "less")  # strategies that the paper ran differently from how they were published
_BASE = "base"


@cache
def _published() -> dict[str, Any]:
    return load_yaml(_FILE)


def paper() -> str:
    """The source of the figures."""
    return str(_published()["paper"])


def pool_size() -> int:
    """Samples in the pool of the published experiment."""
    return int(_published()["pool"])


def published_tasks() -> list[str]:
    """The tasks with published figures, by their names in lm-eval."""
    return list(_published()["tasks"])


def published(group: Group, rater_models: dict[str, str]) -> dict[str, float]:
    """The paper's figures for the same base model, rater, strategy and size, as shares from 0 to 1.

    Keys are tasks, `MEAN` and, if the paper has several seeds, `DEVIATION`, the mean's standard deviation over them.

    `rater_models` maps the run's raters to their models; a rater with an unknown model is looked up by its name. The
    result is empty if the strategy was run differently from the paper.
    """
    if group.variant != ("ds2-paper" if group.strategy in _CHANGED else "published"):
        return {}
    rater = _known(rater_models.get(group.rater, group.rater), "raters") if group.rater else None
    return _figures(group.model, group.strategy, rater if rater is not None else group.rater or None, group.size)


def published_base(model: str) -> dict[str, float]:
    """The paper's figures for a base model without finetuning."""
    return _figures(model, _BASE, None, None)


def published_judging(group: Group, rater_models: dict[str, str], opponent: Sequence[str]) -> dict[str, float]:
    """The paper's win, tie and lose shares from 0 to 1, for the same base model, rater and size of `ds2` against LIMA.

    `opponent` are the names of the opponent; the result is empty if none of them contains "lima".
    """
    if (group.strategy, group.variant) != ("ds2", "published") or not any("lima" in name.lower() for name in opponent):
        return {}
    asked = (_known(group.model, "models"), _known(rater_models.get(group.rater, group.rater), "raters") or group.rater)
    for cell in _published()["judging"]:
        if (cell["model"], cell["rater"], cell["size"]) == (*asked, group.size):
            return {name: cell[name] / 100 for name in ("win", "tie", "lose")}
    return {}


def _figures(model: str, strategy: str, rater: str | None, size: int | None) -> dict[str, float]:
    data = _published()
    asked = (_known(model, "models"), strategy, rater, size)
    for cell in data["cells"]:
        if (cell["model"], cell["strategy"], cell.get("rater"), cell.get("size")) == asked:
            names = {task: column for task, column in data["tasks"].items()} | {MEAN: MEAN, DEVIATION: DEVIATION}
            return {task: cell[column] / 100 for task, column in names.items() if column in cell}
    return {}


def _known(name: str, kind: str) -> str | None:
    """The paper's name of a model, found by the last part of its name on the Hugging Face Hub or of its folder."""
    last = name.rstrip("/").rsplit("/", 1)[-1].lower()
    aliases: dict[str, Sequence[str]] = _published()[kind]
    return next((known for known, others in aliases.items() if last in others), None)
