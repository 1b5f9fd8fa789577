"""The neighbors stage: from embeddings to the kNN graph."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tamis.core.artifacts import Kind, Manifest
from tamis.core.steps import Input, Step, Uri, run_step
from tamis.neighbors import approximate, device, exact, refine
from tamis.neighbors.known import Known, read_known
from tamis.neighbors.mutual import mutual
from tamis.neighbors.settings import NeighborsSettings
from tamis.neighbors.vectors import Float, Vectors, open_vectors

log = logging.getLogger(__name__)
_GPU_FACTOR = 20  # in the same time, a GPU compares all pairs of this many times more samples


def run(
    settings: NeighborsSettings, *, embeddings: Uri, known: Sequence[Uri] = (), parts: Sequence[Uri] = (), out: Uri
) -> Manifest:
    """Find each sample's neighbours; the artifact at `out` has `indices.npy`, `distances.npy` and `ids.parquet`.

    Args:
        settings: with a `shard`, only its samples are searched for, and `out` is a part.
        embeddings: vectors of all samples.
        known: earlier graphs of the same pool without the newest samples; only new samples are compared.
        parts: outputs of runs with a `shard`; samples that are in no part are searched for here.
        out: where to write the artifact, of kind `neighbors`, or `neighbors_part` with a shard.

    Raises:
        InputError: when vectors cannot be used, or `known` or `parts` do not belong to them.
    """
    kind: Kind = "neighbors" if settings.shard == "1/1" else "neighbors_part"
    inputs = {
        "embeddings": Input(embeddings, "embeddings"),
        "known": Input(known, "neighbors"),
        "parts": Input(parts, "neighbors_part"),
    }
    return run_step("neighbors", kind, settings, _find, out=out, inputs=inputs)


def _find(step: Step[NeighborsSettings]) -> None:
    embeddings, settings = step.input("embeddings"), step.settings
    ids = pq.read_table(embeddings.path("ids.parquet"))["id"].combine_chunks()
    vectors = open_vectors(embeddings.path("vectors.npy"), ids)
    n, k = len(vectors), min(settings.k, len(vectors) - 1)
    search = _Search(vectors, k, settings)
    if k < settings.k:
        search.warnings.append(f"k was lowered from {settings.k} to {k}: there are only {n} samples")
    first, last = settings.rows(n)
    rows = np.arange(first, last)
    indices, distances = np.empty((len(rows), k), np.int32), np.empty((len(rows), k), np.float32)
    left = np.ones(len(rows), bool)
    for artifact in (*step.inputs("known"), *step.inputs("parts")):
        known = read_known(artifact, ids, vectors, k)
        mine = np.flatnonzero((known.rows >= first) & (known.rows < last))
        mine = mine[left[known.rows[mine] - first]]
        places = known.rows[mine] - first
        indices[places], distances[places] = search.extended(known, mine)
        left[places] = False
    if left.any():
        indices[left], distances[left] = search.found(rows[left])
    np.save(step.out / "indices.npy", indices)
    np.save(step.out / "distances.npy", distances)
    shutil.copyfile(embeddings.path("ids.parquet"), step.out / "ids.parquet")
    step.rows = len(rows)
    step.facts.update(search.facts, k=k, metric="cosine", copies=_copies(distances), taken_over=int((~left).sum()))
    if search.warnings:
        step.facts["warnings"] = search.warnings
    for warning in search.warnings:
        log.warning("neighbors: %s", warning)
    if settings.shard != "1/1":
        step.facts.update(first_row=first, samples=n)


class _Search:
    """The search of a run, on a GPU if there is one, with its facts and warnings."""

    def __init__(self, vectors: Vectors, k: int, settings: NeighborsSettings) -> None:
        self._vectors, self._k, self._settings = vectors, k, settings
        self._gpu, self._memory = device.gpu(), settings.memory_mb << 20
        limit = settings.exact_up_to * (_GPU_FACTOR if self._gpu else 1)
        self._exact = settings.method == "exact" or (settings.method == "auto" and len(vectors) <= limit)
        self.facts: dict[str, Any] = {"exact": True, "compared_again": 0}
        self.warnings: list[str] = []

    def found(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int32], Float]:
        """Neighbours of the samples `rows` among all samples, and their distances."""
        n = len(self._vectors)
        wanted = min(self._k + refine.SPARE, n - 1)
        if self._exact:
            if len(rows) == n and not self._gpu:
                cosines, candidates = exact.candidates(self._vectors, wanted, self._memory)
            else:
                cosines, candidates = self._among(rows, np.arange(n), wanted)
            return self._refined(rows, candidates, cosines, self._k)
        places = approximate.drawn(self._settings, rows)
        cosines, candidates = self._among(rows[places], np.arange(n), wanted)
        sample = approximate.Sample(rows[places], self._refined(rows[places], candidates, cosines, self._k)[1])
        candidates, effort = approximate.candidates(self._vectors, wanted, self._settings, rows, sample)
        indices, distances = self._refined(rows, candidates, None, wanted)
        if len(rows) == n:
            indices, distances = mutual(indices, distances, self._k, memory=self._memory)
        indices, distances = indices[:, : self._k], distances[:, : self._k]
        recall = sample.recall(distances[places])
        self.facts.update({f"recall_at_{depth}": round(share, 5) for depth, share in recall.items()})
        self.facts.update(exact=False, recall_sample=len(places), search_effort=effort)
        if recall[self._k] < self._settings.recall:
            self.warnings.append(
                f"{recall[self._k]:.3f} of the {self._k} nearest neighbours were found, less than the "
                f"{self._settings.recall} asked for; raise links and build_effort, or use method: exact"
            )
        return indices, distances

    def extended(self, known: Known, mine: NDArray[np.int64]) -> tuple[NDArray[np.int32], Float]:
        """The neighbours of the rows `mine` of `known`, updated with new samples that are nearer."""
        self.facts["exact"] &= known.exact
        new = np.setdiff1d(np.arange(len(self._vectors)), known.columns, assume_unique=True)
        rows, theirs = known.rows[mine], known.indices[mine]
        if not len(new):
            return theirs, known.distances[mine]
        cosines, candidates = self._among(rows, new, min(self._k + refine.SPARE, len(new)))
        unseen = cosines if candidates.shape[1] < len(new) else None
        return self._refined(rows, np.hstack([theirs, candidates]), unseen, self._k)

    def _among(
        self, rows: NDArray[np.int64], columns: NDArray[np.int64], wanted: int
    ) -> tuple[Float, NDArray[np.int32]]:
        if self._gpu:
            memory = device.free_memory(self._gpu)
            return device.candidates_among(self._vectors, rows, columns, wanted, memory, self._gpu)
        return exact.candidates_among(self._vectors, rows, columns, wanted, self._memory)

    def _refined(
        self, rows: NDArray[np.int64], candidates: NDArray[np.int32], cosines: Float | None, k: int
    ) -> tuple[NDArray[np.int32], Float]:
        indices, distances, doubtful = refine.neighbors_of(
            self._vectors, candidates, k, cosines, rows=rows, memory=self._memory
        )
        self.facts["compared_again"] += doubtful
        return indices, distances


def _copies(distances: Float) -> int:
    """Number of samples with a neighbour at distance 0, whose vectors occur more than once."""
    return int((distances[:, 0] == 0).sum())
