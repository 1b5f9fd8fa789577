"""The best candidates of every sample so far, and lower bounds for new candidates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tamis.neighbors.vectors import Float

NOTHING = np.float32(-4)  # less than any cosine
_EMPTY = np.iinfo(np.int64).min
_BLOCK = 2048  # samples finished at a time


class Best:
    """Collects candidates for `n` samples and keeps the best `k` of each.

    Each sample has a row with room for more than k candidates. A full row is trimmed to the best k, which also raises
    the sample's bound: a cosine at or below the bound is not among the k best. A candidate is one integer with the
    cosine in its upper half and the sample in its lower half, so trimming a row is one partition of integers.

    Threads may work on different samples at the same time.

    Attributes:
        bounds: (n,) float32.
    """

    def __init__(self, n: int, k: int) -> None:
        """Start without candidates."""
        self.bounds = np.full(n, NOTHING, np.float32)
        self._k, self._capacity = k, capacity(k)
        self._keys = np.full((n, self._capacity), _EMPTY)
        self._filled = np.zeros(n, np.int64)

    def take(self, takers: NDArray[np.intp], offered: NDArray[np.intp], cosines: Float) -> None:
        """Add the candidates `offered` with their `cosines` to the samples `takers`, which are sorted."""
        if len(takers):
            self._add(takers, _keys_of(cosines, offered))

    def _add(self, takers: NDArray[np.intp], keys: NDArray[np.int64]) -> None:
        firsts = np.flatnonzero(np.r_[True, takers[1:] != takers[:-1]])
        counts = np.diff(np.r_[firsts, len(takers)])
        changed = takers[firsts]
        full = self._filled[changed] + counts > self._capacity
        if full.any():
            self.trim(changed[full])
            tight = np.flatnonzero(full & (self._filled[changed] + counts > self._capacity))
            if len(tight):  # more candidates than the row has room for
                keep = np.ones(len(takers), bool)
                for place in tight.tolist():
                    offer = slice(firsts[place], firsts[place] + counts[place])
                    self._replace(int(changed[place]), keys[offer])
                    keep[offer] = False
                if keep.any():
                    self._add(takers[keep], keys[keep])
                return
        places = np.arange(len(takers)) - np.repeat(firsts - self._filled[changed], counts)
        self._keys.reshape(-1)[takers * self._capacity + places] = keys
        self._filled[changed] += counts

    def trim(self, rows: NDArray[np.intp]) -> None:
        """Trim the `rows` with more than k candidates to the best k, and raise their bounds."""
        rows = rows[self._filled[rows] > self._k]
        keys, k = self._keys[rows], self._k
        keys.partition(self._capacity - k, axis=1)
        best = keys[:, -k:]
        self._keys[rows, k:] = _EMPTY
        self._keys[rows, :k] = best
        self._filled[rows] = k
        self.bounds[rows] = _cosines_of(best.min(1))

    def _replace(self, row: int, keys: NDArray[np.int64]) -> None:
        keys = np.concatenate([self._keys[row, : self._filled[row]], keys])
        best = np.partition(keys, len(keys) - self._k)[-self._k :]
        self._keys[row, : self._k], self._keys[row, self._k :] = best, _EMPTY
        self._filled[row] = self._k
        self.bounds[row] = _cosines_of(best.min(keepdims=True))[0]

    def finish(self) -> tuple[Float, NDArray[np.int32]]:
        """Cosines and numbers of the k best candidates of every sample."""
        n, k = len(self.bounds), self._k
        cosines, samples = np.empty((n, k), np.float32), np.empty((n, k), np.int32)
        for start in range(0, n, _BLOCK):
            block = slice(start, start + _BLOCK)
            self.trim(np.arange(n)[block])
            keys = self._keys[block, :k]
            cosines[block], samples[block] = _cosines_of(keys), keys.astype(np.int32)
        return cosines, samples


def capacity(k: int) -> int:
    """Number of candidates for which a sample has room."""
    return 2 * k + 32


def _keys_of(cosines: Float, samples: NDArray[np.intp]) -> NDArray[np.int64]:
    keys: NDArray[np.int64] = (_flipped(cosines.view(np.int32)).astype(np.int64) << 32) | samples
    return keys


def _cosines_of(keys: NDArray[np.int64]) -> Float:
    cosines: Float = _flipped((keys >> 32).astype(np.int32)).view(np.float32)
    return cosines


def _flipped(bits: NDArray[np.int32]) -> NDArray[np.int32]:
    """Convert the bits of float32 numbers to integers with the same order, and back."""
    ordered: NDArray[np.int32] = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return ordered
