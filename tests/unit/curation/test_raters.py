"""Several raters together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tamis.core.errors import InputError, SettingsError
from tamis.core.settings import parse
from tamis.curation import curate
from tamis.curation.raters import agreement, compare, dawid_skene
from tamis.curation.settings import CurationSettings
from tamis.curation.stage import run
from tests.unit.curation.pools import P, Pool, T, draw_ratings, make_pool
from tests.unit.curation.test_stage import graph_of, ratings_of, rows_of

N = 900
OTHERS = [0.5 * np.eye(6) + 0.5 / 6, 0.8 * T + 0.2 * P]


@pytest.fixture(scope="module")
def pool() -> Pool:
    return make_pool(N, 64, seed=41, size=8)


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


def test_raters_without_a_sample_in_common_are_not_compared_and_still_combined(pool: Pool) -> None:
    thirds = np.arange(N) * 3 // N
    given = [np.where(thirds == i, scores, -1).astype(np.int8) for i, scores in enumerate(raters_of(pool))]
    results = {str(i): curate(scores, pool.indices, pool.distances) for i, scores in enumerate(given)}
    compare(results, 6)
    nothing = {"samples": 0, "exact": None, "within_one": None, "correlation": None}
    assert results["0"].diagnosis["agreement"]["1"]["raw"] == nothing
    assert "check_by_raters" not in results["0"].diagnosis
    together = curate(np.stack(given, axis=1), pool.indices, pool.distances)
    assert (together.raw >= 0).all()
    assert pool.right(together.score) >= pool.right(together.raw) - 0.01


def test_each_rater_is_compared_with_the_others_and_its_t_checked(pool: Pool) -> None:
    results = {str(i): curate(scores, pool.indices, pool.distances) for i, scores in enumerate(raters_of(pool))}
    compare(results, 6)
    found = results["0"].diagnosis
    assert list(found["agreement"]) == ["1", "2"]
    raw, curated = found["agreement"]["1"]["raw"], found["agreement"]["1"]["curated"]
    assert curated["exact"] > raw["exact"] + 0.08
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
    given = [ratings_of(tmp_path, name, scores) for name, scores in zip("abc", raters_of(pool), strict=True)]
    manifest = run(
        CurationSettings(combine=True, posterior=True),
        ratings=given,
        neighbors=graph_of(tmp_path, pool),
        out=tmp_path / "out",
    )
    assert manifest.rows == 4 * N
    assert manifest.facts["raters"] == 3
    diagnoses = json.loads((tmp_path / "out/diagnosis.json").read_text())
    assert list(diagnoses) == ["a", "b", "c", "combined"]
    assert "check_by_raters" in diagnoses["a"]
    combined = diagnoses["combined"]
    assert combined["raters"] == ["a", "b", "c"]
    assert list(combined["rater_T"]) == ["a", "b", "c"]
    for matrix in combined["rater_T"].values():
        np.testing.assert_allclose(np.sum(matrix, axis=1), 1, atol=1e-6)
    assert "T_by_rater" not in combined
    table = rows_of(tmp_path / "out", "combined")
    together = curate(np.stack(raters_of(pool), axis=1), pool.indices, pool.distances)
    np.testing.assert_array_equal(table["score"].to_numpy(), together.score)
    np.testing.assert_allclose(table["mean"].to_numpy(), together.mean, atol=1e-6)
    np.testing.assert_array_equal(table["raw_score"].to_numpy(), together.raw)
    assert pool.right(together.score) > pool.right(together.raw) + 0.2
    assert pool.right(together.score) > pool.right(rows_of(tmp_path / "out", "a")["score"].to_numpy())


def test_combining_needs_two_raters_and_exact_mode(pool: Pool, tmp_path: Path) -> None:
    ratings, graph = ratings_of(tmp_path, "a", pool.scores), graph_of(tmp_path, pool)
    with pytest.raises(InputError, match="combine: the ratings are by a"):
        run(CurationSettings(combine=True), ratings=[ratings], neighbors=graph, out=tmp_path / "out")
    named = [ratings, ratings_of(tmp_path, "combined", pool.scores)]
    with pytest.raises(InputError, match="combine: the ratings are by a, combined"):
        run(CurationSettings(combine=True), ratings=named, neighbors=graph, out=tmp_path / "out")
    with pytest.raises(SettingsError, match="combine needs mode: exact"):
        parse(CurationSettings, {"combine": True, "mode": "paper"}, where="settings")
