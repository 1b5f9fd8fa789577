"""Errors of scores, estimated from few grades."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats

from tamis.core.reliability import wilson
from tamis.curation.honest import _t, honest_error, predictions

REPEATS, NOMINAL = 200, 0.90


@dataclass(frozen=True)
class World:
    """A pool whose truth is drawn from a posterior that is right, with scores."""

    true: np.ndarray
    raw: np.ndarray
    curated: np.ndarray
    posterior: np.ndarray


def world(n: int, random: np.random.Generator) -> World:
    logits = random.normal(size=(n, 6)) * random.choice([0.3, 8.0], (n, 1))  # half of the samples are hard to tell
    posterior = np.exp(logits - logits.max(1, keepdims=True))
    posterior /= posterior.sum(1, keepdims=True)
    true = (random.random((n, 1)) > posterior.cumsum(1)).sum(1).clip(0, 5).astype(np.int8)
    raw = np.where(random.random(n) < 0.5, true, random.integers(0, 6, n)).astype(np.int8)
    return World(true, raw, posterior.argmax(1).astype(np.int8), posterior)


def graded(true: np.ndarray, rows: np.ndarray) -> np.ndarray:
    truth = np.full(len(true), -1, np.int8)
    truth[rows] = true[rows]
    return truth


def truths(w: World) -> dict[tuple[str, str], float]:
    right = {who: float((score == w.true).mean()) for who, score in (("raw", w.raw), ("curated", w.curated))}
    away = {
        who: float(np.abs(score.astype(float) - w.true).mean())
        for who, score in (("raw", w.raw), ("curated", w.curated))
    }
    return {
        **{("right", who): value for who, value in right.items()},
        **{("absolute_error", who): value for who, value in away.items()},
        ("right", "difference"): right["curated"] - right["raw"],
        ("absolute_error", "difference"): away["curated"] - away["raw"],
    }


def repeated(
    random: np.random.Generator, w: World, size: int, probability: np.ndarray | None = None
) -> dict[tuple[str, str], np.ndarray]:
    """Of each measure (REPEATS, 6): lambda, value, low, high, and the plain low and high."""
    found: dict[tuple[str, str], list[list[float]]] = {key: [] for key in truths(w)}
    predicted = predictions(w.posterior, w.raw, w.curated)
    for _ in range(REPEATS):
        weights = None
        if probability is None:
            rows = random.choice(len(w.true), size, replace=False)
        else:
            rows = np.flatnonzero(random.random(len(w.true)) < probability)
            weights = np.full(len(w.true), np.nan)
            weights[rows] = 1 / probability[rows]
        result = honest_error(graded(w.true, rows), w.raw, w.curated, weights=weights, predicted=predicted)
        for (measure, who), lines in found.items():
            one = result[measure][who]
            plain = one["classical"]
            lines.append([one["lambda"], one["value"], one["low"], one["high"], plain["low"], plain["high"]])
    return {key: np.array(lines) for key, lines in found.items()}


def covered(lines: np.ndarray, truth: float) -> tuple[float, float]:
    ours = ((lines[:, 2] <= truth) & (truth <= lines[:, 3])).mean()
    plain = ((lines[:, 4] <= truth) & (truth <= lines[:, 5])).mean()
    return float(ours), float(plain)


@pytest.mark.parametrize("size", [60, 150])
def test_intervals_hold_the_truth_and_are_narrower_than_plain_ones_where_predictions_are_good(size: int) -> None:
    random = np.random.default_rng(size)
    w = world(4000, random)
    for key, lines in repeated(random, w, size).items():
        truth = truths(w)[key]
        assert min(covered(lines, truth)) >= NOMINAL, key
        assert lines[:, 1].mean() == pytest.approx(truth, abs=4 * lines[:, 1].std() / np.sqrt(REPEATS)), key
        widths = lines[:, 3] - lines[:, 2], lines[:, 5] - lines[:, 4]
        assert widths[0].mean() < 0.92 * widths[1].mean(), key


def test_intervals_hold_the_truth_of_samples_drawn_with_unequal_chances() -> None:
    random = np.random.default_rng(3)
    w = world(6000, random)
    probability = np.where(w.curated >= 4, 0.05, 0.015)  # high classes have three times the chance
    w.raw[w.curated >= 4] = random.integers(0, 6, int((w.curated >= 4).sum()))  # and are rated worse
    for key, lines in repeated(random, w, 0, probability).items():
        assert min(covered(lines, truths(w)[key])) >= NOMINAL, key


def test_predictions_that_say_nothing_cost_nothing() -> None:
    random = np.random.default_rng(4)
    w = world(3000, random)
    noise = World(w.true, w.raw, w.curated, random.dirichlet(np.ones(6), len(w.true)))
    lines = repeated(random, noise, 100)[("absolute_error", "raw")]
    assert covered(lines, truths(w)[("absolute_error", "raw")])[0] >= NOMINAL
    widths = lines[:, 3] - lines[:, 2], lines[:, 5] - lines[:, 4]
    assert widths[0].mean() < 1.03 * widths[1].mean()


def test_predictions_that_are_wrong_do_not_move_the_estimate() -> None:
    random = np.random.default_rng(5)
    w = world(3000, random)
    boastful = World(w.true, w.raw, w.curated, np.eye(6)[w.curated] * 0.999 + 0.001 / 6)
    boastful.posterior[::3] = w.posterior[::3] ** 4 / (w.posterior[::3] ** 4).sum(1, keepdims=True)
    for key, lines in repeated(random, boastful, 100).items():
        assert covered(lines, truths(w)[key])[0] >= NOMINAL, key


def test_a_pool_that_was_graded_whole_leaves_no_doubt() -> None:
    w = world(300, np.random.default_rng(6))
    result = honest_error(w.true, w.raw, w.curated, predicted=predictions(w.posterior, w.raw, w.curated))
    for (measure, who), truth in truths(w).items():
        assert result[measure][who]["value"] == pytest.approx(truth)
    error = result["absolute_error"]["raw"]
    assert error["low"] == error["high"] == pytest.approx(error["value"])


def test_predictions_are_the_posterior_s_expectations() -> None:
    posterior = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [np.nan] * 3], np.float32)
    raw, curated = np.array([1, -1, 0], np.int8), np.array([0, 2, 0], np.int8)
    found = predictions(posterior, raw, curated)
    np.testing.assert_allclose(found["raw_right"], [0.3, np.nan, np.nan], rtol=1e-6)
    np.testing.assert_allclose(found["raw_error"], [0.7, np.nan, np.nan], rtol=1e-6)
    np.testing.assert_allclose(found["curated_right"], [0.5, 0.8, np.nan], rtol=1e-6)
    np.testing.assert_allclose(found["curated_error"], [0.3 + 0.4, 0.2 + 0.1, np.nan], rtol=1e-6)


def test_the_plain_estimate_is_the_weighted_mean_and_grades_without_a_weight_are_left_out() -> None:
    truth, raw = np.array([0, 1, 2, 3, 4, -1, 0], np.int8), np.array([0, 1, 0, 3, 0, 0, -1], np.int8)
    weights = np.array([2.0, 3, 4, 5, np.nan, np.nan, 9])
    result = honest_error(truth, raw, truth.clip(0), weights=weights)
    assert (result["samples"], result["graded"], result["left_out"], result["weighted"]) == (6, 4, 1, True)
    right = result["right"]["raw"]
    assert right["value"] == right["classical"]["value"] == pytest.approx(10 / 14)
    assert right["lambda"] == 0
    assert result["effective"] == pytest.approx(14**2 / 54)
    assert (right["low"], right["high"]) == pytest.approx(wilson(10 / 14, 14**2 / 54))
    assert result["absolute_error"]["raw"]["value"] == pytest.approx(8 / 14)
    assert result["absolute_error"]["difference"]["value"] == pytest.approx(-8 / 14)


def test_no_interval_is_given_where_grades_are_too_few_or_all_alike() -> None:
    raw = np.array([0, 1, 2, 3, 4, 5], np.int8)
    none = honest_error(np.full(6, -1, np.int8), raw, raw)
    assert none["graded"] == 0
    assert none["right"]["raw"]["value"] is None
    two = honest_error(np.array([0, 0, -1, -1, -1, -1], np.int8), raw, raw)
    assert two["absolute_error"]["raw"] == {
        "value": 0.5, "low": None, "high": None, "lambda": 0.0, "classical": {"value": 0.5, "low": None, "high": None}
    }  # fmt: skip
    alike = honest_error(raw, raw, raw)
    assert alike["absolute_error"]["raw"]["low"] is None
    assert alike["right"]["raw"]["value"] == alike["right"]["raw"]["high"] == 1
    assert 0.5 < alike["right"]["raw"]["low"] < 0.7
    json.dumps(alike, allow_nan=False)


def test_what_does_not_fit_together_is_refused() -> None:
    classes = np.zeros(4, np.int8)
    with pytest.raises(ValueError, match="lengths differ"):
        honest_error(classes, classes[:3], classes)
    with pytest.raises(ValueError, match=r"a weight is 0\.5"):
        honest_error(classes, classes, classes, weights=np.full(4, 0.5))


def test_student_is_the_known_one() -> None:
    for freedom, slack in ((2, 0.04), (3, 0.01), (5, 2e-3), (30, 1e-5)):
        assert _t(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=slack)


def test_grades_of_samples_that_were_not_drawn_show_nothing() -> None:
    truth = np.array([0, 1, 2, 3], np.int8)
    result = honest_error(truth, truth, truth, weights=np.full(4, np.nan))
    assert (result["graded"], result["left_out"], result["right"]["raw"]["value"]) == (0, 4, None)
