"""Published figures, for the cells of a run that are the same cells."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tamis.core.settings import load_yaml
from tamis.reporting.experiment import Group

MEAN, DEVIATION = "mean", "deviation"
_FILE = Path(__file__).parent / "references" / "ds2.yaml"
_CHANGED = ("alpagasus", "deita", "less")  # strategies that the paper ran otherwise than published
_BASE = "base"


@cache
def _published() -> dict[str, Any]:
    return load_yaml(_FILE)


def paper() -> str:
    """What the figures are from."""
    return str(_published()["paper"])


def pool_size() -> int:
    """Samples in the pool of the published experiment."""
    return int(_published()["pool"])


def published_tasks() -> list[str]:
    """The tasks of which there are figures, by lm-eval's names."""
    return list(_published()["tasks"])


def published(group: Group, rater_models: dict[str, str]) -> dict[str, float]:
    """The paper's figures for the same base model, rater, strategy and size, as shares of 1.

    Keys are tasks, `MEAN` and, where the paper has several seeds, `DEVIATION`, the mean's standard deviation over them.

    `rater_models` maps the run's raters to the models that they are; a rater of no known model goes by its name.
    Nothing is returned for a strategy that was run in another way than the paper's.
    """
    if group.variant != ("ds2-paper" if group.strategy in _CHANGED else "published"):
        return {}
    rater = _known(rater_models.get(group.rater, group.rater), "raters") if group.rater else None
    return _figures(group.model, group.strategy, rater if rater is not None else group.rater or None, group.size)


def published_base(model: str) -> dict[str, float]:
    """The paper's figures for a base model as it was."""
    return _figures(model, _BASE, None, None)


def published_judging(group: Group, rater_models: dict[str, str], opponent: Sequence[str]) -> dict[str, float]:
    """The paper's win, tie and lose as shares of 1 for the same base model, rater and size of `ds2` against LIMA.

    `opponent` are the names by which the opponent is known; nothing is returned if none of them speaks of LIMA.
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
    """The paper's name of a model, known by the last part of a hub name or of a folder."""
    last = name.rstrip("/").rsplit("/", 1)[-1].lower()
    aliases: dict[str, Sequence[str]] = _published()[kind]
    return next((known for known, others in aliases.items() if last in others), None)
