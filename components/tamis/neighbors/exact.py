"""Exact search on a CPU: the cosine matrix in tiles, each made and looked through by one core.

The matrix is symmetric, so only tiles on and above its diagonal are made, which halves the arithmetic: a tile serves
the samples of its rows and those of its columns. Cores wait for each other only to note the few cosines that pass their
samples' bounds.

What comes out are candidates by float32 cosines; `refine` turns them into the final neighbours.
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

_LARGEST, _SMALLEST = 1024, 128  # rows and columns of a tile: larger ones fall out of the cache
_AT_ONCE = 4096  # tiles handed to the workers together
_GROUPS_PER_CANDIDATE = 4

Places = NDArray[np.intp]


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
    search = _Search(vectors, n, n, k, memory)
    best, units = search.best, search.units

    def diagonal(tile: _Tile, first: int, _: int) -> None:
        rows = units.block(first, first + search.size)
        # Of a matrix with itself numpy takes another, slower routine; a copy is not itself.
        cosines = tile.product(rows, rows.copy())
        np.fill_diagonal(cosines, NOTHING)
        search.begin(tile, first, first, cosines)

    def above(tile: _Tile, first: int, other: int) -> None:
        cosines = tile.product(units.block(first, first + search.size), units.block(other, other + search.size))
        search.rows_take(tile, first, other, cosines)
        search.columns_take(tile, first, other, cosines)

    starts = range(0, n, search.size)
    with Progress("neighbors", len(starts) * (len(starts) + 1) // 2, unit="tiles") as progress:
        # The diagonal goes first: afterwards every sample has a bound that few cosines pass.
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
    """What the workers of a search share.

    Attributes:
        size: rows and columns of a tile, at most.
        best: the candidates of every row.
        units: the vectors.
    """

    def __init__(self, vectors: Vectors, rows: int, columns: int, k: int, memory: int) -> None:
        d = vectors.dimensions
        most, self._workers = tiles_within(memory, rows, d, k)
        longest = max(rows, columns)
        self.size = -(-longest // -(-longest // most))  # tiles of one size, so that no few samples have weak bounds
        self.units = _Units(vectors, memory - _needed(self.size, self._workers, rows, d, k))
        self.best, self._k = Best(rows, k), k
        self._locks = [Lock() for _ in range(0, rows, self.size)]
        self._tiles: SimpleQueue[_Tile] = SimpleQueue()
        for _ in range(self._workers):
            self._tiles.put(_Tile(self.size))

    def each(
        self, tasks: Iterable[tuple[int, int]], work: Callable[[_Tile, int, int], None], progress: Progress
    ) -> None:
        """Let the workers go through tiles, given by their first row and first column."""

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
        """Give the rows of a tile bounds, and the first candidates: the best of its columns."""
        rows = slice(first, first + len(cosines))
        self.best.bounds[rows] = _lower_bounds(cosines, self._k)
        self.rows_take(tile, first, other, cosines)
        self.best.trim(np.arange(rows.start, rows.stop))

    def rows_take(self, tile: _Tile, first: int, other: int, cosines: Float) -> None:
        """Note what the rows of a tile find in its columns."""
        passing = tile.passing(cosines, self.best.bounds[first : first + len(cosines), None])
        rows, columns = _places(passing, cosines.shape[1])
        found = cosines.reshape(-1)[passing]
        with self._locks[first // self.size]:
            self.best.take(rows + first, columns + other, found)

    def columns_take(self, tile: _Tile, first: int, other: int, cosines: Float) -> None:
        """Note what the columns of a tile find in its rows."""
        passing = tile.passing(cosines, self.best.bounds[other : other + cosines.shape[1]])
        rows, columns = _places(passing, cosines.shape[1])
        order = np.argsort(columns.astype(np.uint16), kind="stable")  # a radix sort, at this width
        found = cosines.reshape(-1)[passing[order]]
        with self._locks[other // self.size]:
            self.best.take(columns[order] + other, rows[order] + first, found)


class _Tile:
    """A worker's room for a tile of at most `size` rows and columns."""

    def __init__(self, size: int) -> None:
        self._product = np.empty(size * size, np.float32)
        self._mask = np.empty(size * size, bool)

    def product(self, rows: Float, columns: Float) -> Float:
        """Cosines of all pairs of vectors; until the next product."""
        shape = len(rows), len(columns)
        cosines: Float = np.matmul(rows, columns.T, out=self._product[: shape[0] * shape[1]].reshape(shape))
        return cosines

    def passing(self, cosines: Float, bounds: Float) -> Places:
        """Places, in the flattened product, of what exceeds `bounds`, (rows, 1) or (columns,)."""
        # With buffers as long as a row numpy compares twice as fast as with its own.
        before = np.setbufsize(-(-cosines.shape[1] // 16) * 16)
        mask = np.greater(cosines, bounds, out=self._mask[: cosines.size].reshape(cosines.shape))
        np.setbufsize(before)
        return np.flatnonzero(mask)


class _Units:
    """Vectors of length 1: all made once where `memory` bytes hold them, else block by block."""

    def __init__(self, vectors: Vectors, memory: int) -> None:
        self._vectors = vectors
        self._all = vectors.unit(0, len(vectors)) if 4 * vectors.raw.size <= memory else None

    def block(self, start: int, stop: int) -> Float:
        return self._vectors.unit(start, stop) if self._all is None else self._all[start:stop]

    def at(self, rows: NDArray[np.int64]) -> Float:
        return self._vectors.unit_at(rows) if self._all is None else self._all[rows]


def tiles_within(memory: int, n: int, dimensions: int, k: int) -> tuple[int, int]:
    """Most rows of a tile, and workers, with which the search of `n` samples' neighbours stays within `memory` bytes.

    Raises:
        SettingsError: when not even one worker with the smallest tile fits.
    """
    for workers, size in product(range(cores(), 0, -1), range(_LARGEST, 0, -_SMALLEST)):
        if _needed(size, workers, n, dimensions, k) <= memory:
            return size, workers
    raise SettingsError(
        f"neighbors.memory_mb: {memory >> 20} MiB do not hold the graph of {n} samples",
        allowed=f"{(_needed(_SMALLEST, 1, n, dimensions, k) >> 20) + 1} or more",
        action="raise memory_mb, or use method: approximate",
    )


def _needed(size: int, workers: int, n: int, dimensions: int, k: int) -> int:
    """Bytes of a search: candidates, and the best of them; for each worker a tile, what passes of one, and vectors."""
    return n * (8 * capacity(k) + 8 * k + 12) + workers * size * (size * 5 + capacity(k) * 48 + dimensions * 16)


def _places(flat: Places, width: int) -> tuple[Places, Places]:
    """Rows and columns of places in a flattened matrix; numpy divides far faster than it takes remainders."""
    rows = flat // width
    return rows, flat - rows * width


def _lower_bounds(cosines: Float, k: int) -> Float:
    """For each row a number that at least `k` of its products exceed, close to the k-th largest one.

    The largest products of disjoint groups of columns are as many different products, so the k-th largest of them is
    no larger than the k-th largest product.
    """
    groups = _GROUPS_PER_CANDIDATE * k
    width = cosines.shape[1] // groups
    if cosines.shape[1] < k:
        return np.full(len(cosines), NOTHING, np.float32)
    largest = cosines[:, : groups * width].reshape(len(cosines), width, groups).max(1) if width > 1 else cosines
    place = largest.shape[1] - k
    bounds: Float = np.partition(largest, place, axis=1)[:, place]
    return np.nextafter(bounds, NOTHING)
