"""Helpers of several sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.reporting.numbers import DASH, MINUS, count, decimal, known, signed
from tamis.reporting.outcomes import Evaluations

OTHERS = "others"
# Metrics of lm-eval for which less is better.
LESS_IS_BETTER = {"perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "brier_score", "ter"}


@dataclass(frozen=True)
class Scale:
    """How benchmark values are written: shares in percent, anything else unchanged."""

    shares: bool

    def text(self, value: float | None) -> str:
        """A value."""
        return DASH if value is None else decimal(100 * value, 1) if self.shares else decimal(value, 3)

    def difference(self, value: float | None) -> str:
        """A difference with its sign."""
        return DASH if value is None else signed(100 * value, 1) if self.shares else signed(value, 3)

    def with_error(self, value: float | None, error: float | None, *, difference: bool = False) -> str:
        """A value or a difference, with ± and its error."""
        text = self.difference(value) if difference else self.text(value)
        return text if value is None or error is None else f"{text} ± {self.text(error)}"


def scale_of(evaluations: Evaluations) -> Scale:
    """The scale on which all values of a run can be written, and averaged if they are shares."""
    within = all(score.value is None or 0 <= score.value <= 1 for score in evaluations.scores.values())
    return Scale(within and LESS_IS_BETTER.isdisjoint(evaluations.metric.values()))


def in_words(key: str) -> str:
    """A manifest's key as a label: "train_loss" becomes "train loss"."""
    return key.replace("_", " ").strip()


def number(value: Any) -> str:
    """A value of unknown kind: whole numbers with separators, small numbers with four digits."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not known(value):
        return str(value)
    if float(value).is_integer():
        return count(value)
    return decimal(value, 2) if abs(value) >= 10 else f"{value:.4g}".replace("-", MINUS)


def scalars(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that are single values; values in a nested mapping are named "outer, inner"."""
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
    """A count that fits into a cell of a heat map; empty for 0."""
    return "" if value == 0 else str(value) if value < 10_000 else f"{value / 1000:.0f}k"
