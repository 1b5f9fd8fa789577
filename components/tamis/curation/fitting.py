"""Fit the joint model to the data, and calibrate its probabilities with grades."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tamis.curation import calibration, joint
from tamis.curation.calibration import Calibration
from tamis.curation.classes import UNRATED
from tamis.curation.joint import Point
from tamis.curation.known import FOLDS, Known, prior_of
from tamis.curation.neighborhoods import Ints
from tamis.curation.rater_model import Matrix

_JOINT_SAMPLES = 10_000  # most samples for the joint model, which has few parameters
_DOUBT = 0.85  # exponent of probabilities from one rater alone, since they do not include its bias
_LITTLE_DOUBT = 0.95  # the same with several raters, which may share errors


@dataclass(frozen=True)
class Fitted:
    """The joint model on the samples `rows`, whose P(z | surroundings) is `z`, and the calibration of its posteriors.

    `crossed` (g, K) are the posteriors of the graded samples, in order, from fits without their own grades.
    """

    points: list[Point]
    rows: Ints
    z: Matrix
    calibration: Calibration
    crossed: Matrix

    @property
    def kept(self) -> list[Point]:
        """The points of the grid that carry weight."""
        return [point for point in self.points if point.weight > 0]

    def own_share(self, prior: Matrix) -> float:
        """The expected share of samples with a class of their own."""
        return sum(point.weight * point.own_share_of(prior) for point in self.kept)


def fit(known: Known, shares: Sequence[float], prior: Matrix, samples: int) -> Fitted:
    """Fit to at most `samples` rated samples and to all graded ones; `shares` are the values of h to try."""
    rows = np.union1d(known.view.sample(min(samples, _JOINT_SAMPLES)), known.graded)
    z = known.around(rows)
    points = joint.fit(z, known.ratings[rows], known.grades[rows], prior, shares)
    graded = np.flatnonzero(known.grades[rows] != UNRATED)
    if len(graded):
        crossed = _crossed(known, points, rows, z, graded)
        at = rows[graded]
        scale = calibration.fit(crossed, known.ratings[at], known.raw[at], known.grades[at])
        return Fitted(points, rows, z, scale, crossed)
    doubt = _DOUBT if known.alone else _LITTLE_DOUBT
    scale = calibration.none(len(prior), known.raters, doubt if len(shares) > 1 else 1.0)
    return Fitted(points, rows, z, scale, np.empty((0, len(prior))))


def _crossed(known: Known, points: Sequence[Point], rows: Ints, z: Matrix, graded: NDArray[np.intp]) -> Matrix:
    """(g, K) posteriors of the samples `rows[graded]`, from fits without their own grades."""
    found = np.empty((len(graded), z.shape[1]))
    fold = np.arange(len(graded)) % FOLDS
    kept = [point for point in points if point.weight > 0]
    for number in range(FOLDS):
        out = graded[fold == number]
        if not len(out):
            continue
        grades = known.grades.copy()
        grades[rows[out]] = UNRATED
        prior = prior_of(known.ratings, grades, known.weights, z.shape[1])
        again = joint.fit(z, known.ratings[rows], grades[rows], prior, starts=kept)
        found[fold == number] = joint.posterior(again, z[out], known.ratings[rows[out]])
    return found
