"""What several sections need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.reporting.numbers import MINUS, count, decimal, known

OTHERS = "others"


def in_words(key: str) -> str:
    """A manifest's key as a label: "train_loss" becomes "train loss"."""
    return key.replace("_", " ").strip()


def number(value: Any) -> str:
    """A fact of unknown meaning: whole numbers with separators, small ones with four digits."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not known(value):
        return str(value)
    if float(value).is_integer():
        return count(value)
    return decimal(value, 2) if abs(value) >= 10 else f"{value:.4g}".replace("-", MINUS)


def scalars(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that are single values; those of a nested mapping are named "outer, inner"."""
    flat: dict[str, Any] = {}
    for key, value in facts.items():
        if isinstance(value, (str, int, float)) and str(value):
            flat[in_words(key)] = value
        elif isinstance(value, Mapping):
            inner = {f"{in_words(key)}, {in_words(k)}": v for k, v in value.items() if isinstance(v, (str, int, float))}
            flat.update(inner)
    return flat


def folded(names: Sequence[str], limit: int) -> tuple[list[str], NDArray[np.int64]]:
    """At most `limit` names, the rest folded into "others", and each old code's new code."""
    if len(names) <= limit:
        return list(names), np.arange(len(names))
    return [*names[: limit - 1], OTHERS], np.minimum(np.arange(len(names)), limit - 1)


def shares(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Rows divided by their sums; a row without counts is all zero."""
    totals = counts.sum(-1, keepdims=True)
    result: NDArray[np.float64] = counts / np.maximum(totals, 1)
    return result


def few(value: int) -> str:
    """A count that fits the cell of a heat map; nothing for none."""
    return "" if value == 0 else str(value) if value < 10_000 else f"{value / 1000:.0f}k"
