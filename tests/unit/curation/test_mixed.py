"""Pools whose quality varies within neighbourhoods: no harm, several raters, human grades, samples nobody rated."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tamis.curation import curate, guards
from tamis.curation.result import Curated
from tests.unit.curation.pools import (
    RATERS,
    Pool,
    RatedPool,
    calibration_error,
    draw_ratings,
    mixed_pool,
    smooth_pool,
)


@cache
def curated(own: float, seed: int = 1, n: int = 1000, **options: Any) -> tuple[RatedPool, Curated]:
    pool = mixed_pool(n, seed=seed, own=own, **options)
    graded = pool.grades if options.get("grades") else None
    return pool, curate(pool.ratings, pool.indices, pool.distances, grades=graded)


def right(pool: RatedPool, scores: np.ndarray) -> float:
    return float((scores == pool.true).mean())


def error(pool: RatedPool, scores: np.ndarray) -> float:
    return float(np.abs(scores.astype(float) - pool.true).mean())


def assert_no_harm(pool: RatedPool, result: Curated) -> None:
    np.testing.assert_array_equal(result.raw, pool.raw)
    assert right(pool, result.score) >= right(pool, pool.raw) - 0.01
    assert error(pool, result.score) <= error(pool, pool.raw) + 0.01


@pytest.mark.parametrize("rater", ["near", "asym", "mild"])
@pytest.mark.parametrize("own", [0.1, 0.3, 0.6, 0.9])
def test_one_rater_s_scores_are_never_made_worse(own: float, rater: str) -> None:
    assert_no_harm(*curated(own, rater=rater))


@pytest.mark.parametrize("raters", [2, 3])
@pytest.mark.parametrize("own", [0.1, 0.3, 0.6, 0.9])
def test_several_raters_scores_are_never_made_worse(own: float, raters: int) -> None:
    assert_no_harm(*curated(own, n=700, raters=raters))


@pytest.mark.parametrize("own", [0.1, 0.3, 0.6, 0.9])
def test_scores_with_grades_are_never_made_worse(own: float) -> None:
    assert_no_harm(*curated(own, grades=100))


@pytest.mark.parametrize(("rater", "gain"), [("near", 0.12), ("asym", 0.05), ("mild", 0.05)])
def test_one_rater_gains_where_neighbours_mostly_share_a_class(rater: str, gain: float) -> None:
    pool, result = curated(0.1, rater=rater)
    assert result.diagnosis["explained"]
    assert right(pool, result.score) > right(pool, pool.raw) + gain
    assert error(pool, result.score) < error(pool, pool.raw) - gain
    assert result.diagnosis["own_share_interval"][0] < 0.35


@pytest.mark.parametrize("rater", ["near", "asym", "mild"])
def test_nothing_is_said_where_one_rater_s_errors_look_like_true_differences(rater: str) -> None:
    pool, result = curated(0.6, rater=rater)
    assert not result.diagnosis["explained"]
    assert result.diagnosis["reasons"]
    assert result.diagnosis["advice"]
    assert result.diagnosis["held_out"] is None
    np.testing.assert_array_equal(result.score, pool.raw)
    np.testing.assert_array_equal(result.suggested, pool.raw)
    assert not result.flagged.any()
    for values in (result.confidence, result.raw_error, result.error_probability, result.mean, result.posterior):
        assert np.isnan(values).all()
    np.testing.assert_array_equal(result.means(), pool.raw)


def test_who_takes_neighbours_to_share_scores_is_told_more_than_is_true() -> None:
    """It is what the paper takes for granted; a choice, and not the default."""
    pool, cautious = curated(0.3)
    result = curate(pool.ratings, pool.indices, pool.distances, assume="clusterable")
    assert (result.score != pool.raw).sum() > (cautious.score != pool.raw).sum()
    assert np.nanmean(result.confidence) > right(pool, result.score) + 0.1


@pytest.mark.parametrize("seed", [1, 2])
def test_a_hundred_grades_make_probabilities_true(seed: int) -> None:
    pool, result = curated(0.3, seed=seed, grades=100)
    others = pool.grades == -1
    hit = (result.score == pool.true)[others]
    assert calibration_error(result.confidence[others], hit) <= 0.08
    assert result.posterior is not None
    expected = np.abs(np.subtract.outer(pool.raw.astype(int), np.arange(6)))
    said = (result.posterior * expected).sum(1)[others].mean()
    assert said == pytest.approx(np.abs(pool.raw.astype(int) - pool.true)[others].mean(), abs=0.1)


@pytest.mark.parametrize("seed", [1, 2])
def test_grades_say_what_one_rater_alone_cannot(seed: int) -> None:
    pool, result = curated(0.6, seed=seed, grades=100)
    others = pool.grades == -1
    assert result.diagnosis["explained"]
    assert not np.isnan(result.confidence).any()
    assert result.confidence[others].mean() == pytest.approx((result.score == pool.true)[others].mean(), abs=0.08)
    assert result.raw_error[others].mean() == pytest.approx((pool.raw != pool.true)[others].mean(), abs=0.1)


def test_a_graded_sample_is_what_its_grade_says() -> None:
    pool, result = curated(0.3, grades=100)
    graded = pool.grades != -1
    assert result.posterior is not None
    assert result.posterior[graded, pool.grades[graded]].mean() > 0.97
    assert (result.score[graded] == pool.grades[graded]).mean() > 0.97
    assert result.diagnosis["graded"] == 100
    unrated = pool.ratings.copy()
    unrated[graded] = -1
    without = curate(unrated, pool.indices, pool.distances, grades=pool.grades, fill_missing=True)
    assert (without.score[graded] == pool.grades[graded]).mean() > 0.9


def test_few_grades_leave_ratings_alone_where_errors_cannot_be_told() -> None:
    pool, _ = curated(0.6, grades=100)
    few = np.where(np.cumsum(pool.grades != -1) <= 15, pool.grades, -1)
    result = curate(pool.ratings, pool.indices, pool.distances, grades=few)
    assert not result.diagnosis["explained"]
    graded = few != -1
    np.testing.assert_array_equal(result.score, np.where(graded, few, pool.raw))
    assert not result.flagged[~graded].any()
    assert np.isnan(result.confidence[~graded]).all()


@pytest.mark.parametrize("own", [0.1, 0.6])
def test_grades_that_were_held_out_tell_how_right_scores_are(own: float) -> None:
    pool, result = curated(own, grades=100)
    found = result.diagnosis["held_out"]
    assert (found["graded"], found["samples"], found["weighted"]) == (100, 1000, False)
    for measure, raw, score in (("right", right, right), ("absolute_error", error, error)):
        for who, values in (("raw", raw(pool, pool.raw)), ("curated", score(pool, result.score))):
            assert found[measure][who]["low"] - 0.02 <= values <= found[measure][who]["high"] + 0.02
    graded = pool.grades != -1
    # The curated scores of graded samples have seen their grades; the held-out ones have not.
    assert found["right"]["curated"]["classical"]["value"] < (result.score == pool.true)[graded].mean() - 0.05
    assert sum(each["count"] for each in found["reliability"]["bins"]) == 100
    assert found["reliability"]["expected_calibration_error"] < 0.2


def test_grades_that_were_not_drawn_at_random_say_nothing_of_how_common_a_class_is() -> None:
    pool, _ = curated(0.3, grades=100)
    graded = np.flatnonzero(pool.grades != -1)
    high = np.isin(np.arange(1000), graded) & (pool.true >= 4)
    grades = np.where(high | np.isin(np.arange(1000), graded[:40]), pool.grades, -1)
    weights = np.full(1000, np.nan)
    weights[graded[:40]] = 25.0
    told, fooled = (
        curate(pool.ratings, pool.indices, pool.distances, grades=grades, grade_weights=given)
        for given in (weights, None)
    )
    truth = np.bincount(pool.true, minlength=6) / 1000
    high_shares = [sum(found.diagnosis["p"][4:]) for found in (told, fooled)]
    assert high_shares[0] < high_shares[1]
    assert abs(high_shares[0] - truth[4:].sum()) < abs(high_shares[1] - truth[4:].sum())
    assert told.diagnosis["held_out"]["graded"] == 40
    assert told.diagnosis["held_out"]["weighted"]
    assert told.diagnosis["held_out"]["left_out"] == high.sum() - np.isin(np.flatnonzero(high), graded[:40]).sum()


def test_three_raters_gain_much_and_know_how_much() -> None:
    pool, result = curated(0.1, raters=3)
    assert right(pool, result.score) > right(pool, pool.raw) + 0.2
    assert error(pool, result.score) < error(pool, pool.raw) - 0.2
    assert calibration_error(result.confidence, result.score == pool.true) <= 0.08
    found = result.diagnosis
    assert np.array(found["T_by_rater"]).shape == (3, 6, 6)
    assert "intervals" not in found
    # The third rater gives a tenth of its ratings at random.
    kept = [float(np.diag(matrix).mean()) for matrix in found["T_by_rater"]]
    assert kept[2] < kept[0]
    assert result.error_probability.shape == (1000, 3)
    wrong = pool.ratings != pool.true[:, None]
    np.testing.assert_allclose(result.error_probability.mean(0), wrong.mean(0), atol=0.08)
    for r in range(3):
        assert result.error_probability[wrong[:, r], r].mean() > result.error_probability[~wrong[:, r], r].mean() + 0.3


def test_three_raters_tell_own_shares_that_one_cannot() -> None:
    shares = [curated(own, raters=3)[1].diagnosis["own_share"] for own in (0.1, 0.3, 0.6)]
    assert shares == sorted(shares)
    np.testing.assert_allclose(shares, [0.1, 0.3, 0.6], atol=0.16)


def test_more_raters_are_better_than_fewer() -> None:
    found = [curated(0.1, raters=number) for number in (1, 2, 3)]
    rights = [right(pool, result.score) for pool, result in found]
    assert rights[0] < rights[1] + 0.01
    assert rights[0] + 0.05 < rights[2]


def test_error_probabilities_are_missing_where_a_rater_gave_no_rating() -> None:
    pool, _ = curated(0.1, raters=3)
    ratings = pool.ratings.copy()
    ratings[:300, 0] = -1
    ratings[200:500, 1] = -1
    ratings[:100] = -1
    result = curate(ratings, pool.indices, pool.distances)
    np.testing.assert_array_equal(np.isnan(result.error_probability), ratings == -1)
    assert (result.raw[:100] == -1).all()
    assert np.isnan(result.raw_error[:100]).all()
    np.testing.assert_array_equal(result.raw[200:300], ratings[200:300, 2])
    rated = result.raw != -1
    assert not np.isnan(result.confidence).any()
    assert (result.score[rated] == pool.true[rated]).mean() > (result.raw[rated] == pool.true[rated]).mean() + 0.1


def test_a_rater_that_rates_at_random_spoils_little() -> None:
    pool, _ = curated(0.1, raters=3)
    noise = np.random.default_rng(0).integers(0, 6, (1000, 1)).astype(np.int8)
    two = curate(pool.ratings[:, :2], pool.indices, pool.distances)
    three = curate(np.hstack([pool.ratings[:, :2], noise]), pool.indices, pool.distances)
    assert (three.score == pool.true).mean() > (two.score == pool.true).mean() - 0.05
    assert (three.score == pool.true).mean() > (three.raw == pool.true).mean() + 0.2


@pytest.mark.parametrize("seed", [1, 2])
def test_only_grades_tell_errors_that_raters_share(seed: int) -> None:
    pool, result = curated(0.1, seed=seed, raters=3, shared=True, grades=100)
    others = pool.grades == -1
    assert result.diagnosis["shared_errors"] > 0.02
    shared = np.array(result.diagnosis["T_shared"])
    np.testing.assert_allclose(shared.sum(1), 1)
    assert right(pool, result.score) > right(pool, pool.raw) + 0.15
    assert calibration_error(result.confidence[others], (result.score == pool.true)[others]) <= 0.08


@cache
def rated_part(with_embeddings: bool, fill: bool = False) -> tuple[Pool, np.ndarray, Curated]:
    """A smooth pool of which a tenth is rated."""
    pool = smooth_pool(1500, 2, 0)
    scores = np.where(np.random.default_rng(1).random(1500) < 0.1, pool.scores, -1)
    vectors = pool.vectors if with_embeddings else None
    return pool, scores, curate(scores, pool.indices, pool.distances, embeddings=vectors, fill_missing=fill)


@pytest.mark.parametrize("with_embeddings", [True, False])
def test_a_tenth_of_the_ratings_predicts_the_rest(with_embeddings: bool) -> None:
    pool, scores, result = rated_part(with_embeddings)
    assert result.mean is not None
    rest = (scores == -1) & ~np.isnan(result.mean)
    assert rest.sum() > 0.95 * (scores == -1).sum()
    assert np.corrcoef(result.mean[rest], pool.true[rest])[0, 1] > (0.85 if with_embeddings else 0.75)
    told = result.diagnosis["predicted"]
    assert (told["rated"], told["unrated"]) == ((scores != -1).sum(), (scores == -1).sum())
    assert told["held_out_correlation"] > 0.5
    assert 0 < told["held_out_error"] < 1


def test_every_sample_with_a_vector_is_predicted() -> None:
    result = rated_part(True)[2]
    assert not np.isnan(result.mean).any()
    assert (result.suggested >= 0).all()


def test_unrated_samples_get_a_score_only_where_asked() -> None:
    pool, scores, kept = rated_part(True)
    _, _, filled = rated_part(True, fill=True)
    unrated = scores == -1
    assert (kept.score[unrated] == -1).all()
    np.testing.assert_array_equal(filled.score[unrated], filled.suggested[unrated])
    np.testing.assert_array_equal(filled.score[~unrated], kept.score[~unrated])
    np.testing.assert_array_equal(filled.mean, kept.mean)
    assert filled.diagnosis["counts"]["filled"] == unrated.sum()
    assert np.abs(filled.score.astype(int) - pool.true)[unrated].mean() < 0.8


def test_unrated_samples_are_predicted_also_where_errors_cannot_be_told() -> None:
    """What is predicted is how the rater would rate them; there is no probability that this is right."""
    pool, _ = curated(0.4, seed=2)
    ratings = pool.ratings.copy()
    ratings[::4] = -1
    result = curate(ratings, pool.indices, pool.distances, fill_missing=True)
    unrated = ratings[:, 0] == -1
    assert not result.diagnosis["explained"]
    np.testing.assert_array_equal(result.score[~unrated], pool.raw[~unrated])
    assert (result.score[unrated] >= 0).all()
    assert np.isnan(result.confidence).all()
    assert np.isnan(result.mean[~unrated]).all()
    assert np.corrcoef(result.mean[unrated], pool.ratings[unrated, 0])[0, 1] > 0.2


def test_covariates_are_named_and_their_effects_told() -> None:
    pool, _ = curated(0.1)
    length = np.random.default_rng(0).standard_normal(1000)
    ratings = np.clip(np.round(pool.ratings[:, 0] + 0.8 * length), 0, 5).astype(np.int8)
    found = curate(
        ratings, pool.indices, pool.distances, covariates=np.column_stack([length, length**2]),
        covariate_names=["length", "square"],
    ).diagnosis["regression"]  # fmt: skip
    assert list(found["effects"]) == ["length", "square"]
    assert 0.5 < found["effects"]["length"] < 0.95
    assert abs(found["effects"]["square"]) < 0.2


@pytest.mark.parametrize("rater", ["near", "mild"])
def test_raters_that_agree_against_their_neighbourhood_are_not_overruled(rater: str) -> None:
    """Quality that varies a little within neighbourhoods looks like errors that raters share."""
    rng = np.random.default_rng(1)
    pool, _ = curated(0.0, rater=rater)
    true = np.clip(pool.true + rng.choice([-1, 0, 1], len(pool.true), p=[0.3, 0.4, 0.3]), 0, 5)
    ratings = np.stack([draw_ratings(true, RATERS[rater], rng) for _ in range(3)], 1).astype(np.int8)
    varied = replace(pool, true=true, ratings=ratings)
    result = curate(ratings, pool.indices, pool.distances, embeddings=pool.vectors)
    assert right(varied, result.score) >= right(varied, varied.raw) + 0.01
    assert error(varied, result.score) <= error(varied, varied.raw) - 0.01


def test_three_raters_gain_where_quality_changes_smoothly_in_many_directions() -> None:
    pool = smooth_pool(1000, 10, 1)
    rng = np.random.default_rng(1)
    ratings = np.stack([draw_ratings(pool.true, RATERS["near"], rng) for _ in range(3)], 1).astype(np.int8)
    rated = RatedPool(pool.vectors, pool.true, ratings, pool.true, pool.indices, pool.distances)
    assert_no_harm(rated, curate(ratings, pool.indices, pool.distances, embeddings=pool.vectors))


def test_grades_of_samples_that_were_chosen_do_not_show_that_corrections_help() -> None:
    """Samples that are known to be wrong were graded: every correction seems to help."""
    pool, _ = curated(0.3, rater="mild")
    wrong = np.flatnonzero(pool.true != pool.raw)[:150]
    grades = np.full(len(pool.true), -1)
    grades[wrong] = pool.true[wrong]
    given: Any = (pool.ratings, pool.indices, pool.distances)
    result = curate(*given, grades=grades, grade_weights=np.full(len(grades), np.nan))
    ungraded = grades < 0
    np.testing.assert_array_equal(result.score[ungraded], pool.raw[ungraded])
    assert any("grades do not show" in warning for warning in result.diagnosis["warnings"])


def test_a_rater_that_checks_no_other_does_not_lift_the_limits_of_one_rater() -> None:
    pool = mixed_pool(1500, seed=2, own=0.5, rater="near", raters=2, d=64)
    given: Any = (pool.indices, pool.distances)
    alone = curate(pool.ratings[:, :1], *given, embeddings=pool.vectors)
    assert not alone.diagnosis["explained"]
    silent = np.hstack([pool.ratings[:, :1], np.full((1500, 1), -1, np.int8)])
    half = np.random.default_rng(0).random(1500) < 0.5
    apart = pool.ratings.copy()
    apart[half, 0] = apart[~half, 1] = -1
    for ratings in (silent, apart):
        result = curate(ratings, *given, embeddings=pool.vectors)
        assert not result.diagnosis["explained"]
        np.testing.assert_array_equal(result.score, result.raw)


def test_a_single_grade_does_not_judge_a_score_that_has_seen_it() -> None:
    pool = mixed_pool(500, seed=1, own=0.1, rater="near", d=32, k=20)
    grades = np.full(500, -1)
    grades[5] = (pool.raw[5] + 4) % 6
    result = curate(pool.ratings, pool.indices, pool.distances, embeddings=pool.vectors, grades=grades)
    assert result.diagnosis["held_out"]["right"]["curated"]["value"] == 0


def test_a_few_random_grades_that_are_all_alike_do_not_outweigh_the_model() -> None:
    pool, _ = curated(0.1, grades=60)
    graded = np.flatnonzero(pool.grades != -1)
    kept = graded[pool.raw[graded] == pool.true[graded]][:3]  # whose scores curation leaves, so that it gains nothing
    weights = np.full(len(pool.true), np.nan)
    weights[kept] = len(pool.true) / 3
    result = curate(pool.ratings, pool.indices, pool.distances, grades=pool.grades, grade_weights=weights)
    assert result.diagnosis["counts"]["corrected"] > 100


def test_samples_that_are_right_by_their_grade_do_not_count_as_a_gain_of_the_model() -> None:
    """Half of the samples are graded and differ from their rating; of the others the model expects nothing."""
    raw, grades = np.full(100, 2, np.int8), np.full(100, -1, np.int8)
    grades[:50] = 4
    posterior = np.full((100, 6), 0.05)
    posterior[:50, 4] = posterior[50:, 2] = 0.75
    known: Any = SimpleNamespace(raw=raw, grades=grades)
    result: Any = SimpleNamespace(posterior=posterior, score=np.where(grades >= 0, grades, raw))
    assert guards.expected_gains(known, result) == (0.0, 0.0)
    known.grades = np.full(100, -1, np.int8)
    right, closer = guards.expected_gains(known, result)
    assert right == pytest.approx(0.35)
    assert closer > 0


def test_nobody_is_right_more_often_than_who_knows_how_the_pool_was_made() -> None:
    for own, options in ((0.1, {}), (0.3, {"raters": 3}), (0.1, {"raters": 3, "shared": True, "grades": 100})):
        pool, result = curated(own, **options)
        assert pool.ideal is not None
        rest = pool.grades < 0
        assert (pool.ideal == pool.true)[rest].mean() > (result.score == pool.true)[rest].mean()
