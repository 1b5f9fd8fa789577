"""Which score a sample gets, given the probabilities of its true class.

A rating is changed only to a class that is at least as probable as the rating and at least as near to the truth on
average. Where the probabilities are true, that can raise neither the share of wrong scores nor the mean absolute error;
the most probable class alone may raise the second, and the median the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.curation.classes import UNRATED

_SLACK = 1e-9


def chosen(
    posterior: NDArray[np.floating[Any]],
    raw: NDArray[np.int8],
    *,
    threshold: float = 0.0,
    fill: bool = False,
    others: Sequence[NDArray[np.floating[Any]]] = (),
) -> NDArray[np.int8]:
    """The score of each sample, (n,) int8; -1 where there is none.

    Args:
        posterior: (n, K) probability of each true class; NaN where nothing is known.
        raw: (n,) score class as rated, -1 where there is no rating.
        threshold: a rating is changed only to a class of at least this probability.
        fill: whether a sample without a rating gets its most probable class.
        others: (n, K) probabilities by other accounts of the data, under which a change must be no worse either.
    """
    rows = np.arange(len(posterior))
    known, rated = np.isfinite(posterior[:, 0]), raw != UNRATED
    place = np.maximum(raw, 0)
    better = _no_worse(posterior, place) & (posterior >= threshold)
    for other in others:
        better &= _no_worse(other, place)
    with np.errstate(invalid="ignore"):
        best = np.where(better, posterior, -1.0).argmax(1)
    # The rating itself stands against an equal, and where no class passes the threshold.
    gains = better[rows, best] & (posterior[rows, best] > posterior[rows, place])
    score = np.where(known & rated & gains, best, raw)
    if fill:
        top = np.nan_to_num(posterior, nan=-1.0)
        sure = known & ~rated & (top.max(1) >= threshold)
        score = np.where(sure, top.argmax(1), score)
    return score.astype(np.int8)


def _no_worse(posterior: NDArray[np.floating[Any]], place: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """(n, K) which classes are at least as probable and at least as near to the truth as the class `place` (n,)."""
    rows, steps = np.arange(len(posterior)), np.arange(posterior.shape[1])
    distance = posterior @ np.abs(np.subtract.outer(steps, steps)).astype(posterior.dtype)
    better: NDArray[np.bool_] = posterior >= posterior[rows, place][:, None] - _SLACK
    better &= distance <= distance[rows, place][:, None] + _SLACK
    return better
