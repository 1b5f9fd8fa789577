"""Transition matrices as figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.reporting.blocks import Figure
from tamis.reporting.charts import heat_map
from tamis.reporting.numbers import known, percent


def matrix_of(value: Any) -> NDArray[np.float64] | None:
    """A square matrix read from JSON, or None if it is not one."""
    if not isinstance(value, Sequence) or not value or not all(isinstance(row, Sequence) for row in value):
        return None
    size = len(value)
    if any(len(row) != size or not all(known(entry) for entry in row) for row in value):
        return None
    return np.array(value, dtype=float)


def reach_of(diagnosis: Mapping[str, Any], classes: int) -> list[int]:
    """The classes that the rater's scale has ratings for; all classes if the diagnosis does not say."""
    found = diagnosis.get("reachable")
    if not isinstance(found, Sequence) or len(found) != classes:
        return list(range(classes))
    return [score for score, can in enumerate(found) if can]


def transition_map(
    name: str,
    caption: str,
    what: str,
    matrix: NDArray[np.float64],
    *,
    x: str = "rated",
    reach: Sequence[int] | None = None,
    prior: Any = None,
) -> Figure:
    """Heat map of a matrix (K, K) with true classes in rows; `what` names it in words.

    Args:
        name, caption, what: of the figure.
        matrix: of probabilities.
        x: what the columns are.
        reach: the classes that have ratings on the scale; only these have a column. None: all.
        prior: (K,) of the true classes; a class without ratings has a row only if its prior is above 0.
    """
    columns = list(range(len(matrix))) if reach is None else list(reach)
    rows = [i for i in range(len(matrix)) if i in columns or _entry(prior, i) > 0]
    matrix = matrix[np.ix_(rows, columns)]
    texts = [[_share(value) for value in row] for row in matrix]
    kept = ", ".join(
        f"class {i} {percent(matrix[rows.index(i), columns.index(i)], digits=0)}" for i in rows if i in columns
    )
    labels = [str(i) for i in columns]
    return Figure(
        name,
        caption,
        f"Heat map of {what}. Estimated share that is {x} correctly: {kept}.",
        heat_map(matrix, texts, rows=[str(i) for i in rows], columns=labels, y="true", x=x),
        height=300,
    )


def _entry(values: Any, place: int) -> float:
    given = isinstance(values, Sequence) and place < len(values) and known(values[place])
    return float(values[place]) if given else 0.0


def _share(value: float) -> str:
    """A share without its leading zero: .61; empty if it rounds to 0."""
    return "" if value < 0.005 else "1" if value >= 0.995 else f"{value:.2f}".lstrip("0")
