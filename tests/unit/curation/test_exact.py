"""Curation in exact mode: recovered truth, properties, odd input."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.core.errors import InputError
from tamis.curation.exact import curate
from tamis.curation.result import Curated
from tests.conftest import shared_data
from tests.unit.curation.pools import P, Pool, T, draw_ratings, make_pool, nearest, smooth_pool


@cache
def pool_of(n: int = 10_000, d: int = 128, seed: int = 101, size: float = 20, foreign: float = 0) -> Pool:
    return make_pool(n, d, seed=seed, size=size, foreign=foreign)


@cache
def curated(**options: float) -> tuple[Pool, Curated]:
    pool = pool_of(**options)
    return pool, curate(pool.scores, pool.indices, pool.distances)


def t_error(pool: Pool, result: Curated) -> float:
    return float(np.abs(np.array(result.diagnosis["T"]) - pool.realized()).mean())


def test_ratings_of_which_42_in_100_are_wrong_come_out_right() -> None:
    found = [curated(seed=seed) for seed in (101, 102, 103, 104, 105)]
    assert max(pool.right(pool.scores) for pool, _ in found) < 0.6
    assert np.mean([t_error(*each) for each in found]) <= 0.004
    assert np.mean([np.abs(r.diagnosis["p"] - np.bincount(p.true) / 10_000).sum() for p, r in found]) < 0.03
    assert np.mean([pool.f1(result.flagged) for pool, result in found]) >= 0.97
    assert np.mean([pool.right(result.score) for pool, result in found]) >= 0.97
    # Nor is any of them an outlier.
    assert max(t_error(*each) for each in found) <= 0.006
    assert min(pool.f1(result.flagged) for pool, result in found) >= 0.955
    assert min(pool.right(result.score) for pool, result in found) >= 0.95


def test_samples_unlike_their_cluster_do_limited_harm() -> None:
    found = [curated(seed=seed, foreign=0.1) for seed in (201, 202, 203, 204)]
    assert np.mean([t_error(*each) for each in found]) <= 0.02
    assert np.mean([pool.f1(result.flagged) for pool, result in found]) >= 0.88
    assert np.mean([pool.right(result.score) for pool, result in found]) >= 0.86


@pytest.mark.parametrize(("size", "f1"), [(8, 0.87), (60, 0.99)])
def test_cluster_size_need_not_be_known(size: float, f1: float) -> None:
    pool, result = curated(seed=301, size=size)
    assert pool.f1(result.flagged) >= f1
    assert t_error(pool, result) <= 0.01


@pytest.mark.parametrize("seed", [401, 402, 403])
def test_a_pool_of_2000_is_enough(seed: int) -> None:
    pool, result = curated(n=2000, d=64, seed=seed)
    assert pool.f1(result.flagged) >= 0.93
    assert t_error(pool, result) <= 0.02


@pytest.mark.parametrize(("wrong", "right"), [(0.0, 1.0), (0.1, 0.995), (0.25, 0.98), (0.6, 0.85)])
def test_every_level_of_noise_is_met(wrong: float, right: float) -> None:
    pool = pool_of(6000, 64, seed=501)
    uniform = (1 - wrong) * np.eye(6) + wrong / 5 * (1 - np.eye(6))
    scores = draw_ratings(pool.true, uniform, np.random.default_rng(0))
    result = curate(scores, pool.indices, pool.distances)
    assert pool.right(result.score) >= right
    np.testing.assert_allclose(result.diagnosis["T"], uniform, atol=0.06)


@given(st.integers(0, 2**31), st.integers(2, 6))
@settings(max_examples=6, deadline=None)
def test_ratings_without_noise_are_left_alone(seed: int, classes: int) -> None:
    pool = make_pool(1500, 64, seed=seed, T=np.eye(classes), p=np.full(classes, 1 / classes))
    result = curate(pool.true, pool.indices, pool.distances, classes=classes)
    np.testing.assert_allclose(result.diagnosis["T"], np.eye(classes), atol=1e-3)
    assert result.flagged.sum() == 0
    np.testing.assert_array_equal(result.score, pool.true)


def test_probabilities_mean_what_they_say() -> None:
    pool, result = curated(seed=101)
    for low, high in [(0.3, 0.6), (0.6, 0.8), (0.8, 0.95), (0.95, 1.01)]:
        chosen = (result.confidence >= low) & (result.confidence < high)
        right = (result.suggested == pool.true)[chosen].mean()
        assert abs(right - result.confidence[chosen].mean()) < 0.08
    wrong = pool.true != pool.scores
    assert abs(result.error_probability.mean() - wrong.mean()) < 0.01


def test_confidence_limits_what_is_corrected_but_not_what_is_flagged() -> None:
    pool, free = curated(seed=101)
    strict = curate(pool.scores, pool.indices, pool.distances, confidence=0.9)
    np.testing.assert_array_equal(free.flagged, strict.flagged)
    changed = strict.score != strict.raw
    assert (strict.confidence[changed] >= 0.9).all()
    assert changed.sum() < (free.score != free.raw).sum()
    np.testing.assert_array_equal(strict.score[~changed], pool.scores[~changed])


def test_the_same_input_gives_the_same_result() -> None:
    pool, first = curated(n=2000, d=64, seed=401)
    second = curate(pool.scores, pool.indices, pool.distances)
    assert first.diagnosis == second.diagnosis
    np.testing.assert_array_equal(first.confidence, second.confidence)


@given(st.integers(0, 2**31))
@settings(max_examples=6, deadline=None)
def test_the_order_of_samples_does_not_matter(seed: int) -> None:
    pool, first = curated(n=2000, d=64, seed=401)
    order = np.random.default_rng(seed).permutation(2000)
    place = np.argsort(order)
    second = curate(pool.scores[order], place[pool.indices[order]], pool.distances[order])
    np.testing.assert_allclose(second.diagnosis["T"], first.diagnosis["T"], atol=1e-6)
    np.testing.assert_array_equal(second.score, first.score[order])
    np.testing.assert_allclose(second.confidence, first.confidence[order], atol=1e-5)


@given(st.permutations(range(6)))
@settings(max_examples=6, deadline=None)
def test_other_names_of_classes_rename_the_result(names: list[int]) -> None:
    pool, first = curated(n=2000, d=64, seed=402)
    renamed = np.array(names)
    second = curate(renamed[pool.scores], pool.indices, pool.distances)
    np.testing.assert_allclose(
        np.array(second.diagnosis["T"])[np.ix_(renamed, renamed)], first.diagnosis["T"], atol=0.02
    )
    assert (second.score == renamed[first.score]).mean() > 0.99


@given(st.integers(0, 2**31), st.floats(0.05, 1))
@settings(max_examples=6, deadline=None)
def test_copies_change_nothing(seed: int, share: float) -> None:
    pool = pool_of(1000, 32, seed=601)
    copied = np.flatnonzero(np.random.default_rng(seed).random(1000) < share)
    twice = np.concatenate([np.arange(1000), copied])
    indices, distances = nearest(pool.vectors[twice], 32)
    once = curate(pool.scores, pool.indices, pool.distances, neighbors=12)
    result = curate(pool.scores[twice], indices, distances, neighbors=12)
    assert result.diagnosis["copies_left_out"] == len(copied)
    np.testing.assert_allclose(result.diagnosis["T"], once.diagnosis["T"], atol=1e-6)
    np.testing.assert_array_equal(result.score, once.score[twice])


def test_copies_taken_for_neighbours_make_the_rater_look_better_than_it_is() -> None:
    pool = pool_of(1500, 32, seed=601)
    twice = np.concatenate([np.arange(1500), np.arange(0, 1500, 2)])
    indices, distances = nearest(pool.vectors[twice], 32)
    fooled, known = (
        curate(pool.scores[twice], indices, distances, neighbors=12, copy_distance=d) for d in (None, 1e-5)
    )
    assert t_error(pool, fooled) > 2 * t_error(pool, known)


def test_samples_without_a_rating_do_not_enter_t_and_get_a_suggestion() -> None:
    pool = pool_of(seed=101)
    scores = np.where(np.arange(10_000) % 3 == 0, -1, pool.scores)
    result = curate(scores, pool.indices, pool.distances)
    missing = scores == -1
    assert (result.score[missing] == -1).all()
    assert not result.flagged[missing].any()
    assert np.isnan(result.error_probability[missing]).all()
    assert (result.suggested[missing] == pool.true[missing]).mean() > 0.93
    assert t_error(pool, result) <= 0.01
    assert result.diagnosis["counts"]["unrated"] == missing.sum()
    filled = curate(scores, pool.indices, pool.distances, fill_missing=True)
    np.testing.assert_array_equal(filled.score[missing], result.suggested[missing])
    assert filled.diagnosis["counts"]["filled"] == missing.sum()


def test_a_sample_of_which_nothing_is_known_gets_nothing() -> None:
    pool = pool_of(1500, 32, seed=601)
    scores = pool.scores.copy()
    scores[7] = -1
    scores[pool.indices[7]] = -1
    result = curate(scores, pool.indices, pool.distances, fill_missing=True)
    assert result.score[7] == -1
    assert result.suggested[7] == -1
    assert np.isnan(result.confidence[7])


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_any_number_of_classes(classes: int) -> None:
    matrix = 0.7 * np.eye(classes) + 0.3 * np.random.default_rng(0).dirichlet(np.ones(classes), classes)
    pool = make_pool(5000, 64, seed=701, T=matrix, p=np.full(classes, 1 / classes))
    result = curate(pool.scores, pool.indices, pool.distances, classes=classes)
    assert np.array(result.diagnosis["T"]).shape == (classes, classes)
    assert pool.right(result.score) > pool.right(pool.scores) + 0.1
    assert t_error(pool, result) < 0.02


def test_a_class_that_nobody_gave_stays_empty_and_is_said() -> None:
    pool = pool_of(2000, 64, seed=401)
    result = curate(np.minimum(pool.scores, 4), pool.indices, pool.distances)
    fitted = np.array(result.diagnosis["T"])
    assert fitted[5].tolist() == [0, 0, 0, 0, 0, 1]
    assert result.diagnosis["p"][5] == 0
    assert (result.score != 5).all()
    assert any("no sample is rated 5" in warning for warning in result.diagnosis["warnings"])


def test_ratings_that_are_all_equal_are_kept() -> None:
    pool = pool_of(2000, 64, seed=401)
    result = curate(np.full(2000, 3), pool.indices, pool.distances)
    assert (result.score == 3).all()
    assert result.flagged.sum() == 0
    assert result.diagnosis["p"][3] == 1


@pytest.mark.parametrize("seed", range(3))
def test_ratings_that_ignore_the_text_are_left_alone(seed: int) -> None:
    pool = pool_of(2000, 64, seed=401)
    scores = np.random.default_rng(seed).choice(6, 2000, p=P)
    result = curate(scores, pool.indices, pool.distances)
    assert not result.diagnosis["explained"]
    assert (result.score == scores).all()
    assert not result.flagged.any()
    assert np.isnan(result.error_probability).all()
    assert any("neighbours say next to nothing" in warning for warning in result.diagnosis["warnings"])


@pytest.mark.parametrize("seed", [0, 1])
def test_neighbours_that_depend_on_each_other_count_less(seed: int) -> None:
    # Scores change smoothly over a surface: neighbours agree because they lie on one side, not because of one truth.
    pool = smooth_pool(4000, 2, seed)
    result = curate(pool.scores, pool.indices, pool.distances)
    assert result.diagnosis["neighbor_weight"] < 0.7
    assert pool.right(result.score) > pool.right(pool.scores) + 0.1
    assert np.nanmean(result.confidence) - pool.right(result.suggested) < 0.1


def test_bootstrap_intervals_hold_the_truth_and_narrow_with_the_pool() -> None:
    widths = []
    for n in (1000, 4000):
        pool = pool_of(n, 64, seed=502)
        found = curate(pool.scores, pool.indices, pool.distances, bootstrap=12, neighbors=32).diagnosis
        low, high = np.array(found["intervals"]["T"])
        fitted = np.array(found["T"])
        expected = np.bincount(pool.true, minlength=6)[:, None] > 200
        holds = (low - 0.01 <= pool.realized()) & (pool.realized() <= high + 0.01)
        assert holds[np.broadcast_to(expected, holds.shape)].mean() > 0.8
        assert (low <= high).all()
        assert ((low <= fitted) & (fitted <= high)).mean() > 0.9
        widths.append(float((high - low).mean()))
    assert widths[1] < widths[0]


def test_an_ordinal_prior_holds_up_t_in_a_small_pool() -> None:
    errors: dict[float, list[float]] = {0: [], 10: []}
    for seed in range(6):
        pool = pool_of(250, 16, seed=800 + seed)
        for strength, found in errors.items():
            result = curate(pool.scores, pool.indices, pool.distances, ordinal=strength)
            found.append(float(np.abs(np.array(result.diagnosis["T"]) - T).mean()))
    assert np.mean(errors[10]) < np.mean(errors[0])


@pytest.mark.parametrize("n", [3, 4, 8, 30])
def test_tiny_pools_give_a_result_and_warnings(n: int) -> None:
    pool = make_pool(n, 8, seed=1, k=min(32, n - 1))
    result = curate(pool.scores, pool.indices, pool.distances)
    assert result.score.shape == (n,)
    np.testing.assert_allclose(np.sum(result.diagnosis["T"], axis=1), 1)
    assert result.diagnosis["warnings"]


@pytest.mark.parametrize("rated", [1, 2])
def test_one_or_two_ratings_are_kept(rated: int) -> None:
    pool = make_pool(40, 8, seed=1)
    scores = np.where(np.arange(40) < rated, pool.scores, -1)
    result = curate(scores, pool.indices, pool.distances)
    np.testing.assert_array_equal(result.score, scores)


@given(st.integers(0, 2**31), st.integers(2, 6))
@settings(max_examples=15, deadline=None)
def test_rows_of_t_sum_to_one_and_probabilities_lie_between_zero_and_one(seed: int, classes: int) -> None:
    pool = make_pool(120, 8, seed=seed, k=10)
    scores = np.random.default_rng(seed).integers(-1, classes, 120)
    scores[0] = 0
    result = curate(scores, pool.indices, pool.distances, classes=classes)
    np.testing.assert_allclose(np.sum(result.diagnosis["T"], axis=1), 1, atol=1e-6)
    assert sum(result.diagnosis["p"]) == pytest.approx(1)
    known = ~np.isnan(result.confidence)
    assert ((result.confidence[known] > 0) & (result.confidence[known] <= 1)).all()
    assert (result.flagged <= (scores >= 0)).all()
    assert (result.score[result.flagged] == result.suggested[result.flagged]).all()
    assert np.sum(result.diagnosis["confusion"]) == (scores >= 0).sum()


@pytest.mark.parametrize(
    ("scores", "shape", "message"),
    [
        ([0, 1, 6], (3, 2), "the score of sample 2 is 6; 1 scores are out of range"),
        ([0, -2, 1], (3, 2), "the score of sample 1 is -2"),
        ([-1, -1, -1], (3, 2), "no sample has a rating"),
        ([0.5, np.nan, 1], (3, 2), "the scores are float64"),
        ([0, 1], (3, 2), "do not fit"),
        ([0, 1, 2], (3, 1), "do not fit"),
    ],
)
def test_unusable_arrays_are_refused(scores: list[int], shape: tuple[int, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        curate(np.array(scores), np.zeros(shape, np.int32), np.ones(shape))


@pytest.mark.parametrize(("name", "error", "f1", "right"), [("2k", 0.012, 0.93, 0.93), ("10k", 0.004, 0.965, 0.96)])
def test_the_reference_without_its_doubling_is_beaten_on_its_own_pools(
    name: str, error: float, f1: float, right: float
) -> None:
    data = np.load(shared_data("curation", f"ref_syn{name}_nodup_s0.npz"))
    vectors = data["emb"] / np.linalg.norm(data["emb"], axis=1, keepdims=True)
    pool = Pool(vectors, data["true"], data["noisy"], *nearest(vectors, 32))
    result = curate(pool.scores, pool.indices, pool.distances)
    assert t_error(pool, result) <= error < np.abs(data["T"] - pool.realized()).mean()
    assert pool.f1(result.flagged) >= f1 > pool.f1(data["flag"])
    assert pool.right(result.score) >= right > pool.right(data["curated"])
    # Its ten nearest count the sample itself, at distance 0; then the diversity scores are the same.
    ten = np.concatenate([np.zeros((len(vectors), 1)), pool.distances[:, :9]], axis=1)
    np.testing.assert_allclose(2 / (1 + np.exp(-ten.mean(1))) - 1, data["lt"], atol=1e-4)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_real_images_with_drawn_noise_come_out_right(seed: int) -> None:
    """scikit-learn's 1,797 handwritten digits in six classes: near images show the same digit, mostly."""
    from sklearn.datasets import load_digits

    images, digit = load_digits(return_X_y=True)
    vectors = (images - images.mean(0)) / np.linalg.norm(images - images.mean(0), axis=1, keepdims=True)
    true = digit % 6
    scores = draw_ratings(true, T, np.random.default_rng(seed))
    pool = Pool(vectors, true, scores, *nearest(vectors.astype(np.float32), 32))
    result = curate(pool.scores, pool.indices, pool.distances)
    assert t_error(pool, result) <= 0.02
    assert pool.f1(result.flagged) >= 0.92
    assert pool.right(result.score) >= 0.92


def test_a_class_that_only_a_copy_has_changes_little() -> None:
    """Of copies the first one enters the statistics, so the class has no share in them."""
    pool = pool_of(1200, 32, 11)
    scores = np.append(np.where(pool.scores == 5, 4, pool.scores), 5).astype(np.int8)
    indices, distances = nearest(np.vstack([pool.vectors, pool.vectors[:1]]), 32)
    result = curate(scores, indices, distances)
    without = curate(np.append(scores[:-1], np.int8(4)), indices, distances)
    assert result.diagnosis["explained"]
    right, expected = ((found.score[:-1] == np.minimum(pool.true, 4)).mean() for found in (result, without))
    assert abs(right - expected) < 0.02
