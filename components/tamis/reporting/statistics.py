"""Agreement of two gradings, from their table of joint counts, so that the cost does not grow with the pool."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2_000
_SEED = 0
_FEW = 30  # with fewer samples, identical resamples do not show that the spread is zero


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95 % bootstrap interval; NaN if it is undefined, for example for a constant score."""

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
    """Counts of all combinations of classes: one axis per column; rows with a -1 are left out."""
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
    """How close raw and curated scores are to the truth, on the samples that have all three.

    Differences are curated minus raw, with paired intervals: both scores come from the same resampled samples.
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

    Resampling n samples with replacement is a draw of the counts from a multinomial distribution, so each of the
    `RESAMPLES` draws costs K^3, independent of n. Returns None if there is no sample.
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
    """An estimate from the statistic of `n` samples (the first value) and its resamples (the others)."""
    draws = values[1:][np.isfinite(values[1:])]
    undefined = not np.isfinite(values[0]) or len(draws) < 0.9 * (len(values) - 1)
    if undefined or (n < _FEW and values[0] != 0 and np.ptp(draws) == 0):
        return Estimate(float(values[0]), np.nan, np.nan)
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(float(values[0]), float(low), float(high))
