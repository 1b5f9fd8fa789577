"""From candidates to neighbours: distances in double precision, ties in a fixed order, doubtful samples searched again.

The last bits of a float32 product depend on the processor, the number of threads and the block. Distances computed in
double precision and rounded to a fixed grid do not. So the graph is the same on every machine, on CPU and GPU, and
equal vectors have equal distances.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.core.processes import cores
from tamis.neighbors.vectors import Float, Vectors

SPARE = 8  # candidates beyond k, so that products that are equal in float32 are all among the candidates
GRID = 2.0**23  # distances are multiples of its inverse; float32 represents all of these from 0 to 2 exactly
_TASK = 512  # samples per task
_CACHED = 1 << 17  # numbers gathered at a time; they fit into the cache
_SEARCH = 1 << 20  # numbers per array when samples are compared with all others


def neighbors_of(
    vectors: Vectors,
    samples: NDArray[np.int32],
    k: int,
    cosines: Float | None = None,
    *,
    rows: NDArray[np.int64] | None = None,
    memory: int = 1 << 30,
) -> tuple[NDArray[np.int32], Float, int]:
    """The `k` nearest among each sample's candidates, sorted by distance, then by number.

    Args:
        vectors: the vectors of all samples.
        samples: (n, m) candidates of n samples, m >= k, without repetition.
        k: number of neighbours to keep.
        cosines: (n, any) float32 cosines of candidates, if other samples may have cosines up to the smallest of them.
            Samples whose order is uncertain in float32 are then compared with all others in double precision.
        rows: (n,) numbers of the samples; the first n if None.
        memory: limit in bytes for parallel tasks.

    Returns:
        Neighbours (n, k) int32, cosine distances (n, k) float32 ascending, and the number of uncertain samples.
    """
    n, m = samples.shape
    whose = np.arange(n) if rows is None else rows
    indices, distances = np.empty((n, k), np.int32), np.empty((n, k), np.float32)
    held = vectors.gatherable(memory // 2)
    few = max(1, _CACHED // (m * vectors.dimensions))

    def refine(start: int) -> None:
        task = slice(start, min(start + _TASK, n))
        theirs = np.empty((few * m, vectors.dimensions), held.dtype)
        wide = np.empty((few, m, vectors.dimensions))
        cosines = np.empty((task.stop - start, m))
        for first in range(start, task.stop, few):
            some = samples[first : min(first + few, task.stop)]
            count = len(some)
            np.take(held, some.ravel(), axis=0, out=theirs[: count * m], mode="clip")
            wide[:count] = theirs[: count * m].reshape(count, m, -1)
            mine = held[whose[first : first + count]].astype(np.float64)[:, :, None]
            np.matmul(wide[:count], mine, out=cosines[first - start : first - start + count, :, None])
        cosines /= vectors.lengths[whose[task], None] * vectors.lengths[samples[task]]
        indices[task], distances[task] = _nearest(samples[task], _on_grid(1 - cosines), k)

    workers = max(1, min(cores(), memory // (64 * _CACHED)))
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(refine, range(0, n, _TASK)))
    doubtful = 0
    if cosines is not None and m < len(vectors) - 1:
        # The rounding error of a sum of d float32 products of unit vectors is at most about d units.
        slack = vectors.dimensions * 2.0**-24 + 2.0**-20
        unsure = np.flatnonzero(1 - distances[:, -1] <= cosines.min(1) + slack)
        doubtful = len(unsure)
        indices[unsure], distances[unsure] = search_all(vectors, whose[unsure], k)
    return indices, distances, doubtful


def search_all(vectors: Vectors, rows: NDArray[np.intp], k: int) -> tuple[NDArray[np.int32], Float]:
    """Compare the samples `rows` with all others in double precision, in bounded memory.

    Returns:
        Neighbours (len(rows), k) int32 and distances (len(rows), k) float32, sorted by distance, then by number.
    """
    n = len(vectors)
    indices, distances = np.empty((len(rows), k), np.int32), np.empty((len(rows), k), np.float32)
    width = max(k + 1, _SEARCH // vectors.dimensions)
    height = max(1, _SEARCH // width)
    for first in range(0, len(rows), height):
        mine = rows[first : first + height]
        vectors64 = vectors.unit64(mine)
        found = np.empty((len(mine), 0), np.int32)
        far = np.empty((len(mine), 0))
        for start in range(0, n, width):
            others = np.arange(start, min(start + width, n), dtype=np.int32)
            exact = _on_grid(1 - vectors64 @ vectors.unit64(others).T)
            exact[mine[:, None] == others] = np.inf
            found = np.hstack([found, np.broadcast_to(others, exact.shape)])
            far = np.hstack([far, exact])
            kept = np.argsort(far, axis=1, kind="stable")[:, :k]  # by number where distances are equal
            found, far = np.take_along_axis(found, kept, 1), np.take_along_axis(far, kept, 1)
        indices[first : first + height], distances[first : first + height] = found, far
    return indices, distances


def _on_grid(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip(np.round(distances * GRID) / GRID, 0, 2)


def _nearest(samples: NDArray[np.int32], distances: NDArray[np.float64], k: int) -> tuple[NDArray[np.int32], Float]:
    """The first `k`, sorted by distance, then by number."""
    keys = keys_of(samples, distances)
    keys.sort(1)
    return pairs_of(keys[:, :k])


def keys_of(samples: NDArray[np.int32], distances: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """An integer for each sample and its distance on the grid, whose order is by distance, then by sample."""
    steps = (distances * GRID).astype(np.int64)
    keys: NDArray[np.int64] = (steps << 32) | samples
    return keys


def pairs_of(keys: NDArray[np.int64]) -> tuple[NDArray[np.int32], Float]:
    """The samples and distances in `keys`."""
    return keys.astype(np.int32), ((keys >> 32) / GRID).astype(np.float32)
