"""A neighbour graph for one rater: each sample's rated neighbours, without copies of the sample.

A copy (a sample with the same vector) has practically the same text, and so the same rating with the same error.
Counted as a neighbour, it makes ratings look far more reliable than they are; this distorts the estimate of the
reference code, which holds every sample twice. Samples at distance 0 from each other therefore form a group. Its first
rated member represents it in all statistics, and no sample is a neighbour of its own group.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.curation.classes import UNRATED

Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]
BLOCK = 16_384  # samples handled together


def copy_groups(indices: Ints, distances: Floats, copy_distance: float) -> NDArray[np.int32] | None:
    """Number of the first member of each sample's group of copies, (n,) int32; None when no sample has a copy."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(indices)
    rows, columns = [], []
    for start in range(0, n, BLOCK):
        here, rank = np.nonzero(distances[start : start + BLOCK] <= copy_distance)
        rows.append(here + start)
        columns.append(indices[start : start + BLOCK][here, rank])
    row, column = np.concatenate(rows), np.concatenate(columns)
    if not len(row):
        return None
    graph = coo_matrix((np.ones(len(row), bool), (row, column)), shape=(n, n))
    _, labels = connected_components(graph, directed=False)
    _, first = np.unique(labels, return_index=True)
    groups: NDArray[np.int32] = first[labels].astype(np.int32)
    return groups


class Neighborhoods:
    """A graph seen with one rater's scores.

    Attributes:
        scores: (n,) int8 score classes, -1 where there is no rating.
        k: neighbours per sample in the graph.
        rows: samples that are used in statistics: rated, and one of each group of copies.
    """

    def __init__(
        self, scores: NDArray[np.int8], indices: Ints, distances: Floats, groups: NDArray[np.int32] | None
    ) -> None:
        self.scores, self.k = scores, indices.shape[1]
        self._indices, self._distances, self._groups = indices, distances, groups
        rated = scores != UNRATED
        self._counts = rated  # whether a sample may appear as a neighbour
        if groups is not None:
            # The first rated member of each group, in order; a group without a rated member has none.
            order = np.flatnonzero(rated)
            _, first = np.unique(groups[order], return_index=True)
            self._counts = np.zeros(len(scores), bool)
            self._counts[order[first]] = True
        self.rows = np.flatnonzero(self._counts)

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def like(cls, other: Neighborhoods, scores: NDArray[np.int8]) -> Neighborhoods:
        """The graph of `other` with other `scores`."""
        return cls(scores, other._indices, other._distances, other._groups)

    def lists(self, rows: Ints, k: int | None = None) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The first `k` usable neighbours of each of `rows`, nearest first.

        Returns:
            Samples (m, k) int32 and distances (m, k) float32; if a sample has fewer usable neighbours, its row ends
            with -1 and infinity.
        """
        samples = np.asarray(self._indices[rows], np.int32)
        distances = np.asarray(self._distances[rows], np.float32)
        usable = self._counts[samples]
        if self._groups is not None:
            usable &= self._groups[samples] != self._groups[rows][:, None]
        if not usable.all():
            order = np.argsort(~usable, axis=1, kind="stable")
            usable = np.take_along_axis(usable, order, 1)
            samples = np.where(usable, np.take_along_axis(samples, order, 1), -1)
            distances = np.where(usable, np.take_along_axis(distances, order, 1), np.float32(np.inf))
        k = k or self.k
        return samples[:, :k], distances[:, :k]

    def scores_of(self, samples: Ints) -> NDArray[np.int8]:
        """Scores of `samples`; -1 where a sample is -1."""
        return np.where(samples >= 0, self.scores[samples], np.int8(UNRATED))

    def blocks(self, rows: Ints) -> Iterator[Ints]:
        """`rows` in pieces that fit in memory."""
        for start in range(0, len(rows), BLOCK):
            yield rows[start : start + BLOCK]

    def sample(self, limit: int) -> Ints:
        """At most `limit` of `rows`, evenly spaced."""
        if len(self.rows) <= limit:
            return self.rows
        return self.rows[np.linspace(0, len(self.rows) - 1, limit).astype(np.intp)]
