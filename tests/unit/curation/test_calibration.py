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
    assert calibration.fit(posterior, raw, grades).power == pytest.approx(power, abs=0.16)


def test_a_class_that_is_foretold_too_often_of_a_raw_class_is_weighed_down_there_alone() -> None:
    rng = np.random.default_rng(1)
    posterior = np.tile([0.1, 0.2, 0.7], (200, 1))
    raw = np.repeat([1, 2], 100).astype(np.int8)
    grades = np.where(raw == 1, rng.choice(3, 200, p=[0.1, 0.7, 0.2]), rng.choice(3, 200, p=[0.1, 0.2, 0.7]))
    found = calibration.fit(posterior, raw, grades.astype(np.int8))
    assert found.factors[1, 2] < 0.6 < 2 < found.factors[1, 1]
    np.testing.assert_allclose(found.factors[2], 1, atol=0.35)
    np.testing.assert_array_equal(found.factors[[0, 3]], 1)
    changed = found(posterior, raw)
    np.testing.assert_allclose(changed.sum(1), 1)
    assert changed[0].argmax() == 1
    assert changed[150].argmax() == 2


def test_without_grades_nothing_is_changed_but_by_the_exponent() -> None:
    posterior, raw, _ = draws(1.0)
    np.testing.assert_allclose(calibration.none(4)(posterior, raw), posterior, atol=1e-9)
    flat = calibration.none(4, 0.5)(posterior, raw)
    assert (flat.max(1) <= posterior.max(1) + 1e-9).all()
    np.testing.assert_array_equal(flat.argmax(1), posterior.argmax(1))
