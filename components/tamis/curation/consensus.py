"""Consensus counts of a sample's rating and its two nearest neighbours', in closed form (paper section 3.2).

The paper draws sub-samples and counts the ratings (own, first, second) in each. Here the expectation over all draws is
computed. With N samples and draws of m without replacement, a drawn sample's neighbours of ranks i < j are the two
nearest drawn ones with probability w_j = C(N-1-j, m-3) / C(N-1, m-1), the same for every i below j.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.curation.neighborhoods import Neighborhoods


@dataclass(frozen=True)
class Consensus:
    """Frequencies of rating patterns among a sample and its two nearest neighbours.

    With T[i, j] = P(rated j | true i), prior p, and neighbours that share the true score:
    c1[a] = sum_i p_i T_ia, c2[a, b] = sum_i p_i T_ia T_ib, c3[a, b, c] = sum_i p_i T_ia T_ib T_ic.

    Attributes:
        c1: (K,) of the sample's own rating.
        c2: (K, K) of own and first neighbour's.
        c3: (K, K, K) of own, first and second neighbour's; sums to 1.
        covered: share of the expected patterns that the graph's neighbour lists cover, at most 1.
    """

    c1: NDArray[np.float64]
    c2: NDArray[np.float64]
    c3: NDArray[np.float64]
    covered: float


def pair_weights(k: int, population: int, drawn: int) -> NDArray[np.float64]:
    """Probability w_j that ranks i < j are the two nearest drawn neighbours, (k,); 0 for the first rank.

    `drawn` of `population` samples are drawn without replacement; the sample itself is among them.
    """
    from scipy.special import gammaln

    def log_choose(n: NDArray[Any], m: float) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore"):
            value = gammaln(n + 1) - gammaln(m + 1) - gammaln(n - m + 1)
        return np.where((n >= m) & (m >= 0), value, -np.inf)

    ranks = np.arange(1, k + 1, dtype=np.float64)
    logs = log_choose(population - 1 - ranks, drawn - 3) - log_choose(np.array([population - 1.0]), drawn - 1)
    weights: NDArray[np.float64] = np.exp(logs)
    weights[0] = 0
    return weights


def consensus(view: Neighborhoods, classes: int, share: float = 1.0) -> Consensus:
    """Consensus counts over all samples that are used in statistics.

    Args:
        view: graph and ratings.
        classes: number K of score classes.
        share: share of the samples in each draw. 1 gives the plain counts of the two nearest neighbours; a smaller
            share spreads the counts over more ranks, with less noise and a little more bias.
    """
    rows = view.rows
    if len(rows) < 3:
        return Consensus(np.zeros(classes), np.zeros((classes, classes)), np.zeros((classes,) * 3), 0.0)
    drawn = max(3, round(share * len(rows)))
    weights = pair_weights(view.k, len(rows), drawn)
    reach = int(np.flatnonzero(weights > 0)[-1]) + 1
    c3, covered = np.zeros((classes,) * 3), 0.0
    for block in view.blocks(rows):
        samples, _ = view.lists(block, reach)
        scores = view.scores_of(samples)
        own = view.scores[block].astype(np.intp)
        before = np.zeros((len(block), classes))
        for j in range(reach):
            known = np.flatnonzero(scores[:, j] >= 0)
            mine, theirs = own[known], scores[known, j].astype(np.intp)
            if weights[j] > 0:
                key = mine * classes + theirs
                for b in range(classes):
                    counts = np.bincount(key, before[known, b], classes * classes)
                    c3[:, b, :] += weights[j] * counts.reshape(classes, classes)
                covered += weights[j] * float(before[known].sum())
            before[known, theirs] += 1
    if covered == 0:
        return Consensus(np.zeros(classes), np.zeros((classes, classes)), c3, 0.0)
    c3 /= covered
    return Consensus(c3.sum((1, 2)), c3.sum(2), c3, covered / len(rows))
