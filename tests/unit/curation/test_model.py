"""Curation on pools whose neighbours share their true scores: recovered truth, properties, odd input.

Pools whose quality varies within neighbourhoods are in `test_mixed`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.core.errors import InputError
from tamis.curation import curate, exact
from tamis.curation.result import Curated
from tests.conftest import shared_data
from tests.unit.curation.pools import P, Pool, T, calibration_error, draw_ratings, make_pool, nearest, smooth_pool


@cache
def pool_of(n: int = 2500, d: int = 64, seed: int = 101, size: float = 20, foreign: float = 0) -> Pool:
    return make_pool(n, d, seed=seed, size=size, foreign=foreign)


@cache
def curated(assume: Any = "cautious", **options: float) -> tuple[Pool, Curated]:
    pool = pool_of(**options)
    return pool, curate(pool.scores, pool.indices, pool.distances, assume=assume)


def t_error(pool: Pool, result: Curated) -> float:
    return float(np.abs(np.array(result.diagnosis["T"]) - pool.realized()).mean())


@pytest.mark.parametrize(
    ("assume", "f1", "right", "error"), [("cautious", 0.92, 0.93, 0.025), ("clusterable", 0.95, 0.95, 0.01)]
)
def test_ratings_of_which_42_in_100_are_wrong_come_out_right(
    assume: str, f1: float, right: float, error: float
) -> None:
    found = [curated(assume, seed=seed) for seed in (101, 102, 103)]
    assert max(pool.right(pool.scores) for pool, _ in found) < 0.62
    assert all(result.diagnosis["explained"] for _, result in found)
    assert min(pool.f1(result.flagged) for pool, result in found) >= f1
    assert min(pool.right(result.score) for pool, result in found) >= right
    assert max(t_error(*each) for each in found) <= error
    assert max(np.abs(r.diagnosis["p"] - np.bincount(p.true) / len(p.true)).sum() for p, r in found) < 0.08


@pytest.mark.parametrize(("assume", "f1", "right"), [("cautious", 0.79, 0.81), ("clusterable", 0.87, 0.85)])
def test_samples_unlike_their_cluster_do_limited_harm(assume: str, f1: float, right: float) -> None:
    pool, result = curated(assume, seed=201, foreign=0.1)
    assert pool.f1(result.flagged) >= f1
    assert pool.right(result.score) >= right
    assert t_error(pool, result) <= 0.03


@pytest.mark.parametrize(("size", "f1"), [(8, 0.85), (60, 0.98)])
def test_cluster_size_need_not_be_known(size: float, f1: float) -> None:
    pool, result = curated("clusterable", seed=301, size=size)
    assert pool.f1(result.flagged) >= f1
    assert t_error(pool, result) <= 0.015
    pool, cautious = curated(seed=301, size=size)
    assert pool.f1(cautious.flagged) >= f1 - 0.04


@pytest.mark.parametrize(("wrong", "right"), [(0.1, 0.99), (0.25, 0.98), (0.6, 0.75)])
def test_every_level_of_noise_is_met_where_neighbours_are_known_to_share_scores(wrong: float, right: float) -> None:
    pool = pool_of(seed=501)
    uniform = (1 - wrong) * np.eye(6) + wrong / 5 * (1 - np.eye(6))
    scores = draw_ratings(pool.true, uniform, np.random.default_rng(0))
    result = curate(scores, pool.indices, pool.distances, assume="clusterable")
    assert pool.right(result.score) >= right
    np.testing.assert_allclose(result.diagnosis["T"], uniform, atol=0.1)
    # Errors without form look like samples with a class of their own, so the default does less, and never harm.
    cautious = curate(scores, pool.indices, pool.distances)
    assert pool.right(scores) <= pool.right(cautious.score) <= pool.right(result.score)


@given(st.integers(0, 2**31), st.integers(2, 6))
@settings(max_examples=4, deadline=None)
def test_ratings_without_noise_are_left_alone(seed: int, classes: int) -> None:
    pool = make_pool(800, 64, seed=seed, T=np.eye(classes), p=np.full(classes, 1 / classes))
    result = curate(pool.true, pool.indices, pool.distances, classes=classes)
    np.testing.assert_allclose(result.diagnosis["T"], np.eye(classes), atol=0.03)
    assert result.flagged.mean() <= 0.0025  # a lone one among many of another class looks like an error
    np.testing.assert_array_equal(result.score, pool.true)


@pytest.mark.parametrize("assume", ["cautious", "clusterable"])
def test_probabilities_mean_what_they_say(assume: str) -> None:
    pool, result = curated(assume, seed=101)
    right = result.score == pool.true
    assert calibration_error(result.confidence, right) < 0.06
    sure = result.confidence >= 0.95
    assert sure.mean() > 0.3
    assert right[sure].mean() > 0.95
    wrong = pool.true != pool.scores
    assert abs(result.error_probability.mean() - wrong.mean()) < 0.03
    assert result.error_probability[wrong].mean() > result.error_probability[~wrong].mean() + 0.5


def test_a_result_says_of_every_score_how_probable_it_is() -> None:
    pool, result = curated(seed=101)
    rows = np.arange(len(pool.true))
    assert result.posterior is not None
    assert result.mean is not None
    np.testing.assert_allclose(result.posterior.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(result.confidence, result.posterior[rows, result.score], atol=1e-6)
    np.testing.assert_allclose(result.raw_error, 1 - result.posterior[rows, result.raw], atol=1e-6)
    np.testing.assert_allclose(result.error_probability[:, 0], result.raw_error, atol=1e-6)
    np.testing.assert_allclose(result.mean, result.posterior @ np.arange(6), atol=1e-5)
    np.testing.assert_array_equal(result.suggested, result.posterior.argmax(1))
    np.testing.assert_array_equal(result.flagged, result.suggested != result.raw)
    assert result.flagged[result.score != result.raw].all()


def test_means_are_nearer_to_the_truth_than_ratings_and_than_scores() -> None:
    pool, result = curated(seed=201, foreign=0.1)
    errors = [((values - pool.true) ** 2).mean() for values in (result.mean, result.score, pool.scores)]
    assert errors[0] < errors[1] < errors[2]


def test_confidence_limits_what_is_corrected_but_not_what_is_flagged() -> None:
    pool, free = curated(seed=101)
    strict = curate(pool.scores, pool.indices, pool.distances, confidence=0.9)
    np.testing.assert_array_equal(free.flagged, strict.flagged)
    changed = strict.score != strict.raw
    assert (strict.confidence[changed] >= 0.9).all()
    assert 0 < changed.sum() < (free.score != free.raw).sum()
    np.testing.assert_array_equal(strict.score[changed], free.score[changed])


def test_the_same_input_gives_the_same_result() -> None:
    pool = pool_of(1000, 32, seed=601)
    first, second = (curate(pool.scores, pool.indices, pool.distances, embeddings=pool.vectors) for _ in range(2))
    assert first.diagnosis == second.diagnosis
    np.testing.assert_array_equal(first.posterior, second.posterior)


def test_a_posterior_that_is_not_kept_changes_nothing_else() -> None:
    pool, kept = curated(n=1000, d=32, seed=601)
    lean = curate(pool.scores, pool.indices, pool.distances, keep_posterior=False)
    assert lean.posterior is None
    assert lean.diagnosis == kept.diagnosis
    np.testing.assert_array_equal(lean.mean, kept.mean)


@given(st.integers(0, 2**31))
@settings(max_examples=3, deadline=None)
def test_the_order_of_samples_does_not_matter(seed: int) -> None:
    pool, first = curated(n=1000, d=32, seed=601)
    order = np.random.default_rng(seed).permutation(1000)
    place = np.argsort(order)
    second = curate(pool.scores[order], place[pool.indices[order]], pool.distances[order])
    np.testing.assert_allclose(second.diagnosis["T"], first.diagnosis["T"], atol=1e-6)
    np.testing.assert_array_equal(second.score, first.score[order])
    np.testing.assert_allclose(second.confidence, first.confidence[order], atol=1e-5)


def test_a_scale_turned_upside_down_turns_the_result() -> None:
    pool, first = curated(n=1000, d=32, seed=601)
    second = curate(5 - pool.scores, pool.indices, pool.distances)
    np.testing.assert_allclose(np.array(second.diagnosis["T"])[::-1, ::-1], first.diagnosis["T"], atol=1e-4)
    np.testing.assert_array_equal(second.score, 5 - first.score)


@pytest.mark.parametrize("with_embeddings", [False, True])
@pytest.mark.parametrize("share", [0.1, 0.6])
def test_copies_change_next_to_nothing(share: float, with_embeddings: bool) -> None:
    pool = pool_of(800, 32, seed=602)
    copied = np.flatnonzero(np.random.default_rng(1).random(800) < share)
    twice = np.concatenate([np.arange(800), copied])
    indices, distances = nearest(pool.vectors[twice], 32)
    once = curate(
        pool.scores, pool.indices, pool.distances, neighbors=12, embeddings=pool.vectors if with_embeddings else None
    )
    result = curate(
        pool.scores[twice], indices, distances, neighbors=12,
        embeddings=pool.vectors[twice] if with_embeddings else None,
    )  # fmt: skip
    assert result.diagnosis["copies_left_out"] == len(copied)
    np.testing.assert_allclose(result.diagnosis["T"], once.diagnosis["T"], atol=0.02)
    assert (result.score == once.score[twice]).mean() > 0.985


def test_copies_taken_for_neighbours_make_the_rater_look_better_than_it_is() -> None:
    pool = pool_of(1000, 32, seed=601)
    twice = np.tile(np.arange(1000), 2)
    indices, distances = nearest(pool.vectors[twice], 32)
    fooled, known = (curate(pool.scores[twice], indices, distances, copy_distance=d) for d in (None, 1e-5))
    raw = pool.right(pool.scores)
    assert P @ np.diag(fooled.diagnosis["T"]) > raw + 0.04
    assert abs(P @ np.diag(known.diagnosis["T"]) - raw) < 0.04
    assert (known.score == pool.true[twice]).mean() > (fooled.score == pool.true[twice]).mean() + 0.04


def test_a_class_that_only_a_copy_has_changes_little() -> None:
    """Of copies the first one enters the statistics, so the class has no share in them."""
    pool = pool_of(800, 32, seed=602)
    scores = np.append(np.where(pool.scores == 5, 4, pool.scores), 5).astype(np.int8)
    indices, distances = nearest(np.vstack([pool.vectors, pool.vectors[:1]]), 32)
    result = curate(scores, indices, distances)
    without = curate(np.append(scores[:-1], np.int8(4)), indices, distances)
    assert result.diagnosis["explained"]
    right, expected = ((found.score[:-1] == np.minimum(pool.true, 4)).mean() for found in (result, without))
    assert abs(right - expected) < 0.02


def test_samples_without_a_rating_do_not_enter_t_and_get_a_suggestion() -> None:
    pool = pool_of(seed=101)
    scores = np.where(np.arange(len(pool.true)) % 3 == 0, -1, pool.scores)
    result = curate(scores, pool.indices, pool.distances)
    missing = scores == -1
    assert (result.score[missing] == -1).all()
    assert not result.flagged[missing].any()
    assert np.isnan(result.error_probability[missing]).all()
    assert np.isnan(result.raw_error[missing]).all()
    assert (result.suggested[missing] == pool.true[missing]).mean() > 0.82
    assert t_error(pool, result) <= 0.03
    assert result.posterior is not None
    np.testing.assert_allclose(result.confidence[missing], result.posterior[missing].max(1), atol=1e-6)
    assert abs(result.confidence[missing].mean() - (result.suggested == pool.true)[missing].mean()) < 0.15
    assert result.diagnosis["counts"]["unrated"] == missing.sum()
    filled = curate(scores, pool.indices, pool.distances, fill_missing=True)
    np.testing.assert_array_equal(filled.score[missing], result.suggested[missing])
    np.testing.assert_array_equal(filled.score[~missing], result.score[~missing])
    assert filled.diagnosis["counts"]["filled"] == missing.sum()


def test_a_sample_of_which_nothing_is_known_gets_nothing() -> None:
    pool = pool_of(1000, 32, seed=601)
    scores = pool.scores.copy()
    scores[7] = -1
    scores[pool.indices[7]] = -1
    result = curate(scores, pool.indices, pool.distances, fill_missing=True)
    assert result.diagnosis["explained"]
    assert result.score[7] == -1
    assert result.suggested[7] == -1
    assert np.isnan(result.confidence[7])
    # Its embedding says something.
    told = curate(scores, pool.indices, pool.distances, fill_missing=True, embeddings=pool.vectors)
    assert told.score[7] >= 0


@pytest.mark.parametrize(("classes", "gain"), [(2, 0.15), (3, 0.12), (10, 0.1)])
def test_any_number_of_classes(classes: int, gain: float) -> None:
    matrix = 0.7 * np.eye(classes) + 0.3 * np.random.default_rng(0).dirichlet(np.ones(classes), classes)
    pool = make_pool(1500, 64, seed=701, T=matrix, p=np.full(classes, 1 / classes))
    result = curate(pool.scores, pool.indices, pool.distances, classes=classes)
    assert np.array(result.diagnosis["T"]).shape == (classes, classes)
    assert result.posterior is not None
    assert result.posterior.shape == (1500, classes)
    assert pool.right(result.score) > pool.right(pool.scores) + gain
    result = curate(pool.scores, pool.indices, pool.distances, classes=classes, assume="clusterable")
    assert t_error(pool, result) < 0.02
    assert pool.right(result.score) > 0.97


def test_a_class_that_nobody_gave_stays_empty_and_is_said() -> None:
    pool = pool_of(1000, 32, seed=601)
    result = curate(np.minimum(pool.scores, 4), pool.indices, pool.distances)
    fitted = np.array(result.diagnosis["T"])
    assert fitted[5].tolist() == [0, 0, 0, 0, 0, 1]
    assert result.diagnosis["p"][5] == 0
    assert (result.score != 5).all()
    assert any("no sample is rated 5" in warning for warning in result.diagnosis["warnings"])


def test_ratings_that_are_all_equal_are_kept() -> None:
    pool = pool_of(1000, 32, seed=601)
    result = curate(np.full(1000, 3), pool.indices, pool.distances, embeddings=pool.vectors)
    assert (result.score == 3).all()
    assert result.flagged.sum() == 0
    assert not result.diagnosis["explained"]
    assert np.isnan(result.confidence).all()
    assert result.diagnosis["p"][3] == 1


@pytest.mark.parametrize("with_embeddings", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_ratings_that_ignore_the_text_are_left_alone(seed: int, with_embeddings: bool) -> None:
    pool = pool_of(1000, 32, seed=601)
    scores = np.random.default_rng(seed).choice(6, 1000, p=P)
    scores[:50] = -1
    result = curate(
        scores, pool.indices, pool.distances, fill_missing=True, embeddings=pool.vectors if with_embeddings else None
    )
    assert not result.diagnosis["explained"]
    assert result.diagnosis["reasons"]
    assert result.diagnosis["warnings"][: len(result.diagnosis["reasons"])] == result.diagnosis["reasons"]
    assert result.diagnosis["advice"]
    np.testing.assert_array_equal(result.score, scores)
    assert not result.flagged.any()
    for values in (result.confidence, result.error_probability, result.raw_error, result.mean, result.posterior):
        assert np.isnan(values).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_a_smooth_surface_is_no_cluster_and_still_tells_scores_more_so_with_embeddings(seed: int) -> None:
    pool = smooth_pool(1500, 2, seed)
    by_neighbors = curate(pool.scores, pool.indices, pool.distances)
    result = curate(pool.scores, pool.indices, pool.distances, embeddings=pool.vectors)
    assert pool.right(pool.scores) + 0.15 < pool.right(by_neighbors.score) < pool.right(result.score) - 0.01
    for found in (by_neighbors, result):
        assert abs(np.nanmean(found.confidence) - pool.right(found.score)) < 0.1
    assert result.diagnosis["weights"]["regression"] > 0.5
    assert result.diagnosis["weights"]["neighbors"] < by_neighbors.diagnosis["weights"]["neighbors"]
    assert result.diagnosis["regression"]["explained_variance"] > 0.3


def test_intervals_of_t_hold_the_truth_and_narrow_with_the_pool() -> None:
    widths = []
    for n in (600, 2500):
        pool = pool_of(n, 64, seed=502)
        found = curate(pool.scores, pool.indices, pool.distances).diagnosis
        low, high = np.array(found["intervals"]["T"])
        fitted, frequent = np.array(found["T"]), np.bincount(pool.true, minlength=6) > n / 8
        holds = (low - 0.01 <= pool.realized()) & (pool.realized() <= high + 0.01)
        assert holds[frequent].mean() > 0.8
        assert (low <= high).all()
        assert ((low <= fitted) & (fitted <= high)).mean() > 0.9
        widths.append(float((high - low).mean()))
    assert widths[1] < 0.8 * widths[0]


def test_the_own_share_of_clean_clusters_is_low_and_its_cases_are_weighed() -> None:
    _, result = curated(seed=101)
    found = result.diagnosis
    low, high = found["own_share_interval"]
    assert low <= found["own_share"] <= high <= 0.35
    cases = found["sensitivity"]
    assert [case["own_share"] for case in cases] == sorted(case["own_share"] for case in cases)
    assert sum(case["plausibility"] for case in cases) == pytest.approx(1)
    for case in cases:
        assert case["expected_right"] >= case["expected_right_raw"] - 1e-9
        assert case["expected_error"] <= case["expected_error_raw"] + 1e-9
        assert 0 <= case["corrected"] <= 2500
    # The more samples differ from their neighbours, the less can be corrected.
    assert cases[0]["corrected"] > cases[-1]["corrected"]


def test_of_clusterable_pools_only_one_case_is_looked_at() -> None:
    _, result = curated("clusterable", seed=101)
    assert result.diagnosis["assume"] == "clusterable"
    assert [case["own_share"] for case in result.diagnosis["sensitivity"]] == [0.02]


def test_a_fit_to_some_samples_tells_all() -> None:
    pool, whole = curated(seed=101)
    part = curate(pool.scores, pool.indices, pool.distances, fit_samples=800)
    assert not np.isnan(part.confidence).any()
    assert pool.right(part.score) > pool.right(whole.score) - 0.06
    np.testing.assert_allclose(part.diagnosis["T"], whole.diagnosis["T"], atol=0.12)


def test_fewer_neighbours_are_used_where_asked_for() -> None:
    pool, whole = curated(n=1000, d=32, seed=601)
    few = curate(pool.scores, pool.indices, pool.distances, neighbors=8)
    assert (few.diagnosis["k"], whole.diagnosis["k"]) == (8, 32)
    cut = curate(pool.scores, pool.indices[:, :8], pool.distances[:, :8])
    np.testing.assert_array_equal(few.score, cut.score)
    many = curate(pool.scores, pool.indices, pool.distances, neighbors=500)
    np.testing.assert_array_equal(many.score, whole.score)


@pytest.mark.parametrize("with_embeddings", [False, True])
@pytest.mark.parametrize("n", [3, 4, 8, 30])
def test_tiny_pools_give_a_result_and_warnings(n: int, with_embeddings: bool) -> None:
    pool = make_pool(n, 8, seed=1, k=min(32, n - 1))
    result = curate(pool.scores, pool.indices, pool.distances, embeddings=pool.vectors if with_embeddings else None)
    assert result.score.shape == (n,)
    assert (result.score >= 0).all()
    np.testing.assert_allclose(np.sum(result.diagnosis["T"], axis=1), 1)
    assert result.diagnosis["warnings"]


@pytest.mark.parametrize("rated", [1, 2])
def test_one_or_two_ratings_are_kept(rated: int) -> None:
    pool = make_pool(40, 8, seed=1)
    scores = np.where(np.arange(40) < rated, pool.scores, -1)
    for vectors in (None, pool.vectors):
        result = curate(scores, pool.indices, pool.distances, embeddings=vectors)
        np.testing.assert_array_equal(result.score, scores)
        assert not result.diagnosis["explained"]


@given(st.integers(0, 2**31), st.integers(2, 6), st.integers(1, 3), st.booleans())
@settings(max_examples=4, deadline=None)
def test_rows_of_t_sum_to_one_and_probabilities_lie_between_zero_and_one(
    seed: int, classes: int, raters: int, graded: bool
) -> None:
    pool, rng = make_pool(80, 8, seed=seed, k=10), np.random.default_rng(seed)
    scores = rng.integers(-1, classes, (80, raters))
    scores[0] = 0
    grades = np.where(np.arange(80) < 35, rng.integers(0, classes, 80), -1) if graded else None
    result = curate(scores, pool.indices, pool.distances, classes=classes, grades=grades)
    found = result.diagnosis
    for matrix in [found["T"], found["T_of_neighborhoods"], *found.get("T_by_rater", [])]:
        np.testing.assert_allclose(np.sum(matrix, axis=1), 1, atol=1e-6)
    assert sum(found["p"]) == pytest.approx(1)
    known = ~np.isnan(result.confidence)
    assert known.any() or not graded
    assert ((result.confidence[known] > 0) & (result.confidence[known] <= 1)).all()
    rated = (scores >= 0).any(1)
    assert (result.flagged <= rated).all()
    assert (result.raw >= 0).tolist() == rated.tolist()
    seen = ~np.isnan(result.error_probability)
    assert (seen <= (scores >= 0)).all()
    assert ((result.error_probability[seen] >= 0) & (result.error_probability[seen] <= 1)).all()
    assert np.sum(found["confusion"]) == rated.sum()


@pytest.mark.parametrize(
    ("scores", "shape", "message"),
    [
        ([0, 1, 6], (3, 2), "the score of sample 2 is 6; 1 scores are out of range"),
        ([0, -2, 1], (3, 2), "the score of sample 1 is -2"),
        ([[0, 1], [2, 3], [4, 7]], (3, 2), "the score of sample 2 is 7"),
        ([-1, -1, -1], (3, 2), "no sample has a rating"),
        ([0.5, np.nan, 1], (3, 2), "float64"),
        ([0, 1], (3, 2), "shape"),
        ([0, 1, 2], (3, 1), "shape"),
        ([[], [], []], (3, 2), "shape"),
        ([[[0]], [[1]], [[2]]], (3, 2), "shape"),
    ],
)
def test_unusable_arrays_are_refused(scores: list[Any], shape: tuple[int, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        curate(np.array(scores), np.zeros(shape, np.int32), np.ones(shape))


@pytest.mark.parametrize(
    ("grades", "message"),
    [
        (np.array([0, 6, -1]), "the grade of sample 1 is 6; 1 grades are out of range"),
        (np.array([0, -2, -1]), "the grade of sample 1 is -2"),
        (np.array([0, 1]), "for 3 samples"),
        (np.array([[0], [1], [2]]), "for 3 samples"),
        (np.array([0.5, 1, np.nan]), "type float64"),
    ],
)
def test_unusable_grades_are_refused(grades: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        curate(np.array([0, 1, 2]), np.zeros((3, 2), np.int32), np.ones((3, 2)), grades=grades)


def test_the_old_name_warns_and_does_the_same() -> None:
    pool, found = curated(n=1000, d=32, seed=601)
    with pytest.warns(DeprecationWarning, match=r"tamis\.curation\.curate"):
        old = exact.curate(pool.scores, pool.indices, pool.distances)
    np.testing.assert_array_equal(old.posterior, found.posterior)


def test_the_reference_without_its_doubling_is_beaten_on_its_own_pool() -> None:
    data = np.load(shared_data("curation", "ref_syn2k_nodup_s0.npz"))
    vectors = data["emb"] / np.linalg.norm(data["emb"], axis=1, keepdims=True)
    pool = Pool(vectors, data["true"], data["noisy"], *nearest(vectors, 32))
    result = curate(pool.scores, pool.indices, pool.distances)
    assert t_error(pool, result) <= 0.012 < np.abs(data["T"] - pool.realized()).mean()
    assert pool.f1(result.flagged) >= 0.93 > pool.f1(data["flag"])
    assert pool.right(result.score) >= 0.93 > pool.right(data["curated"])
    # Its ten nearest count the sample itself, at distance 0; then the diversity scores are the same.
    ten = np.concatenate([np.zeros((len(vectors), 1)), pool.distances[:, :9]], axis=1)
    np.testing.assert_allclose(2 / (1 + np.exp(-ten.mean(1))) - 1, data["lt"], atol=1e-4)


def test_real_images_with_drawn_noise_come_out_right() -> None:
    """scikit-learn's 1,797 handwritten digits in six classes: near images show the same digit, mostly."""
    from sklearn.datasets import load_digits

    images, digit = load_digits(return_X_y=True)
    vectors = (images - images.mean(0)) / np.linalg.norm(images - images.mean(0), axis=1, keepdims=True)
    true = digit % 6
    scores = draw_ratings(true, T, np.random.default_rng(0))
    pool = Pool(vectors, true, scores, *nearest(vectors.astype(np.float32), 32))
    result = curate(pool.scores, pool.indices, pool.distances)
    assert t_error(pool, result) <= 0.02
    assert pool.f1(result.flagged) >= 0.92
    assert pool.right(result.score) >= 0.92
