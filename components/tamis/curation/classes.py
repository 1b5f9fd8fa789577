"""Score classes: ratings from 1 to 10 reduced to 0..5 (paper section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

UNRATED = -1
_NOTHING = 1e-9
Reachable = NDArray[np.bool_]


def to_classes(ratings: NDArray[Any], *, lowest: int = 4, highest: int = 9) -> NDArray[np.int8]:
    """Score class of each rating: min(max(rating, lowest), highest) - lowest.

    Args:
        ratings: (n,) numbers; fractions are rounded half up; NaN if there is no rating.
        lowest: ratings up to this one are class 0.
        highest: ratings from this one on are the top class, highest - lowest.

    Returns:
        (n,) int8 classes, `UNRATED` (-1) if the rating is NaN.
    """
    values = np.asarray(ratings, np.float64)
    known = ~np.isnan(values)
    classes = np.full(len(values), UNRATED, np.int8)
    classes[known] = np.clip(np.floor(values[known] + 0.5), lowest, highest) - lowest
    return classes


def reachable_of(possible: Sequence[int] | None, scores: NDArray[np.int8], *, lowest: int, highest: int) -> Reachable:
    """(K,) the classes for which a rater's scale has ratings.

    Args:
        possible: the ratings 1..10 that its scale maps to; None if that is unknown, or any number is possible.
        scores: (n,) its score classes; classes that occur are possible.
        lowest: ratings up to this one are class 0.
        highest: ratings from this one on are the top class.
    """
    found = np.full(highest - lowest + 1, possible is None)
    if possible is not None:
        found[to_classes(np.array(possible, np.float64), lowest=lowest, highest=highest)] = True
        found[scores[scores != UNRATED]] = True
    return found


def reachable_mean(raters: Sequence[Reachable]) -> Reachable:
    """(K,) the classes that the rounded mean of several raters can have; any of them may have given no rating."""
    sums: set[tuple[int, int]] = {(0, 0)}  # how many rated, and the sum of their classes
    for one in raters:
        given = np.flatnonzero(one).tolist()
        sums |= {(number + 1, total + score) for number, total in sums for score in given}
    found = np.zeros(len(raters[0]), bool)
    for number, total in sums - {(0, 0)}:
        found[int(np.floor(total / number + 0.5))] = True
    return found


def within_reach(T: NDArray[np.float64], reachable: Reachable) -> NDArray[np.float64]:
    """`T` (K, K), true classes in rows, with probability 0 for impossible ratings; rows sum to 1.

    A row with only impossible ratings gets the nearest possible class, the lower one of two.
    """
    if reachable.all() or not reachable.any():
        return T
    found = np.where(reachable, T, 0.0)
    total = found.sum(1, keepdims=True)
    steps = np.arange(len(T))
    far = np.where(reachable, np.abs(steps[:, None] - steps), len(T))
    nearest = np.eye(len(T))[far.argmin(1)]
    result: NDArray[np.float64] = np.where(total > _NOTHING, found / np.maximum(total, _NOTHING), nearest)
    return result
