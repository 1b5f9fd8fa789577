"""The choice of a sample's score, given the probabilities of its true class.

A rating is changed only to a class that is at least as probable as the rating and, on average, at least as close to the
truth. If the probabilities are right, this raises neither the share of wrong scores nor the mean absolute error. The
most probable class alone could raise the mean error, and the median could raise the share of wrong scores.
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
    """The score of each sample, (n,) int8; -1 if there is none.

    Args:
        posterior: (n, K) probability of each true class; NaN if unknown.
        raw: (n,) score class as rated, -1 if there is no rating.
        threshold: a rating is changed only to a class with at least this probability.
        fill: whether a sample without a rating gets its most probable class.
        others: (n, K) probabilities under other explanations of the data, which must not make a change worse.
    """
    rows = np.arange(len(posterior))
    known, rated = np.isfinite(posterior[:, 0]), raw != UNRATED
    place = np.maximum(raw, 0)
    better = _no_worse(posterior, place) & (posterior >= threshold)
    for other in others:
        better &= _no_worse(other, place)
    with np.errstate(invalid="ignore"):
        best = np.where(better, posterior, -1.0).argmax(1)
    # The rating is kept if no class is more probable, or none reaches the threshold.
    gains = better[rows, best] & (posterior[rows, best] > posterior[rows, place])
    score = np.where(known & rated & gains, best, raw)
    if fill:
        top = np.nan_to_num(posterior, nan=-1.0)
        sure = known & ~rated & (top.max(1) >= threshold)
        score = np.where(sure, top.argmax(1), score)
    return score.astype(np.int8)


def _no_worse(posterior: NDArray[np.floating[Any]], place: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """(n, K) which classes are at least as probable and at least as close to the truth as the class `place` (n,)."""
    rows, steps = np.arange(len(posterior)), np.arange(posterior.shape[1])
    distance = posterior @ np.abs(np.subtract.outer(steps, steps)).astype(posterior.dtype)
    better: NDArray[np.bool_] = posterior >= posterior[rows, place][:, None] - _SLACK
    better &= distance <= distance[rows, place][:, None] + _SLACK
    return better
