"""Exact search on a CPU: the cosine matrix in tiles, each computed and searched by one core.

The matrix is symmetric, so only tiles on and above the diagonal are computed, which halves the work: a tile serves the
samples of its rows and those of its columns. Cores wait for each other only when they store the few cosines that exceed
the samples' bounds.

The results are candidates by float32 cosines; `refine` turns them into the final neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, islice, product
from queue import SimpleQueue
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tamis.core.errors import SettingsError
from tamis.core.processes import cores
from tamis.core.progress import Progress
from tamis.neighbors.best import NOTHING, Best, capacity
from tamis.neighbors.vectors import Float, Vectors

_LARGEST, _SMALLEST = 1024, 128  # rows and columns of a tile; larger tiles do not fit into the cache
_AT_ONCE = 4096  # tiles given to the workers at a time
_GROUPS_PER_CANDIDATE = 4

Places = NDArray[np.intp]


def candidates(vectors: Vectors, k: int, memory: int) -> tuple[Float, NDArray[np.int32]]:
    """The `k` samples with the largest float32 cosines to each sample, without the sample itself.

    Args:
        vectors: n vectors.
        k: candidates per sample, less than n.
        memory: limit in bytes.

    Returns:
        Cosines (n, k) float32 and sample numbers (n, k) int32, in arbitrary order within a row. If several candidates
        have the smallest kept cosine, it is not defined which of them are kept.

    Raises:
        SettingsError: when `memory` is too small.
    """
    n = len(vectors)
    search = _Search(vectors, n, n, k, memory)
    best, units = search.best, search.units

    def diagonal(tile: _Tile, first: int, _: int) -> None:
        rows = units.block(first, first + search.size)
        # numpy uses a slower routine for the product of a matrix with itself, so a copy is passed.
        cosines = tile.product(rows, rows.copy())
        np.fill_diagonal(cosines, NOTHING)
        search.begin(tile, first, first, cosines)

    def above(tile: _Tile, first: int, other: int) -> None:
        cosines = tile.product(units.block(first, first + search.size), units.block(other, other + search.size))
        search.rows_take(tile, first, other, cosines)
        search.columns_take(tile, first, other, cosines)

    starts = range(0, n, search.size)
    with Progress("neighbors", len(starts) * (len(starts) + 1) // 2, unit="tiles") as progress:
        # The diagonal comes first: afterwards every sample has a bound that few cosines exceed.
        search.each(zip(starts, starts, strict=True), diagonal, progress)
        search.each(combinations(starts, 2), above, progress)
    return best.finish()


def candidates_among(
    vectors: Vectors,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    k: int,
    memory: int,
) -> tuple[Float, NDArray[np.int32]]:
    """The `k` samples of `columns` with the largest cosines to each sample of `rows`.

    It is used for a shard of the graph or for new samples, where symmetry does not help.

    Args:
        vectors: n vectors.
        rows: numbers of the samples whose neighbours are searched.
        columns: ascending numbers of the samples among which they are searched; a sample is not its own neighbour.
        k: candidates per sample, at most the number of columns without the sample itself.
        memory: limit in bytes.

    Returns:
        Cosines (len(rows), k) float32 and the candidates' numbers (len(rows), k) int32, in arbitrary order.
    """
    search = _Search(vectors, len(rows), len(columns), k, memory)

    def compare(tile: _Tile, first: int, other: int) -> None:
        mine, theirs = rows[first : first + search.size], columns[other : other + search.size]
        cosines = tile.product(search.units.at(mine), search.units.at(theirs))
        place = np.minimum(np.searchsorted(theirs, mine), len(theirs) - 1)
        own = np.flatnonzero(theirs[place] == mine)
        cosines[own, place[own]] = NOTHING
        if other == 0:
            search.begin(tile, first, other, cosines)
        else:
            search.rows_take(tile, first, other, cosines)

    starts, others = range(0, len(rows), search.size), range(0, len(columns), search.size)
    with Progress("neighbors", len(starts) * len(others), unit="tiles") as progress:
        search.each(product(starts, others[:1]), compare, progress)
        search.each(product(starts, others[1:]), compare, progress)
    cosines, places = search.best.finish()
    return cosines, columns[places].astype(np.int32)


class _Search:
    """The data that the workers of a search share.

    Attributes:
        size: largest number of rows and columns of a tile.
        best: the candidates of every row.
        units: the vectors.
    """

    def __init__(self, vectors: Vectors, rows: int, columns: int, k: int, memory: int) -> None:
        d = vectors.dimensions
        most, self._workers = tiles_within(memory, rows, d, k)
        longest = max(rows, columns)
        self.size = -(-longest // -(-longest // most))  # equal tiles; samples of a small tile would have weak bounds
        self.units = _Units(vectors, memory - _needed(self.size, self._workers, rows, d, k))
        self.best, self._k = Best(rows, k), k
        self._locks = [Lock() for _ in range(0, rows, self.size)]
        self._tiles: SimpleQueue[_Tile] = SimpleQueue()
        for _ in range(self._workers):
            self._tiles.put(_Tile(self.size))

    def each(
        self, tasks: Iterable[tuple[int, int]], work: Callable[[_Tile, int, int], None], progress: Progress
    ) -> None:
        """Let the workers process tiles, which are given by their first row and first column."""

        def one(task: tuple[int, int]) -> None:
            tile = self._tiles.get()
            try:
                work(tile, *task)
            finally:
                self._tiles.put(tile)

        tasks = iter(tasks)
        with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(self._workers, "neighbors") as pool:
            while some := list(islice(tasks, _AT_ONCE)):
                for _ in pool.map(one, some):
                    progress.advance()

    def begin(self, tile: _Tile, first: int, other: int, cosines: Float) -> None:
        """Set the bounds and the first candidates of a tile's rows, from its columns."""
        rows = slice(first, first + len(cosines))
        self.best.bounds[rows] = _lower_bounds(cosines, self._k)
        self.rows_take(tile, first, other, cosines)
        self.best.trim(np.arange(rows.start, rows.stop))

    def rows_take(self, tile: _Tile, first: int, other: int, cosines: Float) -> None:
        """Store the candidates that a tile's rows find in its columns."""
        passing = tile.passing(cosines, self.best.bounds[first : first + len(cosines), None])
        rows, columns = _places(passing, cosines.shape[1])
        found = cosines.reshape(-1)[passing]
        with self._locks[first // self.size]:
            self.best.take(rows + first, columns + other, found)

    def columns_take(self, tile: _Tile, first: int, other: int, cosines: Float) -> None:
        """Store the candidates that a tile's columns find in its rows."""
        passing = tile.passing(cosines, self.best.bounds[other : other + cosines.shape[1]])
        rows, columns = _places(passing, cosines.shape[1])
        order = np.argsort(columns.astype(np.uint16), kind="stable")  # 16 bits, so numpy uses a radix sort
        found = cosines.reshape(-1)[passing[order]]
        with self._locks[other // self.size]:
            self.best.take(columns[order] + other, rows[order] + first, found)


class _Tile:
    """A worker's buffers for a tile of at most `size` rows and columns."""

    def __init__(self, size: int) -> None:
        self._product = np.empty(size * size, np.float32)
        self._mask = np.empty(size * size, bool)

    def product(self, rows: Float, columns: Float) -> Float:
        """Cosines of all pairs of vectors, valid until the next call."""
        shape = len(rows), len(columns)
        cosines: Float = np.matmul(rows, columns.T, out=self._product[: shape[0] * shape[1]].reshape(shape))
        return cosines

    def passing(self, cosines: Float, bounds: Float) -> Places:
        """Indices, in the flattened product, of values above `bounds`, (rows, 1) or (columns,)."""
        # numpy compares twice as fast with a buffer as long as a row as with its default buffer.
        before = np.setbufsize(-(-cosines.shape[1] // 16) * 16)
        mask = np.greater(cosines, bounds, out=self._mask[: cosines.size].reshape(cosines.shape))
        np.setbufsize(before)
        return np.flatnonzero(mask)


class _Units:
    """Vectors of length 1: normalised once if all fit into `memory` bytes, otherwise block by block."""

    def __init__(self, vectors: Vectors, memory: int) -> None:
        self._vectors = vectors
        self._all = vectors.unit(0, len(vectors)) if 4 * vectors.raw.size <= memory else None

    def block(self, start: int, stop: int) -> Float:
        return self._vectors.unit(start, stop) if self._all is None else self._all[start:stop]

    def at(self, rows: NDArray[np.int64]) -> Float:
        return self._vectors.unit_at(rows) if self._all is None else self._all[rows]


def tiles_within(memory: int, n: int, dimensions: int, k: int) -> tuple[int, int]:
    """The largest tile and number of workers with which a search for `n` samples stays within `memory` bytes.

    Raises:
        SettingsError: when even one worker with the smallest tile needs more.
    """
    for workers, size in product(range(cores(), 0, -1), range(_LARGEST, 0, -_SMALLEST)):
        if _needed(size, workers, n, dimensions, k) <= memory:
            return size, workers
    raise SettingsError(
        f"neighbors.memory_mb: {memory >> 20} MiB are too little for the graph of {n} samples",
        allowed=f"{(_needed(_SMALLEST, 1, n, dimensions, k) >> 20) + 1} or more",
        action="raise memory_mb, or use method: approximate",
    )


def _needed(size: int, workers: int, n: int, dimensions: int, k: int) -> int:
    """Bytes of a search: all candidates and the best; per worker a tile, its values above the bounds, and vectors."""
    return n * (8 * capacity(k) + 8 * k + 12) + workers * size * (size * 5 + capacity(k) * 48 + dimensions * 16)


def _places(flat: Places, width: int) -> tuple[Places, Places]:
    """Rows and columns of indices in a flattened matrix. numpy divides much faster than it computes remainders."""
    rows = flat // width
    return rows, flat - rows * width


def _lower_bounds(cosines: Float, k: int) -> Float:
    """For each row, a number that at least `k` of its products exceed, close to the k-th largest product.

    The maxima of disjoint groups of columns are different products, so the k-th largest maximum is at most the k-th
    largest product.
    """
    groups = _GROUPS_PER_CANDIDATE * k
    width = cosines.shape[1] // groups
    if cosines.shape[1] < k:
        return np.full(len(cosines), NOTHING, np.float32)
    largest = cosines[:, : groups * width].reshape(len(cosines), width, groups).max(1) if width > 1 else cosines
    place = largest.shape[1] - k
    bounds: Float = np.partition(largest, place, axis=1)[:, place]
    return np.nextafter(bounds, NOTHING)
