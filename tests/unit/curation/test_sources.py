"""Sources whose ratings err differently."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError, SettingsError
from tamis.curation import exact, sources
from tamis.curation.raters import combine
from tamis.curation.settings import CurationSettings
from tamis.curation.stage import run
from tests.artifacts import conversation, make_neighbors, make_ratings
from tests.artifacts import make_pool as write_pool
from tests.unit.curation.pools import Pool, T, make_pool, nearest

N, RARE = 2500, 300
MIRRORED = T[::-1, ::-1]


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


def test_a_matrix_per_source_is_nearer_to_each_and_corrects_more(pool: Pool, places: dict[str, np.ndarray]) -> None:
    arrays = (pool.scores, pool.indices, pool.distances)
    whole = exact.curate(*arrays)
    apart = sources.curate(exact.curate, *arrays, places, classes=6, smallest=1000)
    assert pool.right(apart.score) > pool.right(whole.score) + 0.005
    found = apart.diagnosis["sources"]
    assert list(found) == ["chat", "code"]
    for name, rows in list(places.items())[:2]:
        arrays_of = (array[rows] for array in (pool.vectors, pool.true, pool.scores, pool.indices, pool.distances))
        truth = Pool(*arrays_of).realized()
        own = np.abs(np.array(found[name]["T"]) - truth).mean()
        assert own < 0.5 * np.abs(np.array(whole.diagnosis["T"]) - truth).mean()
        assert found[name]["difference"] > 0.01
        assert found[name]["counts"]["rated"] == len(places[name])
        assert found[name]["counts"]["unrated"] == 0
    for field in ("score", "flagged", "suggested", "confidence", "error_probability"):
        one, other = getattr(apart, field), getattr(exact.curate(*arrays), field)
        np.testing.assert_array_equal(one[places["rare"]], other[places["rare"]])
    assert apart.diagnosis["counts"]["corrected"] == (apart.score != pool.scores).sum()


def test_one_source_is_the_whole_pool(pool: Pool) -> None:
    arrays = (pool.scores[:N], *nearest(pool.vectors[:N], 16))
    whole = exact.curate(*arrays)
    apart = sources.curate(exact.curate, *arrays, {"only": np.arange(N)}, classes=6, smallest=200)
    np.testing.assert_array_equal(apart.score, whole.score)
    assert apart.diagnosis["sources"] == {}


def test_a_source_is_curated_as_if_it_were_alone(pool: Pool) -> None:
    """Each sample has all its neighbours in its own source, so nothing is lost by the others' absence."""
    one, other = (nearest(pool.vectors[part], 16) for part in (slice(None, N), slice(N, None)))
    graph = np.vstack([one[0], other[0] + N]), np.vstack([one[1], other[1]])
    apart = sources.curate(
        exact.curate, pool.scores, *graph, {"a": np.arange(N), "b": np.arange(N, 2 * N)}, classes=6, smallest=200
    )
    alone = exact.curate(pool.scores[:N], *one)
    np.testing.assert_array_equal(apart.score[:N], alone.score)
    np.testing.assert_allclose(apart.error_probability[:N], alone.error_probability, atol=1e-6)


def test_the_stage_takes_sources_from_the_pool(pool: Pool, tmp_path: Path) -> None:
    names = ["chat"] * N + ["code"] * N
    samples = [conversation(f"question {number}", f"answer {number}") for number in range(2 * N)]
    ids = Artifact.open(write_pool(tmp_path / "pool", samples, source=names), "pool").table()["id"].to_pylist()
    ratings = make_ratings(tmp_path / "ratings", "r", ids, (pool.scores + 4).tolist())
    graph = make_neighbors(tmp_path / "neighbors", ids, pool.indices, pool.distances)
    settings = CurationSettings(per_source=1000)
    run(settings, ratings=[ratings], neighbors=graph, pool=tmp_path / "pool", out=tmp_path / "out")
    diagnosis = json.loads((tmp_path / "out/diagnosis.json").read_text())["r"]
    assert diagnosis["sources"]["code"]["counts"]["rated"] == N
    with pytest.raises(SettingsError, match="per_source needs to know each sample's source"):
        run(settings, ratings=[ratings], neighbors=graph, out=tmp_path / "no-pool")
    write_pool(tmp_path / "other", samples[1:])
    with pytest.raises(InputError, match="1 of the graph's 5000 samples are not in this pool"):
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
    whole = exact.curate(scores, pool.indices, pool.distances, keep_evidence=True)
    curate = partial(exact.curate, keep_evidence=True)
    apart = sources.curate(curate, scores, pool.indices, pool.distances, places, classes=6, smallest=200)
    found = apart.diagnosis["sources"]
    assert (found["chat"]["explained"], found["code"]["explained"]) == (True, False)
    for field in ("score", "flagged", "suggested", "confidence", "error_probability", "evidence"):
        np.testing.assert_array_equal(getattr(apart, field)[N:], getattr(whole, field)[N:])
    assert any(warning.startswith("source code: by themselves") for warning in apart.diagnosis["warnings"])
    assert found["code"]["counts"]["corrected"] == (apart.score[N:] != scores[N:]).sum()


def test_a_source_speaks_where_all_together_say_nothing() -> None:
    small = make_pool(600, 32, seed=31)
    rng = np.random.default_rng(32)
    n, k = 20_600, 16
    scores = np.append(small.scores, rng.integers(0, 6, n - 600)).astype(np.int8)
    own = nearest(small.vectors, k)
    indices = np.vstack([own[0], rng.integers(600, n, (n - 600, k))])
    distances = np.vstack([own[1], np.sort(rng.random((n - 600, k)), axis=1).astype(np.float32)])
    places = {"clear": np.arange(600), "noise": np.arange(600, n)}
    curate = partial(exact.curate, keep_evidence=True)
    apart = sources.curate(curate, scores, indices, distances, places, classes=6, smallest=200)
    assert not curate(scores, indices, distances).diagnosis["explained"]
    assert apart.diagnosis["sources"]["clear"]["explained"]
    assert (apart.score[:600] == small.true).mean() > (scores[:600] == small.true).mean() + 0.2
    np.testing.assert_array_equal(apart.score[600:], scores[600:])
    warnings = apart.diagnosis["warnings"]
    assert exact.NOTHING_SAID not in warnings
    assert any("were corrected (clear)" in warning for warning in warnings)
    # Several raters' combination takes what is known of the one source, and nothing of the other.
    both = combine({"a": apart, "b": apart}, 6, threshold=0.0)
    assert both.diagnosis["warnings"] == []
    np.testing.assert_array_equal(both.score[600:], scores[600:])
    assert np.isnan(both.confidence[600:]).all()
    assert (both.score[:600] == small.true).mean() > (scores[:600] == small.true).mean() + 0.2
