"""The data on every sample, in the form that the joint model needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tamis.curation.classes import UNRATED
from tamis.curation.neighborhoods import Floats, Ints, Neighborhoods
from tamis.curation.rater_model import Matrix
from tamis.curation.regression import Regression
from tamis.curation.surroundings import Surroundings

FOLDS = 5
_MARGIN_STRENGTH = 50.0  # number of grades that the ratings' margin counts as in the prior
_FEWEST_SHARED, _LEAST_SHARED = 30, 0.05  # samples rated by several raters: least number, and least share of the rated
_NEVER = 1e-9  # probability of a class that does not occur


@dataclass(frozen=True)
class Known:
    """n samples.

    Attributes:
        view: the graph with the raters' mean classes.
        ratings: (n, R) classes, -1 if there is none.
        codes: (n,) index of each sample's ratings among the distinct combinations of ratings.
        raw: (n,) the raters' mean class; -1 if nobody rated.
        grades: (n,) true classes, -1 if there is no grade.
        weights: (n,) 1 / the probability of being drawn for grading, NaN if a sample was not drawn at random; None if
            all grades are a random draw.
        near: the model of surroundings.
        predicted: (n,) standardized predictions of the regression; None without a regression.
        informative: whether the surroundings are informative about ratings.
    """

    view: Neighborhoods
    ratings: NDArray[np.int8]
    codes: NDArray[np.int32]
    raw: NDArray[np.int8]
    grades: NDArray[np.int8]
    weights: Floats | None
    near: Surroundings
    predicted: Matrix | None
    informative: bool

    @property
    def raters(self) -> int:
        """R."""
        return int(self.ratings.shape[1])

    @property
    def graded(self) -> NDArray[np.intp]:
        """The samples with a grade, in order."""
        return np.flatnonzero(self.grades != UNRATED)

    @property
    def drawn(self) -> NDArray[np.intp]:
        """The graded samples that were drawn at random; the others were chosen because their scores are doubtful."""
        graded = self.graded
        return graded if self.weights is None else graded[np.isfinite(self.weights[graded])]

    @property
    def alone(self) -> bool:
        """Whether hardly any sample has ratings by two raters, so that no rater checks another."""
        rated = (self.ratings != UNRATED).sum(1)
        return int((rated > 1).sum()) < max(_FEWEST_SHARED, _LEAST_SHARED * int((rated > 0).sum()))

    def around(self, rows: Ints) -> Matrix:
        """(m, K) P(z | surroundings) of `rows`; the prior if surroundings are uninformative."""
        if not self.informative:
            return np.tile(self.near.prior, (len(rows), 1))
        return self.near.of(self.view, self.codes, rows, self.predicted)

    def informed(self, rows: Ints) -> NDArray[np.bool_]:
        """Which of `rows` have informative surroundings."""
        if not self.informative or self.predicted is not None:
            return np.full(len(rows), self.informative)
        samples, _ = self.view.lists(rows, 1)
        found: NDArray[np.bool_] = samples[:, 0] >= 0
        return found


def rounded_mean(ratings: NDArray[np.int8]) -> NDArray[np.int8]:
    """(n,) mean class of the raters, rounded half up; -1 if nobody rated."""
    rated = ratings != UNRATED
    number = rated.sum(1)
    mean = np.where(rated, ratings, 0).sum(1) / np.maximum(number, 1)
    return np.where(number > 0, np.floor(mean + 0.5), UNRATED).astype(np.int8)


def centred(ratings: NDArray[np.int8]) -> Matrix:
    """(n,) mean rating, adjusted for each rater's mean, so that strict raters do no harm; NaN if nobody rated."""
    values = np.where(ratings == UNRATED, np.nan, ratings).astype(np.float64)
    known = np.isfinite(values)
    centers = np.array([one[np.isfinite(one)].mean() if np.isfinite(one).any() else 0.0 for one in values.T])
    number = known.sum(1)
    offsets = np.where(known, values - centers, 0).sum(1) / np.maximum(number, 1)
    return np.where(number > 0, offsets + centers.mean(), np.nan)


def folds_of(n: int, groups: NDArray[np.int32] | None) -> NDArray[np.intp]:
    """(n,) pseudo-random fold numbers 0..4; copies are in the same fold."""
    keys = np.arange(n) if groups is None else groups
    mixed = (keys.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    return ((mixed >> np.uint64(33)) % np.uint64(FOLDS)).astype(np.intp)


def standardized(regression: Regression | None, raw: NDArray[np.int8]) -> Matrix | None:
    """The regression's predictions with mean 0 and standard deviation 1 over rated samples; None without spread."""
    if regression is None:
        return None
    seen = regression.predicted[raw != UNRATED]
    spread = float(seen.std())
    return (regression.predicted - seen.mean()) / spread if spread > 1e-9 else None


def prior_of(
    ratings: NDArray[np.int8], grades: NDArray[np.int8], weights: Floats | None, classes: int
) -> NDArray[np.float64]:
    """p: the mean margin of the raters' ratings, updated with the grades of randomly drawn samples."""
    margins = []
    for one in ratings.T:
        counts = np.bincount(one[one != UNRATED], minlength=classes)
        if counts.sum():
            margins.append(counts / counts.sum())
    prior = _MARGIN_STRENGTH * np.mean(margins, axis=0)
    drawn = grades != UNRATED
    each = np.ones(int(drawn.sum()))
    if weights is not None:
        drawn &= np.isfinite(weights)
        each = weights[drawn] / weights[drawn].mean() if drawn.any() else np.ones(0)
    prior = np.maximum(prior + np.bincount(grades[drawn], each, minlength=classes), _NEVER)
    shares: NDArray[np.float64] = prior / prior.sum()
    return shares
