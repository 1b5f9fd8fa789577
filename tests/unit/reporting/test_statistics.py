"""The statistics from joint counts against SciPy and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from tamis.reporting.statistics import (
    Estimate,
    compare,
    joint_counts,
    mean_absolute_error,
    pearson,
    spearman,
)

scores = st.integers(2, 40).flatmap(lambda n: arrays(np.int8, (3, n), elements=st.integers(-1, 5)))


def test_joint_counts_leave_out_rows_with_a_gap() -> None:
    table = joint_counts(np.array([0, 1, 1, -1], np.int8), np.array([2, 0, 0, 1], np.int8), classes=3)
    assert table.tolist() == [[0, 0, 1], [2, 0, 0], [0, 0, 0]]


@given(scores)
@settings(max_examples=60, deadline=None)
def test_statistics_agree_with_plain_computation(values: np.ndarray) -> None:
    one, other, _ = values
    keep = (one >= 0) & (other >= 0)
    a, b = one[keep].astype(float), other[keep].astype(float)
    table = joint_counts(one, other, classes=6)
    if not len(a):
        assert np.isnan(mean_absolute_error(table))
        return
    assert mean_absolute_error(table) == pytest.approx(np.abs(a - b).mean())
    if a.std() == 0 or b.std() == 0:
        assert np.isnan(pearson(table))
        assert np.isnan(spearman(table))
        return
    assert pearson(table) == pytest.approx(stats.pearsonr(a, b).statistic)
    assert spearman(table) == pytest.approx(stats.spearmanr(a, b).statistic)


def test_a_stack_of_tables_is_worked_on_at_once() -> None:
    tables = np.random.default_rng(0).integers(0, 9, (5, 6, 6))
    np.testing.assert_allclose(spearman(tables), [float(spearman(table)) for table in tables])


def test_intervals_agree_with_resampling_of_the_rows_themselves() -> None:
    random = np.random.default_rng(3)
    truth = random.integers(0, 6, 300).astype(np.int8)
    raw = np.clip(truth + random.integers(-2, 3, 300), 0, 5).astype(np.int8)
    curated = np.where(random.random(300) < 0.4, truth, raw).astype(np.int8)
    found = compare(joint_counts(raw, curated, truth, classes=6))
    assert found is not None
    changes, correlations = [], []
    for _ in range(2000):
        rows = random.integers(0, 300, 300)
        t, r, c = (x[rows].astype(int) for x in (truth, raw, curated))
        changes.append(np.abs(c - t).mean() - np.abs(r - t).mean())
        correlations.append(stats.spearmanr(r, t).statistic)
    np.testing.assert_allclose(found.error_difference.interval, np.percentile(changes, [2.5, 97.5]), atol=0.02)
    np.testing.assert_allclose(found.raw_correlation.interval, np.percentile(correlations, [2.5, 97.5]), atol=0.015)
    assert found.n == 300


def test_the_interval_of_independent_scores_includes_zero_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(5)
    inside = 0
    for _ in range(100):
        raw, truth = random.integers(0, 6, (2, 200)).astype(np.int8)
        found = compare(joint_counts(raw, raw, truth, classes=6))
        assert found is not None
        inside += found.raw_correlation.includes_zero
    assert inside >= 88


def test_constant_scores_have_no_correlation_and_no_interval() -> None:
    truth = np.arange(6, dtype=np.int8).repeat(5)
    found = compare(joint_counts(np.full(30, 2, np.int8), truth, truth, classes=6))
    assert found is not None
    assert not found.raw_correlation.known
    assert found.raw_correlation.includes_zero
    assert found.curated_correlation.value == pytest.approx(1)
    assert found.curated_error.interval == (0.0, 0.0)


def test_few_samples_that_all_changed_alike_have_no_interval() -> None:
    def changed(n: int) -> Estimate:
        found = compare(joint_counts(np.zeros(n, np.int8), np.full(n, 3, np.int8), np.full(n, 3, np.int8), classes=6))
        assert found is not None
        return found.error_difference

    assert changed(3).value == -3
    assert not changed(3).known
    assert changed(300).interval == (-3, -3)


def test_the_constant_guess_is_the_best_class() -> None:
    truth = np.array([0, 0, 5, 5, 5], np.int8)
    found = compare(joint_counts(truth, truth, truth, classes=6))
    assert found is not None
    assert (found.guess, found.guess_error) == (5, 2.0)


def test_nothing_known_gives_nothing() -> None:
    gap = np.full(4, -1, np.int8)
    assert compare(joint_counts(gap, gap, gap, classes=6)) is None
