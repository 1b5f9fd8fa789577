"""Sources whose ratings err differently."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError, SettingsError
from tamis.curation import guards, model, sources
from tamis.curation.arrays import Arrays
from tamis.curation.result import Curated
from tamis.curation.settings import CurationSettings
from tamis.curation.stage import run
from tests.artifacts import conversation, make_neighbors, make_ratings
from tests.artifacts import make_pool as write_pool
from tests.unit.curation.pools import Pool, T, make_pool, mixed_pool, nearest

N, RARE = 1200, 150
MIRRORED = T[::-1, ::-1]


def arrays_of(scores: np.ndarray, indices: np.ndarray, distances: np.ndarray, **more: np.ndarray) -> Arrays:
    return Arrays(scores.astype(np.int8)[:, None], indices, distances, **more)


def curate(arrays: Arrays) -> Curated:
    """As the stage does it; with neighbours taken to share their scores, so that small pools tell enough."""
    return model.curate(
        arrays.ratings,
        arrays.indices,
        arrays.distances,
        embeddings=arrays.embeddings,
        covariates=arrays.covariates,
        grades=arrays.grades,
        grade_weights=arrays.grade_weights,
        assume="clusterable",
    )


@pytest.fixture(scope="module")
def pool() -> Pool:
    """Half of the samples rated by one matrix, half by its mirror image."""
    one, other = make_pool(N, 64, seed=21), make_pool(N, 64, seed=22, T=MIRRORED)
    vectors = np.vstack([one.vectors, other.vectors])
    true, scores = np.append(one.true, other.true), np.append(one.scores, other.scores)
    return Pool(vectors, true, scores.astype(np.int8), *nearest(vectors, 32))


@pytest.fixture(scope="module")
def places() -> dict[str, np.ndarray]:
    return {"chat": np.arange(N), "code": np.arange(N, 2 * N - RARE), "rare": np.arange(2 * N - RARE, 2 * N)}


def test_a_matrix_per_source_is_nearer_to_each_and_no_worse(pool: Pool, places: dict[str, np.ndarray]) -> None:
    arrays = arrays_of(pool.scores, pool.indices, pool.distances)
    whole = curate(arrays)
    apart = sources.curate(curate, arrays, places, classes=6, smallest=500)
    assert pool.right(apart.score) > max(pool.right(whole.score) - 0.005, 0.95)
    found = apart.diagnosis["sources"]
    assert list(found) == ["chat", "code"]
    for name, rows in list(places.items())[:2]:
        fields = (array[rows] for array in (pool.vectors, pool.true, pool.scores, pool.indices, pool.distances))
        truth = Pool(*fields).realized()
        own = np.abs(np.array(found[name]["T"]) - truth).mean()
        assert own < 0.7 * np.abs(np.array(whole.diagnosis["T"]) - truth).mean()
        assert found[name]["difference"] > 0.01
        assert found[name]["own_share"] <= 0.1
        assert found[name]["counts"]["rated"] == len(places[name])
        assert found[name]["counts"]["unrated"] == 0
    for field in ("score", "flagged", "suggested", "confidence", "error_probability", "raw_error", "mean", "posterior"):
        np.testing.assert_array_equal(getattr(apart, field)[places["rare"]], getattr(whole, field)[places["rare"]])
        assert (getattr(apart, field)[places["chat"]] != getattr(whole, field)[places["chat"]]).any()
    assert apart.diagnosis["counts"]["corrected"] == (apart.score != pool.scores).sum()


def test_one_source_is_the_whole_pool(pool: Pool) -> None:
    arrays = arrays_of(pool.scores[:N], *nearest(pool.vectors[:N], 16))
    whole = curate(arrays)
    apart = sources.curate(curate, arrays, {"only": np.arange(N)}, classes=6, smallest=200)
    np.testing.assert_array_equal(apart.score, whole.score)
    assert apart.diagnosis["sources"] == {}


def test_a_source_is_curated_as_if_it_were_alone(pool: Pool) -> None:
    """Each sample has all its neighbours in its own source, so nothing is lost by the others' absence."""
    one, other = (nearest(pool.vectors[part], 16) for part in (slice(None, N), slice(N, None)))
    graph = np.vstack([one[0], other[0] + N]), np.vstack([one[1], other[1]])
    graded = np.where(np.arange(2 * N) % 20 == 0, pool.true, -1).astype(np.int8)
    apart = sources.curate(
        curate,
        arrays_of(pool.scores, *graph, grades=graded),
        {"a": np.arange(N), "b": np.arange(N, 2 * N)},
        classes=6,
        smallest=200,
    )
    alone = curate(arrays_of(pool.scores[:N], *one, grades=graded[:N]))
    np.testing.assert_array_equal(apart.score[:N], alone.score)
    np.testing.assert_allclose(apart.error_probability[:N], alone.error_probability, atol=1e-5)


