"""Calibration of probabilities with human grades.

A regression with few parameters. Given the model's probabilities q and the ratings of a sample, the logarithm of the
probability of a class t is, up to a constant,

    a log q[t] + b[t] + (c + d[raw]) [t = raw] + e |t - raw|

where a and c have different values for samples whose raters all agree, or differ by two classes or more. The regression
is fitted to graded samples by maximum likelihood, with normal priors around q itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tamis.curation.classes import UNRATED
from tamis.curation.rater_model import Matrix

FEW_GRADES = 30  # fewer grades do not decide what the ratings leave open
_NEVER = 1e-9
_LEAST_POWER = 0.2  # above 0, so that the order of the classes is kept
# Standard deviations of the priors.
_POWER, _POWER_BY_SPREAD = 0.3, 0.15
_CLASS, _FAR = 0.15, 0.15
_STAY, _STAY_BY_CLASS, _STAY_BY_SPREAD = 0.3, 0.15, 0.3


@dataclass(frozen=True)
class Calibration:
    """A correction of posteriors.

    Attributes:
        weights: (f,) weights of the features, in the order of `_features`; the first is `power` - 1.
    """

    weights: Matrix

    @property
    def power(self) -> float:
        """The exponent a; below 1, it flattens probabilities."""
        return 1 + float(self.weights[0])

    def __call__(self, posterior: Matrix, ratings: NDArray[np.int8], raw: NDArray[np.int8]) -> Matrix:
        """The calibrated posterior (m, K) of samples with the `ratings` (m, R) and the raw classes `raw` (m,)."""
        logs = _logarithms(posterior)
        total = logs.copy()
        for weight, (feature, _) in zip(self.weights.tolist(), _features(logs, ratings, raw), strict=True):
            if weight:
                total += weight * feature
        return _shares(total)


def none(classes: int, raters: int, power: float = 1.0) -> Calibration:
    """A calibration without grades."""
    nothing = np.full((1, raters), UNRATED, np.int8)
    number = sum(1 for _ in _features(np.zeros((1, classes)), nothing, nothing[:, 0]))
    return Calibration(np.append(power - 1, np.zeros(number - 1)))


def fit(posterior: Matrix, ratings: NDArray[np.int8], raw: NDArray[np.int8], grades: NDArray[np.int8]) -> Calibration:
    """Fit a calibration to grades.

    Args:
        posterior: (m, K) posteriors of graded samples, computed without their own grades.
        ratings: (m, R) their ratings.
        raw: (m,) their raw classes, -1 if there is no rating.
        grades: (m,) their grades.
    """
    from scipy.optimize import minimize

    logs = _logarithms(posterior)
    pairs = list(_features(logs, ratings, raw))
    features, spread = np.stack([feature for feature, _ in pairs], -1), np.array([deviation for _, deviation in pairs])
    seen = features[np.arange(len(grades)), grades].sum(0)

    def loss(weights: Matrix) -> tuple[float, Matrix]:
        shares = _shares(logs + features @ weights)
        likely = np.log(np.maximum(shares[np.arange(len(grades)), grades], 1e-300)).sum()
        slope = np.einsum("mk,mkf->f", shares, features) - seen + weights / spread**2
        return float(0.5 * ((weights / spread) ** 2).sum() - likely), slope

    bounds = [(_LEAST_POWER - 1, None)] + [(None, None)] * (len(spread) - 1)
    found = minimize(loss, np.zeros(len(spread)), jac=True, method="L-BFGS-B", bounds=bounds)
    return Calibration(np.asarray(found.x))


def _logarithms(posterior: Matrix) -> Matrix:
    logs: Matrix = np.log(np.maximum(posterior, _NEVER))
    logs -= logs.max(1, keepdims=True)
    return logs


def _shares(logs: Matrix) -> Matrix:
    shares: Matrix = np.exp(logs - logs.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    return shares


def _features(
    logs: Matrix, ratings: NDArray[np.int8], raw: NDArray[np.int8]
) -> Iterator[tuple[NDArray[np.floating], float]]:
    """Each feature (m, K), and the standard deviation of its weight's prior."""
    m, classes = logs.shape
    steps, rated = np.arange(classes), raw != UNRATED
    stay = (steps == raw[:, None]).astype(np.float64)
    yield logs, _POWER
    for label in range(classes):
        yield np.broadcast_to((steps == label).astype(np.float64), (m, classes)), _CLASS
    yield stay, _STAY
    for label in range(classes):
        yield stay * (raw == label)[:, None], _STAY_BY_CLASS
    yield np.abs(steps - raw[:, None]) * rated[:, None], _FAR
    if ratings.shape[1] == 1:
        return
    known = ratings != UNRATED
    highest = np.where(known, ratings, -1).max(1)
    lowest = np.where(known, ratings, classes).min(1)
    several = known.sum(1) > 1
    for these in (several & (highest == lowest), several & (highest - lowest > 1)):
        yield logs * these[:, None], _POWER_BY_SPREAD
        yield stay * these[:, None], _STAY_BY_SPREAD
