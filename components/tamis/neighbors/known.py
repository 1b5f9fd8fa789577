"""Known neighbours, from an earlier graph or a part of this one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError
from tamis.neighbors import refine
from tamis.neighbors.vectors import Float, Vectors

_CHECKED = 100  # samples whose known distances are computed again


@dataclass(frozen=True)
class Known:
    """Known neighbours of some samples. All numbers refer to the current embeddings.

    Attributes:
        rows: (m,) ascending numbers of the samples whose neighbours are known.
        columns: ascending numbers of the samples among which they were searched.
        indices: (m, k) int32 the neighbours.
        distances: (m, k) float32 cosine distances.
        exact: whether all pairs were compared.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    indices: NDArray[np.int32]
    distances: Float
    exact: bool


def read_known(artifact: Artifact, ids: pa.Array, vectors: Vectors, k: int) -> Known:
    """Read a graph, or a part of one, whose samples are among `ids` in the same order.

    Raises:
        InputError: when a sample is missing or in another order, a vector has changed, or there are fewer than `k`
            neighbours.
    """
    theirs = pq.read_table(artifact.path("ids.parquet"))["id"].combine_chunks()
    found = pc.index_in(theirs, value_set=ids)
    if found.null_count:
        gone = theirs.filter(pc.is_null(found))
        raise InputError(
            f"{artifact.location}: {found.null_count} of its samples are not in the embeddings; the first is {gone[0]}",
            allowed="an earlier graph of the same pool with fewer samples",
            action="find the neighbours without this graph",
        )
    columns = found.to_numpy(zero_copy_only=False).astype(np.int64)
    if not (np.diff(columns) > 0).all():
        raise InputError(
            f"{artifact.location}: its samples are in a different order than in the embeddings",
            action="keep the order of the sources and add new ones last, or find the neighbours without this graph",
        )
    indices, distances = (np.load(artifact.path(name), mmap_mode="r") for name in ("indices.npy", "distances.npy"))
    if indices.shape[1] < k and indices.shape[1] < len(columns) - 1:
        raise InputError(
            f"{artifact.location} has {indices.shape[1]} neighbours per sample, but k is {k}",
            action="lower k, or find the neighbours without this graph",
        )
    start = int(artifact.manifest.facts.get("first_row", 0))
    rows = columns[start : start + len(indices)]
    known = Known(rows, columns, columns.astype(np.int32)[indices[:, :k]], distances[:, :k], _is_exact(artifact))
    _check(known, vectors, artifact)
    return known


def _is_exact(artifact: Artifact) -> bool:
    return bool(artifact.manifest.facts["exact"])


def _check(known: Known, vectors: Vectors, artifact: Artifact) -> None:
    """Compute the distances of some samples again, and compare them."""
    places = np.linspace(0, len(known.rows) - 1, min(_CHECKED, len(known.rows))).astype(np.int64)
    _, again, _ = refine.neighbors_of(vectors, known.indices[places], known.indices.shape[1], rows=known.rows[places])
    changed = np.flatnonzero(np.abs(again - known.distances[places]).max(1) > 2 / refine.GRID)
    if len(changed):
        raise InputError(
            f"{artifact.location}: the vector of sample number {known.rows[places[changed[0]]]} has changed",
            allowed="an earlier graph of vectors from the same encoder and settings",
            action="find the neighbours without this graph",
        )
