"""The neighbors stage: embeddings in, the k-nearest-neighbour graph out."""

from __future__ import annotations

import logging
import shutil

import numpy as np
import pyarrow.parquet as pq

from tamis.core.artifacts import Manifest
from tamis.core.steps import Input, Step, Uri, run_step
from tamis.neighbors import approximate, device, exact, refine
from tamis.neighbors.settings import NeighborsSettings
from tamis.neighbors.vectors import Float, open_vectors

log = logging.getLogger(__name__)
_GPU_FACTOR = 20  # a GPU compares all pairs of so many times more samples in the same time


def run(settings: NeighborsSettings, *, embeddings: Uri, out: Uri) -> Manifest:
    """Find each sample's neighbours; the artifact at `out` holds `indices.npy`, `distances.npy` and `ids.parquet`."""
    return run_step(
        "neighbors",
        "neighbors",
        settings,
        _find,
        out=out,
        inputs={"embeddings": Input(embeddings, "embeddings")},
    )


def _find(step: Step[NeighborsSettings]) -> None:
    embeddings, settings = step.input("embeddings"), step.settings
    ids = pq.read_table(embeddings.path("ids.parquet"))["id"].to_pylist()
    vectors = open_vectors(embeddings.path("vectors.npy"), ids)
    n, k = len(vectors), min(settings.k, len(vectors) - 1)
    if k < settings.k:
        step.facts["warnings"] = [f"k was lowered from {settings.k} to {k}: there are only {n} samples"]
        log.warning("neighbors: k lowered from %d to %d, there are only %d samples", settings.k, k, n)
    gpu = device.gpu()
    limit = settings.exact_up_to * (_GPU_FACTOR if gpu else 1)
    is_exact = settings.method == "exact" or (settings.method == "auto" and n <= limit)
    wanted, memory = min(k + refine.SPARE, n - 1), settings.memory_mb << 20
    if is_exact:
        if gpu:
            cosines, candidates = device.candidates(vectors, wanted, memory, gpu)
        else:
            cosines, candidates = exact.candidates(vectors, wanted, memory)
        indices, distances, doubtful = refine.neighbors_of(vectors, candidates, k, cosines, memory=memory)
        step.facts["compared_again"] = doubtful
    else:
        candidates = approximate.candidates(vectors, wanted, settings)
        indices, distances, _ = refine.neighbors_of(vectors, candidates, k, memory=memory)
        step.facts.update(approximate.recall(vectors, indices, distances, settings))
    np.save(step.out / "indices.npy", indices)
    np.save(step.out / "distances.npy", distances)
    shutil.copyfile(embeddings.path("ids.parquet"), step.out / "ids.parquet")
    step.rows = n
    step.facts.update(k=k, metric="cosine", exact=is_exact, copies=_copies(distances))


def _copies(distances: Float) -> int:
    """Samples with a neighbour at distance 0: vectors that occur more than once."""
    return int((distances[:, 0] == 0).sum())
