"""Exact search on a CPU: blocked matrix products, of which each block serves its rows and its columns.

The cosine matrix is symmetric, so only blocks on and above its diagonal are computed, which halves the arithmetic. The
products go through numpy, whose OpenBLAS was faster than torch's MKL where both were measured (an AMD processor;
`benchmarks/curation.py` prints both).

What comes out are candidates by float32 cosines; `refine` turns them into the final neighbours.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

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
    size = block_size(n, vectors.dimensions, k, memory)
    best = _Best(n, k)
    starts = range(0, n, size)
    product = np.empty(size * size, np.float32)
    by_rows, by_columns = _Offer(best, size), _Offer(best, size)
    with Progress("neighbors", len(starts) * (len(starts) + 1) // 2, unit="blocks") as progress, _helper() as helper:
        # The diagonal goes first: afterwards every sample has a bound that few products pass.
        for start in starts:
            rows = vectors.unit(start, min(start + size, n))
            cosines = np.matmul(rows, rows.T, out=product[: len(rows) ** 2].reshape(len(rows), len(rows)))
            np.fill_diagonal(cosines, _NOTHING)
            best.bounds[start : start + len(rows)] = _lower_bounds(cosines, k)
            by_rows.to_rows(start, start, cosines)
            best.trim(np.arange(start, start + len(rows)))
            progress.advance()
        for start in starts:
            rows = vectors.unit(start, min(start + size, n))
            for other in range(start + size, n, size):
                columns = vectors.unit(other, min(other + size, n))
                shape = (len(rows), len(columns))
                cosines = np.matmul(rows, columns.T, out=product[: shape[0] * shape[1]].reshape(shape))
                # The samples of rows and of columns are different ones, so both can take their share at once.
                second = helper.submit(by_columns.to_columns, start, other, cosines)
                by_rows.to_rows(start, other, cosines)
                second.result()
                progress.advance()
    return best.finish()


def candidates_among(
    vectors: Vectors,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    k: int,
    memory: int,
) -> tuple[Float, NDArray[np.int32]]:
    """The `k` samples of `columns` with the largest cosines to each sample of `rows`.

    For a share of the graph, or for what is new in it: nothing is gained from symmetry here.

    Args:
        vectors: n vectors.
        rows: numbers of the samples whose neighbours are sought.
        columns: ascending numbers of the samples among which they are sought; a sample is not its own neighbour.
        k: candidates per sample, at most the columns that are not the sample itself.
        memory: bytes that the search may use.

    Returns:
        Float32 cosines (len(rows), k), and the candidates' numbers (len(rows), k) int32, in no order.
    """
    size = block_size(max(len(rows), len(columns)), vectors.dimensions, k, memory)
    best = _Best(len(rows), k)
    offer, product = _Offer(best, size), np.empty(size * size, np.float32)
    with Progress("neighbors", len(rows)) as progress:
        for start in range(0, len(rows), size):
            mine = rows[start : start + size]
            units = vectors.unit_at(mine)
            for other in range(0, len(columns), size):
                theirs = columns[other : other + size]
                shape = (len(mine), len(theirs))
                out = product[: shape[0] * shape[1]].reshape(shape)
                cosines = np.matmul(units, vectors.unit_at(theirs).T, out=out)
                place = np.searchsorted(theirs, mine)
                own = np.flatnonzero(theirs[np.minimum(place, len(theirs) - 1)] == mine)
                cosines[own, place[own]] = _NOTHING
                if other == 0:
                    best.bounds[start : start + len(mine)] = _lower_bounds(cosines, k)
                offer.to_rows(start, other, cosines)
            progress.advance(len(mine))
    cosines, places = best.finish()
    return cosines, columns[places].astype(np.int32)


def block_size(n: int, dimensions: int, k: int, memory: int) -> int:
    """Rows of a block such that the search stays within `memory` bytes.

    Raises:
        SettingsError: when not even the smallest block fits.
    """

    def needed(size: int) -> int:
        # The kept candidates; a product, two masks, and what passes in the first block; two blocks of vectors twice.
        return n * (_capacity(k) * 8 + 12) + size * size * 14 + 16 * size * dimensions + size * _capacity(k) * 24

    for size in range(_LARGEST, 0, -_SMALLEST):
        if needed(size) <= memory:
            return min(size, n)
    raise SettingsError(
        f"neighbors.memory_mb: {memory >> 20} MiB do not hold the graph of {n} samples",
        allowed=f"{(needed(_SMALLEST) >> 20) + 1} or more",
        action="raise memory_mb, or use method: approximate",
    )


def _capacity(k: int) -> int:
    return 2 * k + 32


def _helper() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="neighbors")


class _Best:
    """The best candidates so far of every sample.

    A sample's candidates are gathered in a row with room for more than k and cut to the best k when it is full, which
    also raises its bound: a cosine at or below the bound is not among the k best.
    """

    def __init__(self, n: int, k: int) -> None:
        self.bounds = np.full(n, _NOTHING, np.float32)
        self._k, self._capacity = k, _capacity(k)
        self._cosines = np.full((n, self._capacity), _NOTHING, np.float32)
        self._samples = np.zeros((n, self._capacity), np.int32)
        self._filled = np.zeros(n, np.int32)

    def take(self, takers: NDArray[np.intp], offered: NDArray[np.intp], cosines: Float) -> None:
        """Add candidates: `offered` with `cosines` to the samples `takers`, which are sorted."""
        if not len(takers):
            return
        firsts = np.flatnonzero(np.r_[True, takers[1:] != takers[:-1]])
        counts = np.diff(np.r_[firsts, len(takers)])
        changed = takers[firsts]
        full = self._filled[changed] + counts > self._capacity
        if full.any():
            self.trim(changed[full])
            tight = np.flatnonzero(full & (self._filled[changed] + counts > self._capacity))
            if len(tight):  # more at once than the row has room for
                keep = np.ones(len(takers), bool)
                for place in tight.tolist():
                    offer = slice(firsts[place], firsts[place] + counts[place])
                    self._replace(int(changed[place]), offered[offer], cosines[offer])
                    keep[offer] = False
                self.take(takers[keep], offered[keep], cosines[keep])
                return
        places = np.arange(len(takers)) - np.repeat(firsts - self._filled[changed], counts)
        self._cosines[takers, places], self._samples[takers, places] = cosines, offered
        self._filled[changed] += counts.astype(np.int32)

    def trim(self, rows: NDArray[np.intp]) -> None:
        """Keep the best k of `rows` that have more, and raise their bounds."""
        rows = rows[self._filled[rows] > self._k]
        cosines, k = self._cosines[rows], self._k
        kept = np.argpartition(cosines, self._capacity - k, axis=1)[:, -k:]
        best = np.take_along_axis(cosines, kept, 1)
        samples = np.take_along_axis(self._samples[rows], kept, 1)
        self._cosines[rows, k:] = _NOTHING
        self._cosines[rows, :k], self._samples[rows, :k] = best, samples
        self._filled[rows] = k
        self.bounds[rows] = best.min(1, initial=np.inf)

    def _replace(self, row: int, offered: NDArray[np.intp], cosines: Float) -> None:
        filled = self._filled[row]
        cosines = np.concatenate([self._cosines[row, :filled], cosines])
        samples = np.concatenate([self._samples[row, :filled], offered])
        kept = np.argpartition(cosines, len(cosines) - self._k)[-self._k :]
        self._cosines[row, : self._k], self._samples[row, : self._k] = cosines[kept], samples[kept]
        self._cosines[row, self._k :] = _NOTHING
        self._filled[row] = self._k
        self.bounds[row] = cosines[kept].min()

    def finish(self) -> tuple[Float, NDArray[np.int32]]:
        """Cosines and numbers of the k best of every sample."""
        n = len(self.bounds)
        for start in range(0, n, _LARGEST):
            self.trim(np.arange(start, min(start + _LARGEST, n)))
        return self._cosines[:, : self._k], self._samples[:, : self._k]


class _Offer:
    """Offers products to samples, with memory of its own so that two can work side by side."""

    def __init__(self, best: _Best, size: int) -> None:
        self._best = best
        self._mask = np.empty(size * size, bool)

    def to_rows(self, first: int, other: int, cosines: Float) -> None:
        """Offer the samples from `other` on (columns) to the samples from `first` on (rows)."""
        passing = self._passing(cosines, self._best.bounds[first : first + len(cosines), None])
        rows, columns = np.divmod(passing, cosines.shape[1])
        self._best.take(rows + first, columns + other, cosines.reshape(-1)[passing])

    def to_columns(self, first: int, other: int, cosines: Float) -> None:
        """Offer the samples from `first` on (rows) to the samples from `other` on (columns)."""
        passing = self._passing(cosines, self._best.bounds[None, other : other + cosines.shape[1]])
        rows, columns = np.divmod(passing, cosines.shape[1])
        order = np.argsort(columns.astype(np.uint16), kind="stable")  # a radix sort, at this width
        self._best.take(columns[order] + other, rows[order] + first, cosines.reshape(-1)[passing[order]])

    def _passing(self, cosines: Float, bounds: Float) -> NDArray[np.intp]:
        mask = np.greater(cosines, bounds, out=self._mask[: cosines.size].reshape(cosines.shape))
        return np.flatnonzero(mask)


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
