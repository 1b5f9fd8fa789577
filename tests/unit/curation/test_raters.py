"""Several raters together."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tamis.core.errors import InputError, SettingsError
from tamis.core.settings import parse
from tamis.curation import sources
from tamis.curation.exact import curate
from tamis.curation.raters import agreement, combine, compare, dawid_skene
from tamis.curation.settings import CurationSettings
from tamis.curation.stage import run
from tests.unit.curation.pools import P, Pool, T, draw_ratings, make_pool
from tests.unit.curation.test_stage import graph_of, ratings_of, rows_of

OTHERS = [0.5 * np.eye(6) + 0.5 / 6, 0.8 * T + 0.2 * P]


@pytest.fixture(scope="module")
def pool() -> Pool:
    return make_pool(4000, 64, seed=41, size=8)


def raters_of(pool: Pool) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [pool.scores, *(draw_ratings(pool.true, matrix, rng) for matrix in OTHERS)]


def test_agreement_counts_samples_that_both_rated() -> None:
    found = agreement(np.array([0, 1, 2, 5, -1], np.int8), np.array([0, 2, 5, -1, 3], np.int8))
    assert found["samples"] == 3
    assert found["exact"] == pytest.approx(1 / 3)
    assert found["within_one"] == pytest.approx(2 / 3)
    assert found["correlation"] == pytest.approx(np.corrcoef([0, 1, 2], [0, 2, 5])[0, 1])
    assert agreement(np.array([1, 1], np.int8), np.array([0, 3], np.int8))["correlation"] is None
    assert agreement(np.array([-1], np.int8), np.array([0], np.int8))["samples"] == 0


def test_raters_alone_determine_their_matrices() -> None:
    rng = np.random.default_rng(1)
    true = rng.choice(6, 20_000, p=P)
    scores = np.stack([draw_ratings(true, matrix, rng) for matrix in (T, T, *OTHERS, T)], axis=1).astype(np.int8)
    scores[:2000, 0] = -1
    fitted, p, _ = dawid_skene(scores, 6)
    np.testing.assert_allclose(p, P, atol=0.04)
    for found, matrix in zip(fitted, (T, T, *OTHERS, T), strict=True):
        assert np.abs(found - matrix).mean() < 0.03
    np.testing.assert_allclose(fitted.sum(2), 1)


def test_combined_scores_are_better_than_each_rater_and_than_their_mean(pool: Pool) -> None:
    results = {
        str(i): curate(scores, pool.indices, pool.distances, keep_evidence=True)
        for i, scores in enumerate(raters_of(pool))
    }
    together = combine(results, 6, threshold=0)
    assert pool.right(together.score) > max(pool.right(result.score) for result in results.values()) + 0.02
    assert pool.right(together.score) > pool.right(together.raw) + 0.2
    np.testing.assert_array_equal(together.raw, np.floor(np.mean(raters_of(pool), axis=0) + 0.5))
    assert together.diagnosis["raters"] == ["0", "1", "2"]


def test_one_rater_combined_is_that_rater(pool: Pool) -> None:
    alone = curate(pool.scores, pool.indices, pool.distances, keep_evidence=True)
    together = combine({"0": alone}, 6, threshold=0)
    assert (together.score == alone.score).mean() > 0.995
    np.testing.assert_array_equal(together.raw, alone.raw)


def test_a_class_that_one_rater_never_gives_can_still_be_found_by_the_others(pool: Pool) -> None:
    scores = [pool.scores, np.minimum(raters_of(pool)[2], 4)]
    results = {str(i): curate(s, pool.indices, pool.distances, keep_evidence=True) for i, s in enumerate(scores)}
    together = combine(results, 6, threshold=0)
    fives = pool.true == 5
    assert (together.score[fives] == 5).mean() > 0.7


def test_samples_rated_by_some_raters_only(pool: Pool) -> None:
    first, second, _ = raters_of(pool)
    half = np.arange(4000) < 2000
    results = {
        name: curate(scores, pool.indices, pool.distances, keep_evidence=True)
        for name, scores in {"a": np.where(half, first, -1), "b": np.where(np.arange(4000) < 3000, second, -1)}.items()
    }
    together = combine(results, 6, threshold=0)
    assert (together.raw[3000:] == -1).all()
    assert (together.score[3000:] == -1).all()
    assert not together.flagged[3000:].any()
    np.testing.assert_array_equal(together.raw[2000:3000], second[2000:3000])
    assert (combine(results, 6, threshold=0, fill_missing=True).score[3000:] >= 0).sum() > 500


def test_raters_without_a_sample_in_common_are_curated_each_by_itself(pool: Pool) -> None:
    thirds = np.arange(4000) * 3 // 4000
    results = {
        str(i): curate(np.where(thirds == i, scores, -1), pool.indices, pool.distances, keep_evidence=True)
        for i, scores in enumerate(raters_of(pool))
    }
    compare(results, 6)
    nothing = {"samples": 0, "exact": None, "within_one": None, "correlation": None}
    assert results["0"].diagnosis["agreement"]["1"]["raw"] == nothing
    assert "check_by_raters" not in results["0"].diagnosis
    together = combine(results, 6, threshold=0)
    assert (together.raw >= 0).all()
    assert pool.right(together.score) > max(pool.right(together.raw), 0.8)


def test_each_rater_is_compared_with_the_others_and_its_t_checked(pool: Pool) -> None:
    results = {str(i): curate(scores, pool.indices, pool.distances) for i, scores in enumerate(raters_of(pool))}
    compare(results, 6)
    found = results["0"].diagnosis
    assert list(found["agreement"]) == ["1", "2"]
    raw, curated = found["agreement"]["1"]["raw"], found["agreement"]["1"]["curated"]
    assert curated["exact"] > raw["exact"] + 0.2
    assert raw["exact"] == pytest.approx((raters_of(pool)[0] == raters_of(pool)[1]).mean())
    assert found["check_by_raters"]["difference"] < 0.1
    assert np.array(found["check_by_raters"]["T"]).shape == (6, 6)


def test_a_t_that_the_raters_contradict_is_said(pool: Pool) -> None:
    # The second and third rater judge something else than the first, so that its errors look large to them.
    shuffled = np.random.default_rng(2).permutation(pool.true)
    rng = np.random.default_rng(3)
    scores = [pool.scores, *(draw_ratings(shuffled, T, rng) for _ in range(2))]
    results = {str(i): curate(s, pool.indices, pool.distances) for i, s in enumerate(scores)}
    compare(results, 6)
    assert any("differs by" in warning for warning in results["0"].diagnosis["warnings"])


def test_the_stage_adds_the_combined_rater(pool: Pool, tmp_path: Path) -> None:
    first, second, third = raters_of(pool)
    given = [ratings_of(tmp_path, name, scores) for name, scores in (("a", first), ("b", second), ("c", third))]
    graph = graph_of(tmp_path, pool)
    manifest = run(CurationSettings(combine=True), ratings=given, neighbors=graph, out=tmp_path / "out")
    assert manifest.rows == 4 * 4000
    assert manifest.facts["raters"] == 3
    diagnoses = json.loads((tmp_path / "out/diagnosis.json").read_text())
    assert list(diagnoses) == ["a", "b", "c", "combined"]
    assert "check_by_raters" in diagnoses["a"]
    scores = {name: rows_of(tmp_path / "out", name)["score"].to_numpy() for name in diagnoses}
    assert pool.right(scores["combined"]) > max(pool.right(scores[name]) for name in "abc")


def test_combining_needs_two_raters_and_exact_mode(pool: Pool, tmp_path: Path) -> None:
    ratings, graph = ratings_of(tmp_path, "a", pool.scores), graph_of(tmp_path, pool)
    with pytest.raises(InputError, match="combine: the ratings are by a"):
        run(CurationSettings(combine=True), ratings=[ratings], neighbors=graph, out=tmp_path / "out")
    named = [ratings, ratings_of(tmp_path, "combined", pool.scores)]
    with pytest.raises(InputError, match="combine: the ratings are by a, combined"):
        run(CurationSettings(combine=True), ratings=named, neighbors=graph, out=tmp_path / "out")
    with pytest.raises(SettingsError, match="combine needs mode: exact"):
        parse(CurationSettings, {"combine": True, "mode": "paper"}, where="settings")


def test_a_rater_that_ignores_the_text_adds_nothing(pool: Pool) -> None:
    blind = np.random.default_rng(4).choice(6, len(pool.true)).astype(np.int8)
    results = {
        name: curate(scores, pool.indices, pool.distances, keep_evidence=True)
        for name, scores in (("good", pool.scores), ("blind", blind))
    }
    found = combine(results, 6, threshold=0)
    alone = combine({"good": results["good"]}, 6, threshold=0)
    assert found.diagnosis["warnings"] == [
        "nothing is taken from blind: its ratings and neighbours say next to nothing"
    ]
    assert pool.right(found.score) > pool.right(alone.score) - 0.02
    both_blind = combine({"a": results["blind"], "b": results["blind"]}, 6, threshold=0)
    assert (both_blind.score == blind).all()


def test_ratings_of_a_rater_that_ignores_the_text_stand_where_no_other_rated(pool: Pool) -> None:
    blind = np.random.default_rng(4).choice(6, len(pool.true)).astype(np.int8)
    alone = np.arange(4000) < 500
    results = {
        name: curate(scores, pool.indices, pool.distances, keep_evidence=True)
        for name, scores in (("good", np.where(alone, -1, pool.scores)), ("blind", blind))
    }
    found = combine(results, 6, threshold=0)
    np.testing.assert_array_equal(found.score[alone], blind[alone])
    assert not found.flagged[alone].any()
    assert np.isnan(found.error_probability[alone]).all()
    assert found.flagged[~alone].any()


def test_a_class_that_a_rater_does_not_give_in_one_source_is_found_there_by_the_others(pool: Pool) -> None:
    half = np.arange(4000) < 2000
    places = {"chat": np.flatnonzero(half), "code": np.flatnonzero(~half)}
    first, second, _ = raters_of(pool)
    given = {"low": np.where(half, np.minimum(first, 4), first), "full": second}
    results = {
        name: sources.curate(
            partial(curate, keep_evidence=True), s, pool.indices, pool.distances, places, classes=6, smallest=500
        )
        for name, s in given.items()
    }
    found = combine(results, 6, threshold=0)
    fives = half & (pool.true == 5)
    assert (found.score[fives] == 5).mean() > 0.7
    assert None not in found.diagnosis["p"]


def test_raters_that_share_no_class_in_a_source_spoil_nothing(pool: Pool) -> None:
    half = np.arange(4000) < 2000
    places = {"chat": np.flatnonzero(half), "code": np.flatnonzero(~half)}
    first, second, _ = raters_of(pool)
    given = {"low": np.where(half, np.minimum(first, 2), first), "high": np.where(half, np.maximum(second, 3), second)}
    results = {
        name: sources.curate(
            partial(curate, keep_evidence=True), s, pool.indices, pool.distances, places, classes=6, smallest=500
        )
        for name, s in given.items()
    }
    found = combine(results, 6, threshold=0)
    assert None not in found.diagnosis["p"]
    assert (found.score[~half] == pool.true[~half]).mean() > 0.8


def test_a_rater_that_gives_all_samples_one_rating_says_nothing_in_combination(pool: Pool) -> None:
    alone = np.arange(len(pool.scores)) < 100
    one = np.where(alone, 1, -1).astype(np.int8)
    other = np.where(alone, -1, pool.scores).astype(np.int8)
    arrays = (pool.indices, pool.distances)
    results = {name: curate(s, *arrays, keep_evidence=True) for name, s in (("one", one), ("other", other))}
    both = combine(results, 6, threshold=0.0)
    np.testing.assert_array_equal(both.score[alone], 1)
    assert "nothing is taken from one" in both.diagnosis["warnings"][0]
