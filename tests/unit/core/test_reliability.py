"""Whether confidences are true."""

import json

import numpy as np
import pytest
from scipy import stats

from tamis.core.reliability import Reliability, reliability, wilson


def test_bins_hold_every_confidence_and_true_ones_are_close() -> None:
    random = np.random.default_rng(7)
    confidence = random.random(20_000)
    right = random.random(20_000) < confidence
    true = reliability(confidence, right)
    assert true is not None
    assert true.error < 0.02
    assert [each.count for each in true.bins] == np.histogram(confidence, 10, (0, 1))[0].tolist()
    assert sum(each.low <= each.said <= each.high for each in true.bins) >= 8  # 95 % of them, by chance
    boasts = reliability(np.sqrt(confidence), right)
    assert boasts is not None
    assert boasts.error > 0.1


def test_weights_count() -> None:
    some = reliability(np.array([1.0, 0.95, 0.3]), np.array([True, False, True]), weights=np.array([3.0, 1, 4]))
    assert some is not None
    assert [(each.start, each.count) for each in some.bins] == [(0.3, 1), (0.9, 2)]
    assert (some.bins[-1].said, some.bins[-1].right) == pytest.approx((0.9875, 0.75))
    assert some.error == pytest.approx((4 * 0.2375 + 4 * 0.7) / 8)


def test_true_confidences_have_the_calibration_error_that_chance_gives() -> None:
    random = np.random.default_rng(1)
    shows, errors = [], []
    for _ in range(300):
        said = random.beta(4, 2, 150)
        found = reliability(said, random.random(150) < said)
        assert found is not None
        shows.append(found.shows)
        errors.append(found.error / found.chance)
    assert np.mean(errors) == pytest.approx(1, abs=0.08)
    assert np.mean(shows) < 0.1


def test_confidences_that_are_too_high_show() -> None:
    found = reliability(np.full(100, 0.95), np.arange(100) < 60)
    assert found is not None
    assert found.shows
    assert (found.said, found.right, found.error) == pytest.approx((0.95, 0.6, 0.35))


def test_without_a_confidence_there_is_no_reliability() -> None:
    assert reliability(np.full(3, np.nan), np.ones(3, bool)) is None


def test_what_is_written_is_read_as_it_was() -> None:
    found = reliability(np.array([0.2, 0.9, 1.0]), np.array([False, True, True]))
    assert found is not None
    assert Reliability.read(json.loads(json.dumps(found.as_json()))) == found
    assert Reliability.read({}) is None


def test_wilson_is_the_known_one() -> None:
    for hits, n in ((0, 10), (3, 10), (50, 50)):
        known = stats.binomtest(hits, n).proportion_ci(method="wilson")
        assert wilson(hits / n, n) == pytest.approx((known.low, known.high), abs=1e-9)
