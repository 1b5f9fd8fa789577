"""Approximate search with faiss: HNSW, or inverted lists for larger pools. The recall is measured."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.core.errors import MissingExtraError, SettingsError
from tamis.core.progress import Progress
from tamis.neighbors import refine
from tamis.neighbors.settings import NeighborsSettings
from tamis.neighbors.vectors import Float, Vectors

log = logging.getLogger(__name__)
_BLOCK = 16_384
_MORE, _MOST_EFFORT = 1.5, 4096


@dataclass(frozen=True)
class Sample:
    """Samples with known true neighbours, on which recall is measured.

    Attributes:
        rows: (m,) numbers of the samples.
        distances: (m, k) float32 true distances of their nearest neighbours, ascending.
    """

    rows: NDArray[np.int64]
    distances: Float

    def recall(self, found: Float) -> dict[int, float]:
        """Recall of the true 2, 10 and k nearest neighbours among those found, given as (m, k) distances.

        A neighbour at the same distance as the true one counts as found, so equal vectors are not misses.
        """
        k = self.distances.shape[1]
        depths = sorted({2, min(10, k), k})
        return {depth: float((found[:, :depth] <= self.distances[:, depth - 1 : depth]).mean()) for depth in depths}


def drawn(settings: NeighborsSettings, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ascending indices of `rows`, drawn with the seed: the samples on which recall is measured."""
    size = min(settings.recall_sample, len(rows))
    return np.sort(np.random.default_rng(settings.seed).choice(len(rows), size, replace=False))


def candidates(
    vectors: Vectors,
    k: int,
    settings: NeighborsSettings,
    rows: NDArray[np.int64],
    sample: Sample | None = None,
) -> tuple[NDArray[np.int32], int]:
    """Approximately the `k` nearest samples to each of `rows`, without the sample itself and without repetition.

    With a `sample`, the search effort is raised until its recall reaches the `recall` of `settings`.

    Returns:
        (len(rows), k) int32 numbers of samples, and the search effort.

    Raises:
        MissingExtraError: when faiss is not installed.
        SettingsError: when an index of this pool needs more than `memory_mb`.
    """
    index = _index(vectors, settings)
    effort = settings.search_effort if sample is None else _effort(index, vectors, k, settings, sample)
    _set_effort(index, effort)
    found = np.empty((len(rows), k), np.int32)
    with Progress("neighbors: search", len(rows)) as progress:
        for start in range(0, len(rows), _BLOCK):
            some = rows[start : start + _BLOCK]
            found[start : start + len(some)] = _search(index, vectors, some, k)
            progress.advance(len(some))
    return found, effort


def _effort(index: Any, vectors: Vectors, k: int, settings: NeighborsSettings, sample: Sample) -> int:
    """The least effort tried that reaches the wanted recall, or the largest effort."""
    effort, most = settings.search_effort, max(settings.search_effort, _MOST_EFFORT)
    depth = sample.distances.shape[1]
    while True:
        _set_effort(index, effort)
        found = _search(index, vectors, sample.rows, k)
        _, distances, _ = refine.neighbors_of(vectors, found, depth, rows=sample.rows)
        recall = sample.recall(distances)[depth]
        log.info("neighbors: search effort %d has a recall of %.4f (%d nearest neighbours)", effort, recall, depth)
        if recall >= settings.recall or effort >= most:
            return effort
        effort = min(most, int(effort * _MORE))


def _set_effort(index: Any, effort: int) -> None:
    if hasattr(index, "hnsw"):
        index.hnsw.efSearch = effort
    else:
        index.nprobe = min(effort, index.nlist)


def _search(index: Any, vectors: Vectors, rows: NDArray[np.int64], k: int) -> NDArray[np.int32]:
    _, numbers = index.search(vectors.unit_at(rows), k + 1)
    return _without_self(numbers, rows, len(vectors))


def _index(vectors: Vectors, settings: NeighborsSettings) -> Any:
    try:
        import faiss
    except ImportError:
        raise MissingExtraError.of("faiss-cpu", "neighbors") from None
    n, d = len(vectors), vectors.dimensions
    graph = n * (4 * d + 8 * settings.links + 8)
    lists = n * (2 * d + 8)
    if graph <= settings.memory_mb << 20:
        index: Any = faiss.IndexHNSWFlat(d, settings.links, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = settings.build_effort
    elif lists <= settings.memory_mb << 20:
        count = int(4 * np.sqrt(n))
        index = faiss.index_factory(d, f"IVF{count},SQfp16", faiss.METRIC_INNER_PRODUCT)
        rows = np.sort(np.random.default_rng(settings.seed).choice(n, min(n, 40 * count), replace=False))
        index.train(vectors.unit64(rows).astype(np.float32))
    else:
        raise SettingsError(
            f"neighbors.memory_mb: {settings.memory_mb} MiB are too little for an index of {n} vectors of {d} numbers",
            allowed=f"{(lists >> 20) + 1} or more; {(graph >> 20) + 1} or more for the more accurate index",
            action="raise memory_mb",
        )
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(settings.build_threads or threads)
    with Progress("neighbors: index", n) as progress:
        for start in range(0, n, _BLOCK):
            stop = min(start + _BLOCK, n)
            index.add(vectors.unit(start, stop))
            progress.advance(stop - start)
    faiss.omp_set_num_threads(threads)
    return index


def _without_self(numbers: NDArray[np.int64], own: NDArray[np.int64], n: int) -> NDArray[np.int32]:
    """Remove each sample from its own list, or the last entry if it is missing, and fill gaps left by the index."""
    drop = numbers == own[:, None]
    drop[~drop.any(1), -1] = True
    kept = numbers[~drop].reshape(len(numbers), -1)
    for row in np.flatnonzero((kept < 0).any(1)):
        taken = set(kept[row][kept[row] >= 0].tolist()) | {int(own[row])}
        free = (number for number in range(n) if number not in taken)
        kept[row] = [number if number >= 0 else next(free) for number in kept[row].tolist()]
    without: NDArray[np.int32] = kept.astype(np.int32)
    return without
