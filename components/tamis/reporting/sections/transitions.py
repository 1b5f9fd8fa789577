"""Transition matrices as figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.reporting.blocks import Figure
from tamis.reporting.charts import heat_map
from tamis.reporting.numbers import known, percent


def matrix_of(value: Any) -> NDArray[np.float64] | None:
    """A square matrix out of JSON, or None when there is none."""
    if not isinstance(value, Sequence) or not value or not all(isinstance(row, Sequence) for row in value):
        return None
    size = len(value)
    if any(len(row) != size or not all(known(entry) for entry in row) for row in value):
        return None
    return np.array(value, dtype=float)


def transition_map(name: str, caption: str, what: str, matrix: NDArray[np.float64], *, x: str = "rated") -> Figure:
    """Heat map of a matrix (K, K) with true classes in rows; `what` names it in words."""
    labels = [str(i) for i in range(len(matrix))]
    texts = [[_share(value) for value in row] for row in matrix]
    kept = ", ".join(f"class {i} {percent(matrix[i, i], digits=0)}" for i in range(len(matrix)))
    return Figure(
        name,
        caption,
        f"Heat map of {what}. Estimated share that is {x} as what it is: {kept}.",
        heat_map(matrix, texts, rows=labels, columns=labels, y="true", x=x),
        height=300,
    )


def _share(value: float) -> str:
    """A share without its leading zero: .61; nothing where it rounds to none."""
    return "" if value < 0.005 else "1" if value >= 0.995 else f"{value:.2f}".lstrip("0")
