"""Exact search on a CPU: blocked matrix products, of which each block serves its rows and its columns.

The cosine matrix is symmetric, so only blocks on and above its diagonal are computed, which halves the arithmetic. The
products go through numpy, whose OpenBLAS was faster than torch's MKL where both were measured (an AMD processor;
`benchmarks/curation.py` prints both).

What comes out are candidates by float32 cosines; `refine` turns them into the final neighbours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tamis.core.errors import SettingsError
from tamis.core.progress import Progress
from tamis.neighbors.vectors import Float, Vectors

_LARGEST, _SMALLEST = 2048, 128  # rows of a block: larger ones fall out of the cache
_GROUPS_PER_CANDIDATE = 4
_NOTHING = np.float32(-4)  # below every cosine


def candidates(vectors: Vectors, k: int, memory: int) -> tuple[Float, NDArray[np.int32]]:
    """The `k` samples with the largest float32 cosines to each sample, itself excluded by its number.

    Args:
        vectors: n vectors.
        k: candidates per sample, below n.
        memory: bytes that may be used.

    Returns:
        Cosines (n, k) float32 and sample numbers (n, k) int32, in no order within a row. Among candidates whose cosine
        equals the smallest kept one, which are kept is not defined.

    Raises:
        SettingsError: when `memory` is too small.
    """
    n = len(vectors)
    best = _Best(n, k)
    size = block_size(n, vectors.dimensions, k, memory)
    starts = range(0, n, size)
    product = np.empty(size * size, np.float32)
    with Progress("neighbors", len(starts) * (len(starts) + 1) // 2, unit="blocks") as progress:
        # The diagonal goes first: afterwards every sample has a bound that few products pass.
        for start in starts:
            rows = vectors.unit(start, min(start + size, n))
            cosines = np.matmul(rows, rows.T, out=product[: len(rows) ** 2].reshape(len(rows), len(rows)))
            np.fill_diagonal(cosines, _NOTHING)
            best.start(start, cosines)
            progress.advance()
        for start in starts:
            rows = vectors.unit(start, min(start + size, n))
            for other in range(start + size, n, size):
                columns = vectors.unit(other, min(other + size, n))
                shape = (len(rows), len(columns))
                cosines = np.matmul(rows, columns.T, out=product[: shape[0] * shape[1]].reshape(shape))
                best.add_rows(start, other, cosines)
                best.add_columns(start, other, cosines)
                progress.advance()
    return best.cosines, best.samples


def block_size(n: int, dimensions: int, k: int, memory: int) -> int:
    """Rows of a block such that the search stays within `memory` bytes.

    Raises:
        SettingsError: when not even the smallest block fits.
    """
    kept = n * (k * 8 + 12)
    for size in range(_LARGEST, 0, -_SMALLEST):
        # Products, their mask, and the merge of at most as many passing products; two blocks of vectors in two forms.
        if kept + size * size * 14 + 4 * size * dimensions * 4 + size * k * 24 <= memory:
            return min(size, n)
    needed = (kept + _SMALLEST**2 * 14 + 16 * _SMALLEST * dimensions + _SMALLEST * k * 24 >> 20) + 1
    raise SettingsError(
        f"neighbors.memory_mb: {memory >> 20} MiB do not hold the graph of {n} samples",
        allowed=f"{needed} or more",
        action="raise memory_mb, or use method: approximate",
    )


class _Best:
    """The best candidates so far of every sample, and the smallest cosine among them as a bound."""

    def __init__(self, n: int, k: int) -> None:
        self.cosines = np.full((n, k), _NOTHING, np.float32)
        self.samples = np.zeros((n, k), np.int32)
        self._bounds = np.full(n, _NOTHING, np.float32)
        self._k = k

    def start(self, first: int, cosines: Float) -> None:
        """Take the products of the samples from `first` on with each other."""
        self._bounds[first : first + len(cosines)] = _lower_bounds(cosines, self._k)
        self.add_rows(first, first, cosines)

    def add_rows(self, first: int, other: int, cosines: Float) -> None:
        """Offer the samples from `other` on (columns) to the samples from `first` on (rows)."""
        bounds = self._bounds[first : first + len(cosines)]
        passing = np.flatnonzero(cosines > bounds[:, None])
        rows, columns = np.divmod(passing, cosines.shape[1])
        self._merge(rows + first, columns + other, cosines.reshape(-1)[passing])

    def add_columns(self, first: int, other: int, cosines: Float) -> None:
        """Offer the samples from `first` on (rows) to the samples from `other` on (columns)."""
        bounds = self._bounds[other : other + cosines.shape[1]]
        passing = np.flatnonzero(cosines > bounds[None, :])
        rows, columns = np.divmod(passing, cosines.shape[1])
        order = np.argsort(columns, kind="stable")
        self._merge(columns[order] + other, rows[order] + first, cosines.reshape(-1)[passing[order]])

    def _merge(self, takers: NDArray[np.intp], offered: NDArray[np.intp], cosines: Float) -> None:
        """Keep the best of old and new; `takers` is sorted."""
        if not len(takers):
            return
        firsts = np.flatnonzero(np.r_[True, takers[1:] != takers[:-1]])
        counts = np.diff(np.r_[firsts, len(takers)])
        which = np.repeat(np.arange(len(firsts)), counts)
        place = np.arange(len(takers)) - np.repeat(firsts, counts) + self._k
        changed = takers[firsts]
        shape = (len(firsts), self._k + int(counts.max()))
        values, numbers = np.full(shape, _NOTHING), np.zeros(shape, np.int32)
        values[:, : self._k], numbers[:, : self._k] = self.cosines[changed], self.samples[changed]
        values[which, place], numbers[which, place] = cosines, offered
        kept = np.argpartition(values, shape[1] - self._k, axis=1)[:, -self._k :]
        values = np.take_along_axis(values, kept, 1)
        self.cosines[changed], self.samples[changed] = values, np.take_along_axis(numbers, kept, 1)
        self._bounds[changed] = values.min(1)


def _lower_bounds(cosines: Float, k: int) -> Float:
    """For each row a number that at least `k` of its products exceed, close to the k-th largest one.

    The largest products of disjoint groups of columns are as many different products, so the k-th largest of them is
    no larger than the k-th largest product.
    """
    groups = _GROUPS_PER_CANDIDATE * k
    width = cosines.shape[1] // groups
    if width < 2:
        return np.full(len(cosines), _NOTHING, np.float32)
    largest = cosines[:, : groups * width].reshape(len(cosines), width, groups).max(1)
    bounds: Float = np.partition(largest, groups - k, axis=1)[:, groups - k]
    return np.nextafter(bounds, _NOTHING)
