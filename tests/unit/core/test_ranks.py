"""Rank correlations and correlation ratios against SciPy and plain regressions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from tamis.core import ranks

tables = st.integers(8, 60).flatmap(lambda n: arrays(np.int8, (4, n), elements=st.integers(0, 4)))


def unexplained(x: np.ndarray, *columns: np.ndarray) -> float:
    """Sum of squares that a regression on the columns leaves."""
    design = np.column_stack(columns)
    left = x - design @ np.linalg.lstsq(design, x, rcond=None)[0]
    return float(left @ left)


@given(tables)
@settings(max_examples=80, deadline=None)
def test_all_agree_with_plain_computation(table: np.ndarray) -> None:
    a, b, c, codes = table
    if any(np.ptp(values) == 0 for values in (a, b, c)):
        return
    x, y, z = (ranks.ranked(values) for values in (a, b, c))
    np.testing.assert_allclose(x, stats.zscore(stats.rankdata(a)))
    assert ranks.correlation(x, y) == pytest.approx(stats.spearmanr(a, b).statistic)
    one, dummies = np.ones(len(x)), np.eye(5)[codes]
    total = unexplained(x, one)
    assert ranks.correlation_ratio(x, codes) ** 2 == pytest.approx(1 - unexplained(x, dummies) / total, abs=1e-9)
    left = unexplained(x, one, z)
    if left > 1e-6:
        expected = 1 - unexplained(x, dummies, z) / left
        assert ranks.partial_ratio(x, codes, z) ** 2 == pytest.approx(expected, abs=1e-6)
    if left > 1e-6 and unexplained(y, one, z) > 1e-6:
        residuals = [v - np.column_stack([one, z]) @ np.linalg.lstsq(np.column_stack([one, z]), v, rcond=None)[0]
                     for v in (x, y)]  # fmt: skip
        assert ranks.partial_correlation(x, y, z) == pytest.approx(np.corrcoef(*residuals)[0, 1], abs=1e-6)


def test_a_constant_has_no_correlation() -> None:
    x, constant = ranks.ranked(np.arange(9)), ranks.ranked(np.full(9, 3))
    assert np.isnan(ranks.correlation(x, constant))
    assert np.isnan(ranks.partial_correlation(x, constant, x))
    assert np.isnan(ranks.correlation_ratio(constant, np.arange(9) % 2))


def test_what_follows_the_given_alone_has_no_partial_correlation() -> None:
    x = ranks.ranked(np.arange(50))
    assert np.isnan(ranks.partial_correlation(x, x, x))
    assert np.isnan(ranks.partial_ratio(x, np.arange(50) % 2, x))


def test_groups_drawn_by_lot_have_the_ratio_of_chance() -> None:
    random = np.random.default_rng(2)
    x = ranks.ranked(np.arange(200))
    squares = [ranks.correlation_ratio(x, random.permutation(np.arange(200) % 8)) ** 2 for _ in range(400)]
    assert np.sqrt(np.mean(squares)) == pytest.approx(ranks.ratio_by_chance(200, 8), rel=0.08)
