"""Probabilities brought in line with human grades."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tamis.curation.classes import UNRATED
from tamis.curation.rater_model import Matrix

FEW_GRADES = 30  # fewer do not settle what the ratings leave open
_POWERS = np.arange(0.4, 1.45, 0.05)  # exponents that grades choose among
_POWER_SPREAD = 0.15  # standard deviation of the logarithm of the exponent, before grades are seen
_STRENGTH = 20.0  # grades of each raw class that the model counts as


@dataclass(frozen=True)
class Calibration:
    """What is done to posteriors: each true class is weighed by the raw class, and all is sharpened or flattened.

    Attributes:
        factors: (K + 1, K) factor of each true class (columns) of samples with each raw class; the last row is for
            samples without a rating.
        power: exponent.
    """

    factors: Matrix
    power: float

    def __call__(self, posterior: Matrix, raw: NDArray[np.int8]) -> Matrix:
        """The calibrated posterior (m, K) of samples with the raw classes `raw` (m,)."""
        scaled = np.maximum(posterior * self.factors[raw], 1e-300) ** self.power
        found: Matrix = scaled / scaled.sum(1, keepdims=True)
        return found


def none(classes: int, power: float = 1.0) -> Calibration:
    """A calibration without grades."""
    return Calibration(np.ones((classes + 1, classes)), power)


def fit(posterior: Matrix, raw: NDArray[np.int8], grades: NDArray[np.int8]) -> Calibration:
    """Learn from grades.

    Of every raw class, the mean posterior of its graded samples is compared with how they were graded, and drawn to it
    the more the more there are. Then comes the exponent under which the grades are most probable.

    Args:
        posterior: (m, K) of graded samples, made without their own grades.
        raw: (m,) their raw classes, -1 where there is no rating.
        grades: (m,) their grades.
    """
    classes = posterior.shape[1]
    factors = np.ones((classes + 1, classes))
    for label in range(UNRATED, classes):
        here = raw == label
        mine = grades[here]
        if len(mine):
            mean = posterior[here].mean(0)
            seen = (_STRENGTH * mean + np.bincount(mine, minlength=classes)) / (_STRENGTH + len(mine))
            factors[label] = seen / np.maximum(mean, 1e-9)
    shifted = Calibration(factors, 1.0)(posterior, raw)
    logs = np.log(np.maximum(shifted, 1e-12))
    best = (-np.inf, 1.0)
    for power in _POWERS.tolist():
        scaled = np.exp(power * (logs - logs.max(1, keepdims=True)))
        scaled /= scaled.sum(1, keepdims=True)
        likely = float(np.log(scaled[np.arange(len(grades)), grades]).sum())
        best = max(best, (likely - 0.5 * (np.log(power) / _POWER_SPREAD) ** 2, power))
    return Calibration(factors, best[1])
