"""Checks of the arrays that `curate` gets. Errors name the place of the problem."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.core.errors import InputError
from tamis.curation.arrays import Arrays
from tamis.curation.classes import UNRATED
from tamis.curation.neighborhoods import BLOCK, Floats, Ints

_UNSORTED = 1e-3  # allowed decrease of consecutive distances, since other libraries round them


def checked_arrays(
    ratings: Ints,
    indices: Ints,
    distances: Floats,
    *,
    classes: int,
    embeddings: NDArray[Any] | None = None,
    covariates: Floats | None = None,
    grades: Ints | None = None,
    grade_weights: Floats | None = None,
    reachable: NDArray[np.bool_] | None = None,
) -> Arrays:
    """The arrays that `curate` gets, checked and in the types that it computes with.

    Raises:
        InputError: as the functions below.
    """
    indices, distances = np.asanyarray(indices), np.asanyarray(distances)
    given = check_arrays(ratings, indices, distances, classes)
    vectors = None if embeddings is None else np.asanyarray(embeddings)
    columns = None if covariates is None else np.asarray(covariates, np.float64)
    if columns is not None and columns.ndim == 1:
        columns = columns[:, None]
    weights = None if grade_weights is None else np.asarray(grade_weights, np.float64)
    check_features(len(given), vectors, columns, weights)
    graded = check_grades(grades, len(given), classes)
    reach = check_reachable(reachable, given, classes)
    return Arrays(given, indices, distances, vectors, columns, graded, weights, reach)


def check_arrays(ratings: Ints, indices: Ints, distances: Floats, classes: int) -> NDArray[np.int8]:
    """The ratings as (n, R) int8, after checks of all arrays.

    Raises:
        InputError: when shapes do not match, a score is out of range, or nothing is rated; also as `check_graph`.
    """
    given = np.asarray(ratings)
    n = len(given)
    fits = indices.ndim == 2 and indices.shape == distances.shape and len(indices) == n and given.ndim in (1, 2)
    if not fits or n == 0 or indices.shape[1] < 2 or (given.ndim == 2 and given.shape[1] == 0):
        raise InputError(
            f"scores of shape {given.shape}, indices of shape {indices.shape} and distances of shape "
            f"{distances.shape} do not match",
            allowed="shapes (n,) or (n, R), (n, k) and (n, k), with k at least 2",
        )
    if given.dtype.kind not in "iu":
        raise InputError(f"the scores have the type {given.dtype}", allowed="integers, -1 if there is no rating")
    check_graph(indices, distances)
    given = given.reshape(n, -1)
    _check_range(given, classes, "score")
    if not (given != UNRATED).any():
        raise InputError("no sample has a rating", action="rate the pool first; see the ratings' status and error")
    return given.astype(np.int8)


def check_grades(grades: Ints | None, n: int, classes: int) -> NDArray[np.int8]:
    """The grades as (n,) int8, -1 if there is none.

    Raises:
        InputError: when the shape or the type is wrong, or a grade is out of range.
    """
    if grades is None:
        return np.full(n, UNRATED, np.int8)
    given = np.asarray(grades)
    if given.shape != (n,) or given.dtype.kind not in "iu":
        raise InputError(
            f"grades have shape {given.shape} and type {given.dtype}, for {n} samples",
            allowed="integers of shape (n,), -1 if there is no grade",
        )
    _check_range(given, classes, "grade")
    return given.astype(np.int8)


def check_graph(indices: Ints, distances: Floats) -> None:
    """Check a graph of the right shape, block by block.

    Raises:
        InputError: when a neighbour is not a sample, or a distance is not finite, negative, or not ascending.
    """
    n = len(indices)
    if indices.dtype.kind not in "iu":
        raise InputError(f"the indices have the type {indices.dtype}", allowed="integers")
    for start in range(0, n, BLOCK):
        samples, far = indices[start : start + BLOCK], np.asarray(distances[start : start + BLOCK], np.float32)
        strange = (samples < 0) | (samples >= n)
        if strange.any():
            row, rank = np.argwhere(strange)[0]
            raise InputError(
                f"neighbour {rank} of sample {start + row} is {samples[row, rank]}",
                allowed=f"0..{n - 1}; if the search found fewer neighbours, lower k",
            )
        bad = ~np.isfinite(far) | (far < -_UNSORTED)
        if bad.any():
            row, rank = np.argwhere(bad)[0]
            raise InputError(
                f"the distance of sample {start + row} to neighbour {rank} is {far[row, rank]}",
                allowed="finite numbers of 0 or more",
            )
        falls = far[:, 0] > far[:, -1] + _UNSORTED
        if falls.any():
            raise InputError(
                f"the distances of sample {start + int(falls.argmax())} decrease from its first neighbour to its last",
                allowed="distances, nearest first; for cosine similarities, use 1 - similarity",
            )


def check_features(
    n: int, embeddings: NDArray[Any] | None, covariates: NDArray[Any] | None, weights: NDArray[Any] | None
) -> None:
    """Check the shapes of the optional arrays for `n` samples, and the weights of grades.

    Raises:
        InputError: when a shape does not match, or a weight is below 1.
    """
    for name, values in (("embeddings", embeddings), ("covariates", covariates)):
        if values is not None and (values.ndim != 2 or len(values) != n or values.shape[1] == 0):
            raise InputError(f"{name} have shape {values.shape}, for {n} samples", allowed=f"shape ({n}, d)")
    if weights is None:
        return
    if weights.shape != (n,):
        raise InputError(f"grade_weights have shape {weights.shape}, for {n} samples", allowed=f"shape ({n},)")
    below = np.isfinite(weights) & (weights < 1)
    if below.any():
        raise InputError(
            f"the grade weight of sample {int(below.argmax())} is {weights[below][0]:g}",
            allowed="1 or more: 1 / the probability of being drawn; NaN if a sample was not drawn at random",
        )


def _check_range(values: NDArray[Any], classes: int, what: str) -> None:
    wrong = np.argwhere((values < UNRATED) | (values >= classes))
    if len(wrong):
        first = tuple(wrong[0])
        raise InputError(
            f"the {what} of sample {int(first[0])} is {values[first]}; {len(wrong)} {what}s are out of range",
            allowed=f"0..{classes - 1}, or -1 for a sample without one",
        )


def check_reachable(reachable: NDArray[np.bool_] | None, ratings: NDArray[np.int8], classes: int) -> NDArray[np.bool_]:
    """(R, K) classes for which each rater's scale has ratings; classes that occur always count.

    Raises:
        InputError: when the shape is wrong.
    """
    raters = ratings.shape[1]
    found = np.ones((raters, classes), bool) if reachable is None else np.atleast_2d(np.array(reachable, bool))
    if found.shape != (raters, classes):
        raise InputError(f"reachable has shape {found.shape}", allowed=f"{(raters, classes)}")
    for one, given in zip(found, ratings.T, strict=True):
        one[given[given >= 0]] = True
    return found
