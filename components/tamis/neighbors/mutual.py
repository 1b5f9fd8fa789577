"""Neighbours that an approximate search missed for a sample, but whose own search found that sample."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tamis.neighbors.refine import keys_of, pairs_of
from tamis.neighbors.vectors import Float

_BLOCK = 16_384  # samples handled together
_EDGE = 32  # bytes of a pair while it is sorted
_LAST = np.iinfo(np.int64).max


def mutual(
    indices: NDArray[np.int32], distances: Float, k: int, *, memory: int = 1 << 30
) -> tuple[NDArray[np.int32], Float]:
    """The `k` nearest among each sample's candidates and the samples that have it as a candidate.

    Args:
        indices: (n, m) candidates of all samples, m >= k, without repetition.
        distances: (n, m) their distances on the grid of `refine`, ascending.
        k: number of neighbours to keep.
        memory: limit in bytes for pairs.

    Returns:
        Neighbours (n, k) int32 and distances (n, k) float32, sorted by distance, then by number.
    """
    n, m = indices.shape
    kept, far = np.empty((n, k), np.int32), np.empty((n, k), np.float32)
    last = keys_of(indices[:, k - 1], distances[:, k - 1])
    height = max(1, min(n, memory // (_EDGE * m)))
    for first in range(0, n, height):
        end = min(first + height, n)
        takers, keys = _incoming(indices, distances, last, first, end, k)
        bounds = np.searchsorted(takers, np.arange(first, end + 1))
        for start in range(first, end, _BLOCK):
            stop = min(start + _BLOCK, end)
            some = slice(bounds[start - first], bounds[stop - first])
            own = keys_of(indices[start:stop], distances[start:stop])
            kept[start:stop], far[start:stop] = _nearest(own, takers[some] - start, keys[some], k)
    return kept, far


def _incoming(
    indices: NDArray[np.int32], distances: Float, last: NDArray[np.int64], first: int, stop: int, k: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Samples from `first` to `stop`, ascending, and for each the `k` nearest new ones, nearer than its last."""
    takers, keys = [], []
    for start in range(0, len(indices), _BLOCK):
        theirs, apart = indices[start : start + _BLOCK], distances[start : start + _BLOCK]
        offered = keys_of(np.arange(start, start + len(theirs), dtype=np.int32)[:, None], apart)
        passing = (theirs >= first) & (theirs < stop) & (offered < last[theirs])
        takers.append(theirs[passing].astype(np.int64))
        keys.append(offered[passing])
    taker, key = np.concatenate(takers), np.concatenate(keys)
    order = np.lexsort((key, taker))
    taker, key = taker[order], key[order]
    # At most k are kept, even if many samples have the same candidate.
    within = np.arange(len(taker)) - np.searchsorted(taker, taker) < k
    return taker[within], key[within]


def _nearest(
    own: NDArray[np.int64], takers: NDArray[np.int64], keys: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int32], Float]:
    """The first `k` of each row of `own` together with its new `keys`."""
    counts = np.bincount(takers, minlength=len(own))
    places = np.arange(len(takers)) - np.repeat(np.cumsum(counts) - counts, counts)
    all_keys = np.full((len(own), own.shape[1] + int(counts.max(initial=0))), _LAST)
    all_keys[:, : own.shape[1]] = own
    all_keys[takers, own.shape[1] + places] = keys
    all_keys.sort(1)
    all_keys[:, 1:][all_keys[:, 1:] == all_keys[:, :-1]] = _LAST  # pairs that found each other
    all_keys.sort(1)
    return pairs_of(all_keys[:, :k])