def test_the_stage_takes_sources_from_the_pool(pool: Pool, tmp_path: Path) -> None:
    names = ["chat"] * N + ["code"] * N
    samples = [conversation(f"question {number}", f"answer {number}") for number in range(2 * N)]
    ids = Artifact.open(write_pool(tmp_path / "pool", samples, source=names), "pool").table()["id"].to_pylist()
    ratings = make_ratings(tmp_path / "ratings", "r", ids, (pool.scores + 4).tolist())
    graph = make_neighbors(tmp_path / "neighbors", ids, pool.indices, pool.distances)
    settings = CurationSettings(per_source=500)
    run(settings, ratings=[ratings], neighbors=graph, pool=tmp_path / "pool", out=tmp_path / "out")
    diagnosis = json.loads((tmp_path / "out/diagnosis.json").read_text())["r"]
    assert diagnosis["sources"]["code"]["counts"]["rated"] == N
    with pytest.raises(SettingsError, match="per_source"):
        run(settings, ratings=[ratings], neighbors=graph, out=tmp_path / "no-pool")
    write_pool(tmp_path / "other", samples[1:])
    with pytest.raises(InputError, match="1 of the graph's 2400 samples are not in this pool"):
        run(settings, ratings=[ratings], neighbors=graph, pool=tmp_path / "other", out=tmp_path / "wrong-pool")
    with pytest.raises(ValueError, match="per_source needs mode: exact"):
        CurationSettings(per_source=1000, mode="paper")


def shuffled(pool: Pool, rows: slice) -> np.ndarray:
    scores = pool.scores.copy()
    scores[rows] = np.random.default_rng(3).permutation(scores[rows])
    return scores


def test_a_source_that_says_nothing_by_itself_is_curated_with_all(pool: Pool) -> None:
    """One source's ratings follow nothing; the other's are corrected as they were, and so is what rests on all."""
    scores = shuffled(pool, slice(N, None))
    places = {"chat": np.arange(N), "code": np.arange(N, 2 * N)}
    arrays = arrays_of(scores, pool.indices, pool.distances)
    whole = curate(arrays)
    apart = sources.curate(curate, arrays, places, classes=6, smallest=200)
    found = apart.diagnosis["sources"]
    assert (found["chat"]["explained"], found["code"]["explained"]) == (True, False)
    for field in ("score", "flagged", "suggested", "confidence", "error_probability"):
        np.testing.assert_array_equal(getattr(apart, field)[N:], getattr(whole, field)[N:])
    assert any(warning.startswith("source code: ") for warning in apart.diagnosis["warnings"])
    assert found["code"]["counts"]["corrected"] == (apart.score[N:] != scores[N:]).sum()


def test_a_source_speaks_where_all_together_say_nothing(pool: Pool, places: dict[str, np.ndarray]) -> None:
    def reluctant(arrays: Arrays) -> Curated:
        """Says nothing of all samples together."""
        found = curate(arrays)
        if len(arrays) < 2 * N:
            return found
        nothing = np.full_like(found.confidence, np.nan)
        silent = {"explained": False, "reasons": ["too mixed"], "warnings": ["too mixed", "another"]}
        return replace(found, score=found.raw.copy(), confidence=nothing, diagnosis=found.diagnosis | silent)

    apart = sources.curate(
        reluctant, arrays_of(pool.scores, pool.indices, pool.distances), places, classes=6, smallest=1100
    )
    chat = places["chat"]
    assert apart.diagnosis["sources"]["chat"]["explained"]
    assert list(apart.diagnosis["sources"]) == ["chat"]
    assert (apart.score[chat] == pool.true[chat]).mean() > (pool.scores[chat] == pool.true[chat]).mean() + 0.2
    np.testing.assert_array_equal(apart.score[N:], pool.scores[N:])
    assert np.isnan(apart.confidence[N:]).all()
    assert not np.isnan(apart.confidence[chat]).any()
    warnings = apart.diagnosis["warnings"]
    assert "too mixed" not in warnings
    assert "another" in warnings
    assert any("were corrected (chat)" in warning for warning in warnings)


@pytest.mark.parametrize("number", [25, 100])
def test_held_out_grades_judge_what_was_written(number: int) -> None:
    """One source tells its rater's errors, the other does not; grades are of both or of the first alone."""
    one, other = (
        mixed_pool(500, seed=1, own=0.05, rater="near", d=64),
        mixed_pool(700, seed=51, own=0.9, rater="near", d=64),
    )
    vectors = np.vstack([one.vectors, other.vectors])
    true, ratings = np.append(one.true, other.true), np.vstack([one.ratings, other.ratings])
    graded = np.random.default_rng(0).permutation(500 if number < 30 else 1200)[:number]
    grades = np.full(1200, -1, np.int8)
    grades[graded] = true[graded]
    arrays = arrays_of(ratings[:, 0], *nearest(vectors, 32), grades=grades)

    def cautious(some: Arrays) -> Curated:
        return model.curate(some.ratings, some.indices, some.distances, grades=some.grades)

    places = {"one": np.arange(500), "other": np.arange(500, 1200)}
    result = sources.curate(cautious, arrays, places, classes=6, smallest=200)
    assert result.diagnosis["sources"]["one"]["explained"]
    held_out = result.held_out
    assert held_out is not None
    np.testing.assert_array_equal(held_out.graded, np.sort(graded))
    said = result.diagnosis["held_out"]["right"]["curated"]["classical"]["value"]
    assert said == pytest.approx((held_out.score == grades[held_out.graded]).mean())
    ungraded = np.setdiff1d(np.arange(500 if number < 30 else 1200), graded)
    assert said == pytest.approx((result.score == true)[ungraded].mean(), abs=0.15)
    assert (result.score != result.raw)[grades < 0].any()
    assert not [warning for warning in result.diagnosis["warnings"] if warning == guards.NOT_NEARER]
