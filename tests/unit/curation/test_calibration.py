"""Probabilities brought in line with human grades."""

from __future__ import annotations

import numpy as np
import pytest

from tamis.curation import calibration


def draws(power: float, n: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Posteriors that are true once they are raised to `power`, raw classes, and grades drawn from the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.dirichlet(np.full(4, 0.5), n)
    grades = (truth.cumsum(1) < rng.random((n, 1))).sum(1).clip(0, 3).astype(np.int8)
    said = np.maximum(truth, 1e-9) ** (1 / power)
    return said / said.sum(1, keepdims=True), rng.integers(-1, 4, n).astype(np.int8), grades


@pytest.mark.parametrize("power", [0.6, 1.0, 1.3])
def test_the_exponent_that_makes_probabilities_true_is_found(power: float) -> None:
    posterior, raw, grades = draws(power)
    assert calibration.fit(posterior, raw[:, None], raw, grades).power == pytest.approx(power, abs=0.1)


def test_a_class_that_is_given_too_often_becomes_less_probable() -> None:
    rng = np.random.default_rng(1)
    posterior = np.tile([0.1, 0.2, 0.7], (400, 1))
    raw = rng.integers(0, 3, 400).astype(np.int8)
    grades = rng.choice(3, 400, p=[0.1, 0.7, 0.2]).astype(np.int8)
    changed = calibration.fit(posterior, raw[:, None], raw, grades)(posterior, raw[:, None], raw)
    np.testing.assert_allclose(changed.sum(1), 1)
    assert (changed.argmax(1) == 1).all()


def test_trust_in_ratings_follows_the_raw_class() -> None:
    rng = np.random.default_rng(2)
    posterior = np.full((600, 3), 1 / 3)
    raw = np.repeat([0, 1, 2], 200).astype(np.int8)
    grades = np.where(raw == 1, raw, rng.integers(0, 3, 600)).astype(np.int8)
    changed = calibration.fit(posterior, raw[:, None], raw, grades)(posterior, raw[:, None], raw)
    stays = changed[np.arange(600), raw]
    assert stays[300] > stays[0] + 0.15
    assert stays[300] > stays[500] + 0.15


def test_raters_that_agree_are_told_from_raters_that_do_not() -> None:
    rng = np.random.default_rng(3)
    agree = np.arange(600) < 300
    ratings = np.stack([np.ones(600), np.where(agree, 1, 3)], 1).astype(np.int8)
    raw = np.where(agree, 1, 2).astype(np.int8)
    grades = np.where(agree, 1, rng.integers(0, 4, 600)).astype(np.int8)
    posterior = np.full((600, 4), 0.1)
    posterior[np.arange(600), raw] = 0.7
    changed = calibration.fit(posterior, ratings, raw, grades)(posterior, ratings, raw)
    assert changed[0, 1] > 0.85
    assert changed[599, 2] < 0.45


def test_samples_that_nobody_rated_are_calibrated_too() -> None:
    posterior = np.tile([0.2, 0.8], (50, 1))
    raw = np.full(50, -1, np.int8)
    grades = (np.arange(50) % 2).astype(np.int8)
    changed = calibration.fit(posterior, raw[:, None], raw, grades)(posterior, raw[:, None], raw)
    assert 0.5 < changed[0, 1] < 0.75


def test_a_few_grades_change_little() -> None:
    posterior, raw, grades = draws(0.6, n=3)
    changed = calibration.fit(posterior, raw[:, None], raw, grades)(posterior, raw[:, None], raw)
    np.testing.assert_allclose(changed, posterior, atol=0.15)


def test_without_grades_nothing_is_changed_but_by_the_exponent() -> None:
    posterior, raw, _ = draws(1.0)
    np.testing.assert_allclose(calibration.none(4, 1)(posterior, raw[:, None], raw), posterior, atol=1e-9)
    flat = calibration.none(4, 1, 0.5)(posterior, raw[:, None], raw)
    assert (flat.max(1) <= posterior.max(1) + 1e-9).all()
    np.testing.assert_array_equal(flat.argmax(1), posterior.argmax(1))
