"""Agreement of two gradings, from their table of joint counts, so that cost does not grow with the pool.

And whether confidences are true.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2_000
_SEED = 0
_FEW = 30  # samples below which resamples that are all alike tell nothing of the spread
_Z = 1.959963984540054  # of the normal distribution, at 97.5 %


@dataclass(frozen=True)
class Estimate:
    """A statistic with its bootstrap interval of 95 %; NaN where it is not defined (a constant score, say)."""

    value: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether value and interval are defined."""
        return bool(np.isfinite([self.value, self.low, self.high]).all())

    @property
    def includes_zero(self) -> bool:
        """Whether zero lies in the interval; an undefined interval excludes nothing."""
        return not self.known or self.low <= 0 <= self.high

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end."""
        return self.low, self.high


def joint_counts(*columns: NDArray[np.int8], classes: int) -> NDArray[np.int64]:
    """How often each combination of classes occurs: one axis per column; rows with a -1 are left out."""
    keep = np.all([column >= 0 for column in columns], axis=0)
    flat = np.zeros(int(keep.sum()), np.int64)
    for column in columns:
        flat = flat * classes + column[keep]
    return np.bincount(flat, minlength=classes ** len(columns)).reshape((classes,) * len(columns))


def mean_absolute_error(table: NDArray[np.generic]) -> NDArray[np.float64]:
    """Mean of |row class - column class| of tables (..., K, K) of counts; shape (...)."""
    ranks = np.arange(table.shape[-1])
    distance = np.abs(ranks[:, None] - ranks)
    with np.errstate(invalid="ignore"):
        result: NDArray[np.float64] = (table * distance).sum((-2, -1)) / table.sum((-2, -1))
    return result


def pearson(table: NDArray[np.generic]) -> NDArray[np.float64]:
    """Pearson correlation of row and column class of tables (..., K, K) of counts; NaN where one is constant."""
    ranks = np.broadcast_to(np.arange(table.shape[-1], dtype=float), table.shape[:-1])
    return _correlation(table, ranks, ranks)


def spearman(table: NDArray[np.generic]) -> NDArray[np.float64]:
    """Spearman's rank correlation (ties get their mean rank) of tables (..., K, K) of counts; NaN where undefined."""
    rows, columns = np.asarray(table.sum(-1), float), np.asarray(table.sum(-2), float)
    return _correlation(table, np.cumsum(rows, -1) - rows / 2, np.cumsum(columns, -1) - columns / 2)


