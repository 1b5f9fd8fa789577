"""Exact search on a CPU: blocked matrix products, of which each block serves its rows and its columns.

The cosine matrix is symmetric, so only blocks on and above its diagonal are computed, which halves the arithmetic. Two
threads then look for the few products that pass their samples' bounds, strip by strip, so that a strip is read from
memory once for both directions.

What comes out are candidates by float32 cosines; `refine` turns them into the final neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from tamis.core.errors import SettingsError
from tamis.core.progress import Progress
from tamis.neighbors.best import NOTHING, Best, capacity
from tamis.neighbors.vectors import Float, Vectors

_LARGEST, _SMALLEST = 1664, 128  # rows of a block: larger ones fall out of the cache
_STRIP = 64  # rows looked through at a time, while they are in a core's own cache
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
    size = min(n, block_size(n, vectors.dimensions, k, memory))
    units = _Units(vectors, memory - _needed(size, n, vectors.dimensions, k))
    best = Best(n, k)
    starts = range(0, n, size)
    blocks = len(starts) * (len(starts) + 1) // 2
    product = np.empty(size * size, np.float32)
    with Progress("neighbors", blocks, unit="blocks") as progress, _Offer(best, size) as offer:
        # The diagonal goes first: afterwards every sample has a bound that few products pass.
        for start in starts:
            rows = units.block(start, min(start + size, n))
            # Of a matrix with itself numpy takes another, slower routine; a copy is not itself.
            cosines = np.matmul(rows, rows.copy().T, out=product[: len(rows) ** 2].reshape(len(rows), len(rows)))
            np.fill_diagonal(cosines, NOTHING)
            offer.first(start, start, cosines, k)
            progress.advance()
        for start in starts:
            rows = units.block(start, min(start + size, n))
            for other in range(start + size, n, size):
                columns = units.block(other, min(other + size, n))
                shape = (len(rows), len(columns))
                cosines = np.matmul(rows, columns.T, out=product[: shape[0] * shape[1]].reshape(shape))
                offer.both(start, other, cosines)
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
    size = min(max(len(rows), len(columns)), block_size(len(rows), vectors.dimensions, k, memory))
    units = _Units(vectors, memory - _needed(size, len(rows), vectors.dimensions, k))
    best = Best(len(rows), k)
    product = np.empty(size * size, np.float32)
    with Progress("neighbors", len(rows)) as progress, _Offer(best, size) as offer:
        for start in range(0, len(rows), size):
            mine = rows[start : start + size]
            my_units = units.at(mine)
            for other in range(0, len(columns), size):
                theirs = columns[other : other + size]
                shape = (len(mine), len(theirs))
                out = product[: shape[0] * shape[1]].reshape(shape)
                cosines = np.matmul(my_units, units.at(theirs).T, out=out)
                place = np.searchsorted(theirs, mine)
                own = np.flatnonzero(theirs[np.minimum(place, len(theirs) - 1)] == mine)
                cosines[own, place[own]] = NOTHING
                if other == 0:
                    offer.first(start, other, cosines, k)
                else:
                    offer.to_rows(start, other, cosines)
            progress.advance(len(mine))
    cosines, places = best.finish()
    return cosines, columns[places].astype(np.int32)


def block_size(n: int, dimensions: int, k: int, memory: int) -> int:
    """Most rows of a block with which the search of `n` samples' neighbours stays within `memory` bytes.

    Raises:
        SettingsError: when not even the smallest block fits.
    """
    for size in range(_LARGEST, 0, -_SMALLEST):
        if _needed(size, n, dimensions, k) <= memory:
            return size
    raise SettingsError(
        f"neighbors.memory_mb: {memory >> 20} MiB do not hold the graph of {n} samples",
        allowed=f"{(_needed(_SMALLEST, n, dimensions, k) >> 20) + 1} or more",
        action="raise memory_mb, or use method: approximate",
    )


def _needed(size: int, n: int, dimensions: int, k: int) -> int:
    """Bytes of a search with blocks of `size` rows: the kept candidates; a product and, of the first block, what
    passes; two blocks of vectors, twice."""
    return n * (capacity(k) * 8 + 12) + size * size * 14 + 16 * size * dimensions + size * capacity(k) * 24


class _Units:
    """Vectors of length 1: all made once where `memory` bytes hold them, else block by block."""

    def __init__(self, vectors: Vectors, memory: int) -> None:
        self._vectors = vectors
        self._all = vectors.unit(0, len(vectors)) if 4 * vectors.raw.size <= memory else None

    def block(self, start: int, stop: int) -> Float:
        return self._vectors.unit(start, stop) if self._all is None else self._all[start:stop]

    def at(self, rows: NDArray[np.int64]) -> Float:
        return self._vectors.unit_at(rows) if self._all is None else self._all[rows]


class _Offer:
    """Offers the products of a block to its samples, by two threads."""

    def __init__(self, best: Best, size: int) -> None:
        self._best = best
        self._masks = np.empty((2, _STRIP * size), bool)
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="neighbors")

    def __enter__(self) -> _Offer:
        return self

    def __exit__(self, *_: object) -> None:
        self._helper.shutdown()

    def first(self, first: int, other: int, cosines: Float, k: int) -> None:
        """Offer the first products that the samples from `first` on (rows) get, with those from `other` on (columns).

        Before, each row gets a bound; afterwards it keeps its best `k`.
        """

        def offer(which: int, half: slice) -> None:
            mine = cosines[half]
            rows = slice(first + half.start, first + half.start + len(mine))
            for start in range(0, len(mine), _STRIP):
                strip = slice(rows.start + start, min(rows.start + start + _STRIP, rows.stop))
                self._best.bounds[strip] = _lower_bounds(mine[start : start + _STRIP], k)
            passing, _ = self._passing(which, mine, self._best.bounds[rows])
            self._rows_take(rows.start, other, mine, passing)
            self._best.trim(np.arange(rows.start, rows.stop))

        self._by_halves(offer, len(cosines))

    def to_rows(self, first: int, other: int, cosines: Float) -> None:
        """Offer the samples from `other` on (columns) to the samples from `first` on (rows)."""

        def offer(which: int, half: slice) -> None:
            start, mine = first + half.start, cosines[half]
            passing, _ = self._passing(which, mine, self._best.bounds[start : start + len(mine)])
            self._rows_take(start, other, mine, passing)

        self._by_halves(offer, len(cosines))

    def both(self, first: int, other: int, cosines: Float) -> None:
        """Offer the samples from `first` on (rows) and those from `other` on (columns) to each other."""
        nothing = np.empty(0, np.intp)
        found: list[tuple[Places, Places]] = [(nothing, nothing), (nothing, nothing)]
        theirs = self._best.bounds[other : other + cosines.shape[1]]

        def look(which: int, half: slice) -> None:
            mine = cosines[half]
            start = first + half.start
            places = self._passing(which, mine, self._best.bounds[start : start + len(mine)], theirs)
            offset = half.start * cosines.shape[1]
            found[which] = (places[0] + offset, places[1] + offset)

        self._by_halves(look, len(cosines))
        to_rows, to_columns = (np.concatenate(places) for places in zip(*found, strict=True))
        # The samples of rows and of columns are different ones, so both can take their share at once.
        second = self._helper.submit(self._columns_take, first, other, cosines, to_columns)
        self._rows_take(first, other, cosines, to_rows)
        second.result()

    def _by_halves(self, work: Callable[[int, slice], None], rows: int) -> None:
        second = self._helper.submit(work, 1, slice(rows // 2, rows))
        work(0, slice(0, rows // 2))
        second.result()

    def _passing(
        self, which: int, cosines: Float, of_rows: Float, of_columns: Float | None = None
    ) -> tuple[Places, Places]:
        """Places, in the flattened product, of what exceeds the bounds of its row, and of its column."""
        width = cosines.shape[1]
        # With buffers as long as a row numpy compares twice as fast as with its own.
        before = np.setbufsize(-(-width // 16) * 16)
        rows, columns = [np.empty(0, np.intp)], [np.empty(0, np.intp)]
        for start in range(0, len(cosines), _STRIP):
            strip = cosines[start : start + _STRIP]
            mask = self._masks[which, : strip.size].reshape(strip.shape)
            np.greater(strip, of_rows[start : start + _STRIP, None], out=mask)
            rows.append(np.flatnonzero(mask) + start * width)
            if of_columns is not None:
                np.greater(strip, of_columns, out=mask)
                columns.append(np.flatnonzero(mask) + start * width)
        np.setbufsize(before)
        return np.concatenate(rows), np.concatenate(columns)

    def _rows_take(self, first: int, other: int, cosines: Float, passing: Places) -> None:
        rows, columns = _places(passing, cosines.shape[1])
        self._best.take(rows + first, columns + other, cosines.reshape(-1)[passing])

    def _columns_take(self, first: int, other: int, cosines: Float, passing: Places) -> None:
        rows, columns = _places(passing, cosines.shape[1])
        order = np.argsort(columns.astype(np.uint16), kind="stable")  # a radix sort, at this width
        self._best.take(columns[order] + other, rows[order] + first, cosines.reshape(-1)[passing[order]])


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
    if width < 2:
        return np.full(len(cosines), NOTHING, np.float32)
    largest = cosines[:, : groups * width].reshape(len(cosines), width, groups).max(1)
    bounds: Float = np.partition(largest, groups - k, axis=1)[:, groups - k]
    return np.nextafter(bounds, NOTHING)
