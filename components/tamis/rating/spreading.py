"""An order of samples in which every beginning is spread evenly over their embeddings."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError
from tamis.core.ids import Keys, positions, read_keys
from tamis.core.progress import Progress

_CUTS = 16  # the smallest cells hold 1/65,536 of a source
_CANDIDATES = 8  # samples of a cell, the farthest of which from another sets the direction of the cut
_ROWS = 8192  # vectors in memory at a time
_UNIT = 2.0**15  # vectors are scaled by this and rounded, so that sums are exact and equal on every machine


def spread_order(
    keys: Keys, groups: NDArray[np.int64], hashes: NDArray[np.uint64], embeddings: Artifact
) -> NDArray[np.int64]:
    """The rank of each sample in its group: (n,) int64 from 0.

    Every group is halved along the line between two distant samples, each half is halved again, and so on. Samples are
    taken alternately from both halves of every cut, so the first 2^j samples of a group come from different cells after
    j cuts.

    Args:
        keys: (n,) keys of the samples.
        groups: (n,) group of each sample, from 0.
        hashes: (n,) pseudorandom numbers; they choose the samples that define a cut, and break ties.
        embeddings: embeddings of all samples, of unit length.

    Raises:
        InputError: when `embeddings` lack one of the samples.
    """
    vectors, cells, ranks = _Vectors(keys, embeddings), groups, np.zeros(len(keys), np.int64)
    with Progress("spreading the sample", _CUTS, unit="cuts") as progress:
        for cut in range(_CUTS):
            if np.bincount(cells).max() > 1:
                cells, second = _halves(cells, hashes, vectors, cut)
                ranks += second << cut
            progress.advance()
    order = np.lexsort((hashes, cells))
    starts, cell = _runs(cells[order])
    ranks[order] += (np.arange(len(keys)) - starts[cell]) << _CUTS
    return ranks


class _Vectors:
    """The vectors of samples as whole numbers. Sums of their products stay below 2^53, so no sum is ever rounded."""

    def __init__(self, keys: Keys, embeddings: Artifact) -> None:
        known = read_keys(embeddings.path("ids.parquet"), where=f"{embeddings.location}, ids.parquet")
        self._rows = positions(keys, known)
        if missing := int((self._rows < 0).sum()):
            raise InputError(
                f"{embeddings.location} lacks {missing} of the pool's {len(keys)} samples",
                action="use embeddings that were made from this pool, or leave them out",
            )
        self._vectors = np.load(embeddings.path("vectors.npy"), mmap_mode="r", allow_pickle=False)

    def of(self, samples: NDArray[np.int64]) -> NDArray[np.float64]:
        """(m, d) of (m,) samples."""
        whole: NDArray[np.float64] = np.rint(self._vectors[self._rows[samples]].astype(np.float64) * _UNIT)
        return whole


def _halves(
    cells: NDArray[np.int64], hashes: NDArray[np.uint64], vectors: _Vectors, cut: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut every cell into halves; the first may have one sample more.

    Returns:
        (n,) the new cell of each sample, and (n,) the half, 0 or 1, of its cell.
    """
    order = np.lexsort((hashes, cells))
    starts, cell = _runs(cells[order])
    sizes = np.diff(starts, append=len(cells))
    one = order[starts]
    other = _far(one, order, starts, sizes, vectors)
    # Which half comes first is random; otherwise the beginning of an order would lie to one side.
    turned = (hashes[one] >> np.uint64(cut) & np.uint64(1)).astype(bool)
    one, other = np.where(turned, other, one), np.where(turned, one, other)
    numbers = np.empty_like(cells)
    numbers[order] = cell
    places = np.empty(len(cells))
    for block in _blocks(len(cells)):
        mine = numbers[block]
        across = vectors.of(one[mine]) - vectors.of(other[mine])
        places[block] = np.einsum("ij,ij->i", vectors.of(np.arange(block.start, block.stop)), across)
    order = np.lexsort((hashes, places, numbers))
    second = np.empty_like(cells)
    second[order] = np.arange(len(cells)) - starts[cell] >= (sizes[cell] + 1) // 2
    return 2 * numbers + second, second


def _far(
    one: NDArray[np.int64],
    order: NDArray[np.int64],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    vectors: _Vectors,
) -> NDArray[np.int64]:
    """For each cell, a sample far from its sample `one`, (cells,); `one` itself if it is alone."""
    far = one.copy()
    for block in _blocks(len(one)):
        here = vectors.of(one[block])
        most = np.zeros(len(here))
        for step in range(1, min(_CANDIDATES + 1, int(sizes[block].max()))):
            candidate = order[starts[block] + np.minimum(step, sizes[block] - 1)]
            distance = ((here - vectors.of(candidate)) ** 2).sum(axis=1)
            far[block] = np.where(distance > most, candidate, far[block])
            most = np.maximum(most, distance)
    return far


def _runs(ordered: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The start of each run of equal values, and for each value the number of its run."""
    changes = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    return np.flatnonzero(changes), np.cumsum(changes) - 1


def _blocks(rows: int) -> Iterator[slice]:
    return (slice(start, min(start + _ROWS, rows)) for start in range(0, rows, _ROWS))
