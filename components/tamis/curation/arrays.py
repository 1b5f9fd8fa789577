"""The input of curation: everything known about the samples, in the order of the neighbour graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.curation.classes import UNRATED
from tamis.curation.neighborhoods import Floats, Ints
from tamis.curation.result import Curated

_FAR = 2.0  # cosine distance of the sample that replaces left-out samples


@dataclass(frozen=True)
class Arrays:
    """n samples.

    Attributes:
        ratings: (n, R) score classes of R raters, -1 if there is none.
        indices, distances: (n, k) the neighbour graph.
        embeddings: (n, d) vectors, which may be memory-mapped.
        covariates: (n, c) numbers, NaN if unknown.
        grades: (n,) human grades as classes, -1 if there is none.
        grade_weights: (n,) 1 / the probability that the sample was drawn for grading; NaN if it was not drawn.
        reachable: (R, K) classes for which each rater's scale has ratings; None: all.
    """

    ratings: NDArray[np.int8]
    indices: Ints
    distances: Floats
    embeddings: NDArray[Any] | None = None
    covariates: NDArray[np.float64] | None = None
    grades: NDArray[np.int8] | None = None
    grade_weights: NDArray[np.float64] | None = None
    reachable: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.ratings)

    def alone(self, rows: NDArray[np.intp]) -> Arrays:
        """The samples `rows` only. One far-away sample without a rating replaces all others in the graph."""
        places = np.full(len(self), len(rows), np.int32)
        places[rows] = np.arange(len(rows))
        near = places[self.indices[rows]]
        far = np.where(near == len(rows), np.float32(_FAR), self.distances[rows])
        order = np.argsort(far, axis=1, kind="stable")
        near, far = np.take_along_axis(near, order, 1), np.take_along_axis(far, order, 1)
        return Arrays(
            np.vstack([self.ratings[rows], np.full((1, self.ratings.shape[1]), UNRATED, np.int8)]),
            np.vstack([near, np.zeros((1, near.shape[1]), np.int32)]),
            np.vstack([far, np.full((1, far.shape[1]), _FAR, np.float32)]),
            _with_one(self.embeddings, rows, 0),
            _with_one(self.covariates, rows, np.nan),
            _with_one(self.grades, rows, UNRATED),
            _with_one(self.grade_weights, rows, np.nan),
            self.reachable,
        )


def _with_one(values: NDArray[Any] | None, rows: NDArray[np.intp], last: float) -> NDArray[Any] | None:
    if values is None:
        return None
    some = np.asarray(values[rows])
    return np.concatenate([some, np.full((1, *some.shape[1:]), last, some.dtype)])


CurateOne = Callable[[Arrays], Curated]
