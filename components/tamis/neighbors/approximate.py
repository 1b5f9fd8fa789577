"""Approximate search by faiss: HNSW, or inverted lists for pools too large for it, with recall measured."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.core.errors import MissingExtraError, SettingsError
from tamis.core.progress import Progress
from tamis.neighbors import refine
from tamis.neighbors.settings import NeighborsSettings
from tamis.neighbors.vectors import Float, Vectors

_BLOCK = 16_384


def candidates(
    vectors: Vectors, k: int, settings: NeighborsSettings, rows: NDArray[np.int64] | None = None
) -> NDArray[np.int32]:
    """About the `k` nearest samples to each of `rows` (all if left out), itself excluded, no sample twice.

    Returns:
        (len(rows), k) int32 numbers of samples.

    Raises:
        MissingExtraError: when faiss is not installed.
        SettingsError: when memory_mb does not hold an index of this pool.
    """
    index = _index(vectors, settings)
    n = len(vectors)
    wanted = np.arange(n) if rows is None else rows
    found = np.empty((len(wanted), k), np.int32)
    with Progress("neighbors: search", len(wanted)) as progress:
        for start in range(0, len(wanted), _BLOCK):
            some = wanted[start : start + _BLOCK]
            _, numbers = index.search(vectors.unit_at(some), k + 1)
            found[start : start + len(some)] = _without_self(numbers, some, n)
            progress.advance(len(some))
    return found


def recall(
    vectors: Vectors, distances: Float, settings: NeighborsSettings, rows: NDArray[np.int64] | None = None
) -> dict[str, float | int]:
    """Share of the true 2, 10 and k nearest neighbours that were found, on a seeded sample of exact searches.

    A neighbour that is as near as the true one counts as found, so that equal vectors are no misses.

    Args:
        vectors: the vectors of all samples.
        distances: (n, k) distances of the neighbours found.
        settings: how many samples are searched, and the seed.
        rows: (n,) numbers of the samples; the first n if left out.
    """
    n, k = distances.shape
    drawn = np.sort(np.random.default_rng(settings.seed).choice(n, min(settings.recall_sample, n), replace=False))
    _, true = refine.search_all(vectors, drawn if rows is None else rows[drawn], k)
    facts: dict[str, float | int] = {"recall_sample": len(drawn)}
    for depth in sorted({2, min(10, k), k}):
        found = distances[drawn, :depth] <= true[:, depth - 1 : depth]
        facts[f"recall_at_{depth}"] = round(float(found.mean()), 5)
    return facts


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
        index.hnsw.efConstruction, index.hnsw.efSearch = settings.build_effort, settings.search_effort
    elif lists <= settings.memory_mb << 20:
        count = int(4 * np.sqrt(n))
        index = faiss.index_factory(d, f"IVF{count},SQfp16", faiss.METRIC_INNER_PRODUCT)
        index.nprobe = max(16, settings.search_effort)
        rows = np.sort(np.random.default_rng(settings.seed).choice(n, min(n, 40 * count), replace=False))
        index.train(vectors.unit64(rows).astype(np.float32))
    else:
        raise SettingsError(
            f"neighbors.memory_mb: {settings.memory_mb} MiB do not hold an index of {n} vectors of {d} numbers",
            allowed=f"{(lists >> 20) + 1} or more (from {(graph >> 20) + 1} on the more accurate index is used)",
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
    """Drop each sample from its own list, or the last found if it is not there; fill what the index left empty."""
    drop = numbers == own[:, None]
    drop[~drop.any(1), -1] = True
    kept = numbers[~drop].reshape(len(numbers), -1)
    for row in np.flatnonzero((kept < 0).any(1)):
        taken = set(kept[row][kept[row] >= 0].tolist()) | {int(own[row])}
        free = (number for number in range(n) if number not in taken)
        kept[row] = [number if number >= 0 else next(free) for number in kept[row].tolist()]
    without: NDArray[np.int32] = kept.astype(np.int32)
    return without
