"""Rank correlations and correlation ratios, plain and partial."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float64]
_NOTHING = 1e-12


def ranked(values: NDArray[Any]) -> _Floats:
    """Ranks of `values` (n,), ties at their mean rank, scaled to mean 0 and variance 1; NaN if all are equal."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    means = np.cumsum(counts) - counts / 2
    means -= (means * counts).sum() / max(len(values), 1)
    spread = np.sqrt((means**2 * counts).sum() / max(len(values), 1))
    result: _Floats = (means / spread if spread > _NOTHING else np.full(len(means), np.nan))[places]
    return result


def correlation(x: _Floats, y: _Floats) -> float:
    """Spearman's rank correlation of two results of `ranked`; NaN if one is constant."""
    return float(x @ y / len(x)) if len(x) else float("nan")


def partial_correlation(x: _Floats, y: _Floats, given: _Floats) -> float:
    """Partial rank correlation of x and y, controlling for `given`; NaN where it is not defined."""
    xy, xz, yz = correlation(x, y), correlation(x, given), correlation(y, given)
    left = (1 - xz**2) * (1 - yz**2)
    return float((xy - xz * yz) / np.sqrt(left)) if left > _NOTHING else float("nan")


def correlation_ratio(x: _Floats, codes: NDArray[np.integer[Any]]) -> float:
    """Correlation ratio (eta) of ranks x (n,) and group numbers `codes` (n,): the root of the variance share."""
    return float(np.sqrt(_between(x, x, codes) / len(x))) if len(x) else float("nan")


def partial_ratio(x: _Floats, codes: NDArray[np.integer[Any]], given: _Floats) -> float:
    """Partial correlation ratio of ranks x and groups, controlling for ranks `given` (ANCOVA); NaN if undefined."""
    n = len(x)
    left = n * (1 - correlation(x, given) ** 2)
    within_x, within_z = n - _between(x, x, codes), n - _between(given, given, codes)
    within_xz = float(x @ given) - _between(x, given, codes)
    unexplained = within_x - (within_xz**2 / within_z if within_z > n * _NOTHING else 0.0)
    return float(np.sqrt(max(0.0, 1 - unexplained / left))) if left > n * _NOTHING else float("nan")


def ratio_by_chance(n: int, groups: int) -> float:
    """The correlation ratio expected of random groups: its mean square is (groups - 1) / (n - 1)."""
    return float(np.sqrt((groups - 1) / (n - 1))) if n > 1 else float("nan")


def _between(x: _Floats, y: _Floats, codes: NDArray[np.integer[Any]]) -> float:
    counts = np.maximum(np.bincount(codes), 1)
    return float((np.bincount(codes, weights=x) * np.bincount(codes, weights=y) / counts).sum())
