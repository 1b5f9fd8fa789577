"""How well clusterability holds: agreement of ratings, and share of common true scores, by neighbour rank."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tamis.curation.neighborhoods import Neighborhoods
from tamis.curation.transition import Matrix


def pair_counts(view: Neighborhoods, classes: int) -> NDArray[np.int64]:
    """(k, K, K): at each neighbour rank, how often a sample rated a has a neighbour rated b."""
    counts = np.zeros((view.k, classes * classes), np.int64)
    for block in view.blocks(view.rows):
        samples, _ = view.lists(block)
        scores = view.scores_of(samples).astype(np.intp)
        keys = view.scores[block].astype(np.intp)[:, None] * classes + scores
        for rank in range(view.k):
            counts[rank] += np.bincount(keys[scores[:, rank] >= 0, rank], minlength=classes * classes)
    return counts.reshape(view.k, classes, classes)


def agreement_by_rank(counts: NDArray[np.int64]) -> Matrix:
    """(k,) share of pairs at each rank with equal ratings; NaN at a rank without pairs."""
    with np.errstate(invalid="ignore"):
        agreement: Matrix = np.trace(counts, axis1=1, axis2=2) / counts.sum((1, 2))
    return agreement


def sharing_by_rank(counts: NDArray[np.int64], T: Matrix, p: Matrix, q: Matrix) -> Matrix:
    """(k,) share of neighbours at each rank that share the sample's true score, by least squares, within 0..1.

    The pair frequencies at a rank are modelled as a mixture (1 - e) sum_i p_i T_ia T_ib + e q_a q_b.
    """
    same, other = (T.T * p) @ T, np.outer(q, q)
    slope = same - other
    size = float((slope**2).sum())
    with np.errstate(invalid="ignore"):
        frequencies = counts / counts.sum((1, 2), keepdims=True)
    if size < 1e-12:
        return np.full(len(counts), np.nan)
    shares: Matrix = np.clip(((frequencies - other) * slope).sum((1, 2)) / size, 0, 1)
    return shares
