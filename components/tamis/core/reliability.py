"""Calibration of confidences: of the scores with a confidence of 80 %, are 80 % right?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Z = 1.959963984540054  # the normal distribution's quantile of 97.5 %


@dataclass(frozen=True)
class Bin:
    """Samples with a confidence from `start` to `end`: its mean `said`, the share `right` and that share's interval."""

    start: float
    end: float
    count: int
    said: float
    right: float
    low: float
    high: float


@dataclass(frozen=True)
class Reliability:
    """How well confidences are calibrated.

    Attributes:
        bins: the bins that have a sample, by confidence.
        error: expected calibration error, the mean over samples of |said - right| of their bin (Naeini, Cooper,
            Hauskrecht, AAAI 2015).
    """

    bins: tuple[Bin, ...]
    error: float

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Reliability | None:
        """Read what `as_json` wrote; None if there is nothing to read."""
        try:
            bins = tuple(Bin(**entry) for entry in found["bins"])
            error = found["expected_calibration_error"]
        except (KeyError, TypeError):
            return None
        return cls(bins, float(error)) if bins else None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"bins": [asdict(each) for each in self.bins], "expected_calibration_error": self.error}

    @property
    def count(self) -> int:
        """Number of samples in all bins."""
        return sum(each.count for each in self.bins)

    @property
    def said(self) -> float:
        """Mean confidence."""
        return sum(each.count * each.said for each in self.bins) / self.count

    @property
    def right(self) -> float:
        """Share of all samples whose score is right."""
        return sum(each.count * each.right for each in self.bins) / self.count

    @property
    def chance(self) -> float:
        """Approximate `error` of perfectly calibrated confidences, because shares of few samples vary by chance."""
        spread = sum((each.count * each.said * (1 - each.said)) ** 0.5 for each in self.bins)
        return float((2 / np.pi) ** 0.5 * spread / self.count)

    @property
    def shows(self) -> bool:
        """Whether the mean confidence and the share `right` differ by more than two standard errors."""
        spread = sum(each.count * each.said * (1 - each.said) for each in self.bins) ** 0.5
        return bool(abs(self.said - self.right) * self.count > 2 * spread)


def reliability(
    confidence: NDArray[np.floating[Any]],
    right: NDArray[np.bool_],
    *,
    weights: NDArray[np.floating[Any]] | None = None,
    bins: int = 10,
) -> Reliability | None:
    """Mean confidence and share of right scores in bins of confidence.

    Args:
        confidence: (m,) probability 0..1 that a score is right; NaN is left out.
        right: (m,) whether the score is right.
        weights: (m,) 1 / the probability with which each sample was drawn; None for equal weights.
        bins: number of bins of equal width from 0 to 1.

    Returns:
        None when no sample has a confidence.
    """
    known = np.isfinite(confidence)
    said, hit = np.asarray(confidence, np.float64)[known], np.asarray(right, np.float64)[known]
    if not len(said):
        return None
    each = np.ones(len(said)) if weights is None else np.asarray(weights, np.float64)[known]
    place = np.clip((said * bins).astype(np.intp), 0, bins - 1)
    found, error = [], 0.0
    for number in np.unique(place).tolist():
        inside = place == number
        weight = each[inside]
        mean, share = (float(np.average(values[inside], weights=weight)) for values in (said, hit))
        ends = number / bins, (number + 1) / bins
        found.append(Bin(*ends, int(inside.sum()), mean, share, *wilson(share, effective(weight))))
        error += float(weight.sum()) * abs(mean - share)
    return Reliability(tuple(found), error / float(each.sum()))


def effective(weights: NDArray[np.floating[Any]]) -> float:
    """Kish's effective number of samples."""
    return float(weights.sum() ** 2 / (weights**2).sum())


def wilson(share: float, n: float) -> tuple[float, float]:
    """95 % interval of a share observed in `n` > 0 samples (Wilson, 1927); valid for few samples, and near 0 and 1."""
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * (share * (1 - share) / n + Z**2 / (4 * n**2)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)
