"""Which samples are dropped as near-copies of which kept sample."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from tamis.core.progress import Progress
from tamis.nearcopies.shingles import jaccard, ngrams
from tamis.nearcopies.signatures import Buckets

NOT_DROPPED = -1
_DEVIATIONS = 4  # of an estimated similarity below the threshold, beyond which a pair is not compared exactly


def near_copies(
    matrix: NDArray[np.uint32],
    buckets: Buckets,
    text_of: Callable[[int], str],
    *,
    n: int,
    threshold: float,
    settled: int = 0,
) -> tuple[NDArray[np.int32], NDArray[np.float32], int]:
    """Drop every sample that is a near-copy of an earlier kept one.

    A sample that is dropped always has an exact similarity of at least `threshold` with the kept sample of its
    cluster: clusters are not chains, and hash collisions have no effect on what is dropped.

    Args:
        matrix: (m, permutations) signatures, in the order of preference: of two near-copies, the first is kept.
        buckets: which of them share a band.
        text_of: the normalized text of a sample that shares a band, by its number.
        n: characters per n-gram.
        threshold: least Jaccard similarity of near-copies.
        settled: so many samples at the beginning are kept without being compared with each other.

    Returns:
        (m,) the number of the kept sample of which each one is a near-copy, or `NOT_DROPPED`; (m,) their similarity;
        and how many pairs were compared exactly.
    """
    samples, permutations = matrix.shape
    kept_for = np.full(samples, NOT_DROPPED, np.int32)
    similarity = np.ones(samples, np.float32)
    least = threshold - _DEVIATIONS * sqrt(threshold * (1 - threshold) / permutations)
    compared = 0
    candidates = np.flatnonzero((buckets.bucket >= 0).any(axis=1))
    with Progress("near-copies", len(candidates)) as progress:
        for number in candidates.tolist():
            progress.advance(1)
            if kept_for[number] != NOT_DROPPED:
                continue
            others = buckets.after(number)
            others = others[(kept_for[others] == NOT_DROPPED) & (others >= settled)]
            if not len(others):
                continue
            estimated = (matrix[others] == matrix[number]).mean(axis=1)
            others = others[estimated >= least]
            if not len(others):
                continue
            mine = ngrams(text_of(number), n)
            for other in others.tolist():
                value = jaccard(mine, ngrams(text_of(other), n))
                if value >= threshold:
                    kept_for[other], similarity[other] = number, value
            compared += len(others)
    return kept_for, similarity, compared