def _correlation(table: NDArray[np.generic], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted correlation of the values x (..., K) of rows and y (..., K) of columns."""
    with np.errstate(invalid="ignore", divide="ignore"):
        weights = np.asarray(table, float) / np.asarray(table, float).sum((-2, -1), keepdims=True)
        p, q = weights.sum(-1), weights.sum(-2)
        x, y = x - (p * x).sum(-1, keepdims=True), y - (q * y).sum(-1, keepdims=True)
        covariance = np.einsum("...ij,...i,...j->...", weights, x, y)
        spread = np.sqrt((p * x**2).sum(-1) * (q * y**2).sum(-1))
        result: NDArray[np.float64] = np.where(spread > 1e-12, covariance / spread, np.nan)
    return result


@dataclass(frozen=True)
class Comparison:
    """How near raw and curated scores are to the truth, on the samples that have all three.

    Differences are curated less raw, with paired intervals: both scores come from the same resampled samples.
    """

    n: int
    raw_error: Estimate
    curated_error: Estimate
    error_difference: Estimate
    raw_correlation: Estimate
    curated_correlation: Estimate
    correlation_difference: Estimate
    guess: int
    guess_error: float


def compare(joint: NDArray[np.int64]) -> Comparison | None:
    """Compare from `joint` (K, K, K), the counts by raw class, curated class and true class.

    Resampling n samples with replacement is drawing the counts from a multinomial, so that each of the `RESAMPLES`
    draws costs K^3, whatever n. Returns None when there is no sample.
    """
    n = int(joint.sum())
    if n == 0:
        return None
    random = np.random.default_rng(_SEED)
    draws = random.multinomial(n, joint.ravel() / n, size=RESAMPLES).reshape((-1, *joint.shape))
    both = np.concatenate([joint[None], draws])
    raw, curated = both.sum(2), both.sum(1)
    errors = [mean_absolute_error(table) for table in (raw, curated)]
    correlations = [spearman(table) for table in (raw, curated)]
    truth = joint.sum((0, 1))
    guess = int(np.searchsorted(np.cumsum(truth), n / 2))
    return Comparison(
        n=n,
        raw_error=_estimate(errors[0], n),
        curated_error=_estimate(errors[1], n),
        error_difference=_estimate(errors[1] - errors[0], n),
        raw_correlation=_estimate(correlations[0], n),
        curated_correlation=_estimate(correlations[1], n),
        correlation_difference=_estimate(correlations[1] - correlations[0], n),
        guess=guess,
        guess_error=float((truth * np.abs(np.arange(len(truth)) - guess)).sum() / n),
    )


def _estimate(values: NDArray[np.float64], n: int) -> Estimate:
    """The first value is the statistic of `n` samples itself, the others its resamples."""
    draws = values[1:][np.isfinite(values[1:])]
    undefined = not np.isfinite(values[0]) or len(draws) < 0.9 * (len(values) - 1)
    if undefined or (n < _FEW and values[0] != 0 and np.ptp(draws) == 0):
        return Estimate(float(values[0]), np.nan, np.nan)
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(float(values[0]), float(low), float(high))


@dataclass(frozen=True)
class Bin:
    """Samples of a confidence from `start` to `end`: its mean `said`, the share `right`, the share's interval."""

    start: float
    end: float
    count: int
    said: float
    right: float
    low: float
    high: float


@dataclass(frozen=True)
class Reliability:
    """Whether confidences are true.

    Attributes:
        bins: those that hold a sample, by confidence.
        error: expected calibration error, the mean over samples of |said - right| of their bins (Naeini, Cooper,
            Hauskrecht, AAAI 2015).
    """

    bins: tuple[Bin, ...]
    error: float

    @property
    def count(self) -> int:
        """Samples in all bins."""
        return sum(each.count for each in self.bins)

    @property
    def said(self) -> float:
        """Mean confidence."""
        return sum(each.count * each.said for each in self.bins) / self.count

    @property
    def right(self) -> float:
        """Share of all samples that is right."""
        return sum(each.count * each.right for each in self.bins) / self.count

    @property
    def chance(self) -> float:
        """About what `error` would be if every confidence were true: shares of few samples are off by chance."""
        spread = sum((each.count * each.said * (1 - each.said)) ** 0.5 for each in self.bins)
        return float((2 / np.pi) ** 0.5 * spread / self.count)

    @property
    def shows(self) -> bool:
        """Whether mean confidence and share right differ by more than two standard errors."""
        spread = sum(each.count * each.said * (1 - each.said) for each in self.bins) ** 0.5
        return bool(abs(self.said - self.right) * self.count > 2 * spread)


def reliability(confidence: NDArray[np.floating], right: NDArray[np.bool_], *, bins: int = 10) -> Reliability | None:
    """Of the scores said to be right with 80 %, are 80 % right?

    Args:
        confidence: (m,) probability 0..1 that a score is right; NaN is left out.
        right: (m,) whether it was.
        bins: number of bins of equal width from 0 to 1.

    Returns:
        None when no sample has a confidence.
    """
    known = np.isfinite(confidence)
    said, hit = confidence[known].astype(np.float64), right[known]
    if not len(said):
        return None
    place = np.clip((said * bins).astype(np.intp), 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums, hits = np.bincount(place, weights=said, minlength=bins), np.bincount(place, weights=hit, minlength=bins)
    found = []
    for number in np.flatnonzero(counts).tolist():
        n, share = int(counts[number]), float(hits[number] / counts[number])
        ends = number / bins, (number + 1) / bins
        found.append(Bin(*ends, n, float(sums[number] / n), share, *wilson(share, n)))
    return Reliability(tuple(found), sum(b.count * abs(b.said - b.right) for b in found) / len(said))


def wilson(share: float, n: int) -> tuple[float, float]:
    """Interval of 95 % of a share seen in `n` > 0 samples (Wilson, 1927); good for few samples, and at 0 and 1."""
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * (share * (1 - share) / n + _Z**2 / (4 * n**2)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)
