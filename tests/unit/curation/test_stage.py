"""The curation stage on artifacts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kfp import dsl
from pydantic import Field

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError, SettingsError
from tamis.core.ids import pack
from tamis.core.samples import Message, sample_id
from tamis.core.settings import StageSettings, parse
from tamis.core.steps import Step, run_step
from tamis.core.storage import link_tree
from tamis.core.tables import CURATION, RATINGS, PartsWriter, curation_with_posterior
from tamis.curation import curate as on_arrays
from tamis.curation.component import curate
from tamis.curation.explaining import ADD_A_RATER
from tamis.curation.result import Curated
from tamis.curation.settings import CurationSettings, GradesSettings
from tamis.curation.stage import run
from tamis.curation.writing import _write
from tests.artifacts import conversation, make, make_embeddings, make_neighbors, make_ratings
from tests.artifacts import make_pool as write_pool
from tests.unit.curation.pools import Pool, draw_ratings, make_pool, nearest

RATINGS_OF_CLASSES = np.array([4, 5, 6, 7, 8, 9])


@pytest.fixture(scope="module")
def pool() -> Pool:
    return make_pool(1200, 32, seed=11)


def names(n: int) -> list[str]:
    return [f"{i * 7919:032x}" for i in range(n)]


def ratings_of(folder: Path, rater: str, scores: np.ndarray, ids: list[str] | None = None) -> Path:
    values = [int(RATINGS_OF_CLASSES[s]) if s >= 0 else None for s in scores]
    return make_ratings(folder / rater, rater, ids or names(len(scores)), values)


def graph_of(folder: Path, pool: Pool) -> Path:
    return make_neighbors(folder / "neighbors", names(len(pool.true)), pool.indices, pool.distances)


def rows_of(out: Path, rater: str = "r") -> pa.Table:
    table = Artifact.open(out, "curation").table()
    return table.filter(pa.compute.equal(table["rater"], rater))


class Asked(StageSettings):
    """What curation reads of a rater's settings."""

    OUTPUT_REVISION: ClassVar[int] = 1

    temperature: float = 0.0
    seed: int = 0
    store: str | None = None
    backend: dict[str, str] = Field({})


@pytest.mark.parametrize(
    ("one", "other", "model", "differ"),
    [
        (Asked(), Asked(), "m", False),
        (Asked(), Asked(seed=1), "m", False),
        (Asked(temperature=1), Asked(temperature=1, seed=1), "m", True),
        (Asked(), Asked(backend={"base_url": "http://there/v1"}), "m", True),
        (Asked(store="s"), Asked(store="s", backend={"base_url": "http://there/v1"}), "m", False),
        (Asked(), Asked(), "n", True),
    ],
)
def test_ratings_of_two_raters_that_share_their_answers_are_refused(
    one: Asked, other: Asked, model: str, differ: bool, pool: Pool, tmp_path: Path
) -> None:
    graph, ids = graph_of(tmp_path, pool), names(len(pool.true))
    values = [int(RATINGS_OF_CLASSES[score]) for score in pool.scores]

    def ratings(name: str, asked: Asked, model: str) -> Path:
        def write(step: Step[Asked]) -> None:
            kept = Artifact.open(make_ratings(tmp_path / f"{name}-made", name, ids, values))
            link_tree(kept.folder, step.out)
            (step.out / "manifest.json").unlink()
            step.rows = kept.manifest.rows
            step.facts |= {"prompt": {"hash": "p"}, "backend": {"model": model}}

        run_step("rating", "ratings", asked, write, out=tmp_path / name, name=name)
        return tmp_path / name

    given = [ratings("a", one, "m"), ratings("b", other, model)]
    if differ:
        assert run(CurationSettings(), ratings=given, neighbors=graph, out=tmp_path / "out").facts["raters"] == 2
        return
    with pytest.raises(SettingsError) as raised:
        run(CurationSettings(), ratings=given, neighbors=graph, out=tmp_path / "out")
    assert raised.value.code == "settings"
    assert "'a' and 'b'" in raised.value.problem


def test_combined_scores_are_no_ratings_that_are_counted(pool: Pool, tmp_path: Path) -> None:
    other = draw_ratings(pool.true, np.full((6, 6), 0.08) + 0.52 * np.eye(6), np.random.default_rng(5))
    ratings = [ratings_of(tmp_path, "a", pool.scores), ratings_of(tmp_path, "b", other)]
    facts = run(
        CurationSettings(combine=True), ratings=ratings, neighbors=graph_of(tmp_path, pool), out=tmp_path / "out"
    ).facts
    tables = [rows_of(tmp_path / "out", rater) for rater in ("a", "b")]
    changed = sum((table["score"].to_numpy() != table["raw_score"].to_numpy()).sum() for table in tables)
    assert (facts["rated"], facts["corrected"]) == (2400, changed)
    assert len(rows_of(tmp_path / "out", "combined")) == 1200
    diagnoses = json.loads((tmp_path / "out/diagnosis.json").read_text())
    assert not any(ADD_A_RATER in found["advice"] for found in diagnoses.values())


def test_the_artifact_holds_curated_scores_and_a_diagnosis(pool: Pool, tmp_path: Path) -> None:
    ratings, graph = ratings_of(tmp_path, "r", pool.scores), graph_of(tmp_path, pool)
    manifest = run(CurationSettings(), ratings=[ratings], neighbors=graph, out=tmp_path / "out")
    table = rows_of(tmp_path / "out")
    assert table.schema.equals(CURATION)
    assert table["id"].to_pylist() == names(1200)
    assert table["raw_score"].to_pylist() == pool.scores.tolist()
    score = table["score"].to_numpy()
    assert pool.right(score) > pool.right(pool.scores) + 0.2
    expected = np.tanh(pool.distances[:, :10].mean(1, dtype=np.float64) / 2)
    np.testing.assert_allclose(table["diversity"].to_numpy(), expected, atol=1e-6)
    diagnosis = json.loads((tmp_path / "out/diagnosis.json").read_text())["r"]
    assert diagnosis["mode"] == "exact"
    counts = diagnosis["counts"]
    assert counts["rated"] == manifest.facts["rated"] == 1200
    assert counts["corrected"] == manifest.facts["corrected"] == (score != pool.scores).sum()
    assert counts["flagged"] == manifest.facts["flagged"] == table["flagged"].to_numpy(zero_copy_only=False).sum()
    assert counts["raw_by_class"] == np.bincount(pool.scores, minlength=6).tolist()
    assert counts["curated_by_class"] == np.bincount(score, minlength=6).tolist()
    confusion = np.zeros((6, 6), int)
    np.add.at(confusion, (pool.scores, score), 1)
    assert diagnosis["confusion"] == confusion.tolist()
    assert {"T", "p", "observed_prior", "predictive_log_likelihood", "sensitivity", "own_share"} <= diagnosis.keys()
    assert diagnosis["held_out"] is None
    assert diagnosis["regression"] is None


def test_the_most_confident_corrections_are_kept_with_their_neighbours(pool: Pool, tmp_path: Path) -> None:
    ids, settings = names(len(pool.true)), CurationSettings(confidence=0.3)
    ratings = [ratings_of(tmp_path, "r", pool.scores)]
    run(settings, ratings=ratings, neighbors=graph_of(tmp_path, pool), out=tmp_path / "out")
    rows = rows_of(tmp_path / "out").to_pylist()
    changed = [row for row in rows if row["score"] != row["raw_score"]]
    best = sorted(changed, key=lambda row: (-row["confidence"], row["id"]))[:100]
    found = pq.read_table(tmp_path / "out" / "corrections.parquet").to_pylist()
    assert len(changed) > 100
    assert [row["id"] for row in found] == [row["id"] for row in best]
    place = ids.index(found[7]["id"])
    assert [near["id"] for near in found[7]["neighbors"]] == [ids[i] for i in pool.indices[place, :5]]
    assert [near["raw_score"] for near in found[7]["neighbors"]] == pool.scores[pool.indices[place, :5]].tolist()
    assert [near["distance"] for near in found[7]["neighbors"]] == pool.distances[place, :5].tolist()


def test_several_raters_are_curated_each_by_itself(pool: Pool, tmp_path: Path) -> None:
    other = draw_ratings(pool.true, np.eye(6) * 0.4 + 0.1, np.random.default_rng(5))
    given = [ratings_of(tmp_path, "first", pool.scores), ratings_of(tmp_path, "second", other)]
    graph = graph_of(tmp_path, pool)
    manifest = run(CurationSettings(), ratings=given, neighbors=graph, out=tmp_path / "both")
    run(CurationSettings(), ratings=given[1:], neighbors=graph, out=tmp_path / "one")
    assert manifest.rows == 2400
    assert rows_of(tmp_path / "both", "second").equals(rows_of(tmp_path / "one", "second"))
    assert list(json.loads((tmp_path / "both/diagnosis.json").read_text())) == ["first", "second"]


def test_ratings_in_another_order_and_of_other_samples_are_joined_by_id(pool: Pool, tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(1200)
    left_out, ids = order[:100], names(1200)
    shuffled = ratings_of(
        tmp_path, "r", np.append(pool.scores[order[100:]], [0, 5]), [ids[i] for i in order[100:]] + ["e" * 32, "f" * 32]
    )
    manifest = run(CurationSettings(), ratings=[shuffled], neighbors=graph_of(tmp_path, pool), out=tmp_path / "out")
    raw = rows_of(tmp_path / "out")["raw_score"].to_pylist()
    assert [raw[i] for i in left_out] == [None] * 100
    assert [raw[i] for i in order[100:]] == pool.scores[order[100:]].tolist()
    assert manifest.facts["unknown_ratings"] == 2
    assert any("2 ratings are of samples" in warning for warning in manifest.facts["warnings"]["r"])


def test_a_sample_without_a_rating_has_nulls_and_a_suggestion(pool: Pool, tmp_path: Path) -> None:
    scores = np.where(np.arange(1200) < 50, -1, pool.scores)
    ratings, graph = ratings_of(tmp_path, "r", scores), graph_of(tmp_path, pool)
    manifest = run(CurationSettings(), ratings=[ratings], neighbors=graph, out=tmp_path / "out")
    first = rows_of(tmp_path / "out").slice(0, 50)
    assert manifest.facts["unrated"] == 50
    for column in ("raw_score", "score", "error_probability"):
        assert first[column].null_count == 50
    assert first["suggested"].null_count == first["confidence"].null_count == 0
    filled = run(CurationSettings(fill_missing=True), ratings=[ratings], neighbors=graph, out=tmp_path / "filled")
    assert filled.facts["filled"] == 50
    assert rows_of(tmp_path / "filled")["score"].to_pylist()[:50] == first["suggested"].to_pylist()


def write_ratings(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    def write(step: Any) -> None:
        with PartsWriter(step.out, RATINGS) as parts:
            parts.write_rows({"rater": name, "status": "ok", "attempts": 1} | row for row in rows)
        step.rows = parts.rows

    make("ratings", folder / name, write, name=name)
    return folder / name


def test_a_rating_of_twelve_is_refused_with_its_id(pool: Pool, tmp_path: Path) -> None:
    rows = [{"id": name, "overall": 12 if name == names(1200)[33] else 5} for name in names(1200)]
    ratings = write_ratings(tmp_path, "r", rows)
    with pytest.raises(
        InputError, match=rf"rater 'r' gave sample {names(1200)[33]} the value 12 in 'overall'; 1 values"
    ):
        run(CurationSettings(), ratings=[ratings], neighbors=graph_of(tmp_path, pool), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_sample_rated_twice_is_refused_with_its_id(pool: Pool, tmp_path: Path) -> None:
    rows = [{"id": name, "overall": 5} for name in [*names(1200), names(1200)[8]]]
    ratings = write_ratings(tmp_path, "r", rows)
    with pytest.raises(InputError, match=rf"rater 'r' rated sample {names(1200)[8]} 2 times; 1 samples"):
        run(CurationSettings(), ratings=[ratings], neighbors=graph_of(tmp_path, pool), out=tmp_path / "out")


def test_one_rater_given_twice_is_refused(pool: Pool, tmp_path: Path) -> None:
    ratings = ratings_of(tmp_path, "r", pool.scores)
    with pytest.raises(InputError, match="2 of the given ratings are by the rater 'r'"):
        run(CurationSettings(), ratings=[ratings, ratings], neighbors=graph_of(tmp_path, pool), out=tmp_path / "out")


def test_no_ratings_are_refused(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no ratings were given"):
        run(CurationSettings(), ratings=[], neighbors=graph_of(tmp_path, pool), out=tmp_path / "out")


def test_failed_ratings_are_no_low_scores(pool: Pool, tmp_path: Path) -> None:
    rows = [
        {"id": name, "overall": None, "status": "unparsable"} if i < 300 else {"id": name, "overall": int(score) + 4}
        for i, (name, score) in enumerate(zip(names(1200), pool.scores, strict=True))
    ]
    ratings = write_ratings(tmp_path, "r", rows)
    manifest = run(CurationSettings(), ratings=[ratings], neighbors=graph_of(tmp_path, pool), out=tmp_path / "out")
    assert manifest.facts["unrated"] == 300
    diagnosis = json.loads((tmp_path / "out/diagnosis.json").read_text())["r"]
    assert diagnosis["counts"]["raw_by_class"] == np.bincount(pool.scores[300:], minlength=6).tolist()


def test_a_rater_of_whom_nothing_is_usable_is_refused(pool: Pool, tmp_path: Path) -> None:
    ratings = ratings_of(tmp_path, "r", np.full(1200, -1))
    with pytest.raises(InputError, match="the rater 'r' has no sample with a value in 'overall'"):
        run(CurationSettings(), ratings=[ratings], neighbors=graph_of(tmp_path, pool), out=tmp_path / "out")


def test_expected_ratings_are_rounded_half_up(pool: Pool, tmp_path: Path) -> None:
    rows = [
        {"id": name, "overall": 1, "expected": float(score) + 3.5 + (i % 2) * 0.9}
        for i, (name, score) in enumerate(zip(names(1200), pool.scores, strict=True))
    ]
    ratings = write_ratings(tmp_path, "r", rows)
    graph = graph_of(tmp_path, pool)
    run(CurationSettings(value="expected"), ratings=[ratings], neighbors=graph, out=tmp_path / "out")
    assert rows_of(tmp_path / "out")["raw_score"].to_pylist() == pool.scores.tolist()


def test_expected_ratings_that_are_absent_are_refused(pool: Pool, tmp_path: Path) -> None:
    ratings = ratings_of(tmp_path, "r", pool.scores)
    with pytest.raises(InputError, match="no sample with a value in 'expected'"):
        run(
            CurationSettings(value="expected"),
            ratings=[ratings],
            neighbors=graph_of(tmp_path, pool),
            out=tmp_path / "out",
        )


def test_other_classes_can_be_chosen(pool: Pool, tmp_path: Path) -> None:
    ratings, graph = ratings_of(tmp_path, "r", pool.scores), graph_of(tmp_path, pool)
    settings = CurationSettings(lowest=5, highest=7)
    run(settings, ratings=[ratings], neighbors=graph, out=tmp_path / "out")
    raw = rows_of(tmp_path / "out")["raw_score"].to_pylist()
    assert raw == np.clip(pool.scores - 1, 0, 2).tolist()


@pytest.mark.parametrize("mode", ["paper", "reference"])
def test_the_other_modes_run_and_say_which_they_are(pool: Pool, tmp_path: Path, mode: str) -> None:
    ratings, graph = ratings_of(tmp_path, "r", pool.scores), graph_of(tmp_path, pool)
    settings = parse(CurationSettings, {"mode": mode, "diversity": "reference"}, where="settings")
    manifest = run(settings, ratings=[ratings], neighbors=graph, out=tmp_path / "out")
    diagnosis = json.loads((tmp_path / "out/diagnosis.json").read_text())["r"]
    assert (diagnosis["mode"], diagnosis["confidence"]) == (mode, 0.5)
    assert manifest.facts["corrected"] == diagnosis["counts"]["corrected"] > 0
    diversity = rows_of(tmp_path / "out")["diversity"].to_numpy()
    np.testing.assert_allclose(diversity, np.round(diversity.astype(float), 4), atol=1e-7)


@pytest.mark.parametrize("mode", ["exact", "paper", "reference"])
def test_where_a_mode_gives_no_mean_it_is_the_score(pool: Pool, tmp_path: Path, mode: str) -> None:
    scores = np.where(np.arange(1200) < 50, -1, pool.scores)
    ratings, graph = ratings_of(tmp_path, "r", scores), graph_of(tmp_path, pool)
    settings = parse(CurationSettings, {"mode": mode}, where="settings")
    run(settings, ratings=[ratings], neighbors=graph, out=tmp_path / "out")
    table = rows_of(tmp_path / "out")
    assert table.schema.equals(CURATION)
    if mode != "exact":
        assert table["mean"].to_pylist() == table["score"].to_pylist()
    means = table["mean"].to_numpy()
    assert not np.isnan(means[50:]).any()
    assert ((means[50:] >= 0) & (means[50:] <= 5)).all()


def curated(score: list[int], **found: Any) -> Curated:
    scores, n = np.array(score, np.int8), len(score)
    floats = np.full(n, np.nan, np.float32)
    return Curated(scores, scores, np.zeros(n, bool), scores, floats, floats, floats, **found)


def written(folder: Path, result: Curated, classes: int | None) -> pa.Table:
    schema = CURATION if classes is None else curation_with_posterior(classes)
    ids, diversity = pack(pa.array(names(len(result.raw))), where="here"), np.zeros(len(result.raw), np.float32)
    with PartsWriter(folder / "table", schema) as table:
        _write(table, ids, "r", result, diversity, classes)
    read = pq.read_table(folder / "table" / "part-00000.parquet")
    assert read.schema.equals(schema)
    return read


def test_means_are_written_and_where_there_is_none_the_score(tmp_path: Path) -> None:
    means = np.array([0.5, np.nan, np.nan, 4.75], np.float32)
    table = written(tmp_path, curated([1, 2, -1, -1], mean=means), None)
    assert table["mean"].to_pylist() == [0.5, 2, None, 4.75]
    assert "posterior" not in table.column_names


def test_a_posterior_is_a_list_of_floats_or_null(tmp_path: Path) -> None:
    posterior = np.array([[0.25, 0.75, 0], [np.nan] * 3, [0, 0.5, 0.5]], np.float32)
    table = written(tmp_path, curated([1, 2, -1], posterior=posterior), 3)
    assert table["posterior"].to_pylist() == [[0.25, 0.75, 0], None, [0, 0.5, 0.5]]
    assert table.schema.field("posterior").type == pa.list_(pa.float32(), 3)


def test_a_posterior_that_a_rater_lacks_is_null(tmp_path: Path) -> None:
    assert written(tmp_path, curated([1, 2]), 3)["posterior"].null_count == 2


def test_posteriors_are_in_the_table_when_asked_for(pool: Pool, tmp_path: Path) -> None:
    ratings, graph = ratings_of(tmp_path, "r", pool.scores), graph_of(tmp_path, pool)
    settings = CurationSettings(posterior=True, lowest=5)
    run(settings, ratings=[ratings], neighbors=graph, out=tmp_path / "out")
    table = rows_of(tmp_path / "out")
    assert table.schema.equals(curation_with_posterior(5))
    posterior = np.stack(table["posterior"].to_pylist())
    np.testing.assert_allclose(posterior.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(posterior @ np.arange(5), table["mean"].to_numpy(), atol=1e-5)
    np.testing.assert_allclose(posterior[np.arange(1200), table["score"].to_numpy()], table["confidence"].to_numpy())


def test_embeddings_enter_the_model_in_whatever_order_they_are(pool: Pool, tmp_path: Path) -> None:
    ratings, graph = ratings_of(tmp_path, "r", pool.scores), graph_of(tmp_path, pool)
    order, ids = np.random.default_rng(0).permutation(1200), names(1200)
    # One vector more than the graph has, which is left out.
    more = np.vstack([pool.vectors[order], pool.vectors[:1]])
    same = make_embeddings(tmp_path / "same", ids, pool.vectors)
    other = make_embeddings(tmp_path / "other", [*(ids[i] for i in order), "e" * 32], more)
    for name, embeddings in (("a", same), ("b", other)):
        run(CurationSettings(), ratings=[ratings], neighbors=graph, embeddings=embeddings, out=tmp_path / name)
    assert rows_of(tmp_path / "a").equals(rows_of(tmp_path / "b"))
    found = json.loads((tmp_path / "a/diagnosis.json").read_text())["r"]
    assert found["regression"]["explained_variance"] > 0.3
    assert found["weights"]["regression"] is not None
    vectors = np.load(Artifact.open(same, "embeddings").path("vectors.npy"))
    expected = on_arrays(pool.scores, pool.indices, pool.distances, embeddings=vectors)
    np.testing.assert_array_equal(rows_of(tmp_path / "a")["score"].to_numpy(), expected.score)


def test_samples_without_a_vector_are_counted_and_refused(pool: Pool, tmp_path: Path) -> None:
    ratings, graph = ratings_of(tmp_path, "r", pool.scores), graph_of(tmp_path, pool)
    embeddings = make_embeddings(tmp_path / "embeddings", names(1200)[3:], pool.vectors[3:])
    with pytest.raises(InputError, match="3 of the graph's 1200 samples have no vector here"):
        run(CurationSettings(), ratings=[ratings], neighbors=graph, embeddings=embeddings, out=tmp_path / "out")


def texts(pool: Pool) -> list[list[Message]]:
    """A text for each sample; the longer the answer, the better it is."""
    return [conversation(f"question {i}", "word " * (20 + 10 * int(t))) for i, t in enumerate(pool.true)]


def in_pool(folder: Path, pool: Pool, metadata: list[dict[str, Any]] | None = None) -> tuple[Path, Path, Path]:
    """Pool, ratings and graph of the same texts."""
    samples = texts(pool)
    ids = [sample_id(messages) for messages in samples]
    return (
        write_pool(folder / "pool", samples, metadata=metadata),
        ratings_of(folder, "r", pool.scores, ids),
        make_neighbors(folder / "neighbors", ids, pool.indices, pool.distances),
    )


def test_lengths_of_the_pool_s_texts_enter_the_model_and_their_effect_is_told(pool: Pool, tmp_path: Path) -> None:
    texts_of, ratings, graph = in_pool(tmp_path, pool)
    run(CurationSettings(), ratings=[ratings], neighbors=graph, pool=texts_of, out=tmp_path / "out")
    found = json.loads((tmp_path / "out/diagnosis.json").read_text())["r"]
    effects = found["regression"]["effects"]
    assert set(effects) == {"log length of the prompt", "log length of the answer"}
    assert effects["log length of the answer"] > 0.3
    assert abs(effects["log length of the prompt"]) < 0.2


def graded_file(folder: Path, pool: Pool, number: int, ids: list[str], weight: float | None = None) -> Path:
    lines = [f"{ids[i]},{int(pool.true[i]) + 4}" + (f",{weight}" if weight else "") for i in range(number)]
    head = "id,grade,weight" if weight else "id,grade"
    (folder / "grades.csv").write_text("\n".join([head, *lines, ""]))
    return folder / "grades.csv"


def test_grades_of_a_file_enter_the_model_and_judge_it(pool: Pool, tmp_path: Path) -> None:
    ratings, graph = ratings_of(tmp_path, "r", pool.scores), graph_of(tmp_path, pool)
    path = graded_file(tmp_path, pool, 60, names(1200), weight=20)
    settings = CurationSettings(grades=GradesSettings(path=str(path)))
    manifest = run(settings, ratings=[ratings], neighbors=graph, out=tmp_path / "out")
    assert manifest.facts["graded"] == 60
    found = json.loads((tmp_path / "out/diagnosis.json").read_text())["r"]
    assert found["graded"] == found["grades"]["graded"] == 60
    assert found["grades"]["weighted"]
    assert found["held_out"]["graded"] == 60
    assert found["held_out"]["weighted"]
    assert "reliability" in found["held_out"]
    assert (rows_of(tmp_path / "out")["score"].to_numpy()[:60] == pool.true[:60]).mean() > 0.95


@pytest.mark.parametrize("told", [True, False])
def test_few_grades_are_the_scores_of_their_samples(pool: Pool, tmp_path: Path, told: bool) -> None:
    rng = np.random.default_rng(1)
    scores = pool.scores.copy() if told else rng.integers(0, 6, len(pool.true)).astype(np.int8)
    scores[23] = -1
    ratings, graph = ratings_of(tmp_path, "r", scores), graph_of(tmp_path, pool)
    path = graded_file(tmp_path, pool, 24, names(1200), weight=20)
    settings = CurationSettings(
        grades=GradesSettings(path=str(path)), assume="clusterable" if told else "cautious", posterior=True
    )
    run(settings, ratings=[ratings], neighbors=graph, out=tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    found = json.loads((tmp_path / "out/diagnosis.json").read_text())["r"]
    assert found["explained"] is told
    assert rows["score"].to_pylist()[:24] == rows["suggested"].to_pylist()[:24] == pool.true[:24].tolist()
    assert min(rows["confidence"].to_pylist()[:24]) > 0.5
    assert np.abs(rows["mean"].to_numpy()[:24] - pool.true[:24]).max() < 0.5
    wrong = [i for i in range(24) if scores[i] not in (-1, pool.true[i])]
    assert np.flatnonzero(rows["flagged"].to_numpy(zero_copy_only=False)[:24]).tolist() == wrong
    assert min(rows["error_probability"].to_pylist()[i] for i in wrong) > 0.5
    assert found["grades"]["scores_changed"] == len(wrong)
    # What is said of errors comes from scores that have not seen the grades.
    assert found["held_out"]["graded"] == 23
    assert found["held_out"]["right"]["raw"]["classical"]["value"] == pytest.approx(
        (scores == pool.true)[:24].sum() / 23
    )
    if not told:
        assert rows["score"].to_pylist()[24:] == [None if score < 0 else score for score in scores[24:]]
        assert set(rows["confidence"].to_pylist()[24:]) == {None}
        assert found["held_out"]["right"]["curated"] == found["held_out"]["right"]["raw"]
        assert found["counts"]["corrected"] == len(wrong)
        assert found["counts"]["filled"] == 1
    assert any(warning.startswith("24 grades were given") for warning in found["warnings"]) is not told


@pytest.mark.parametrize("mode", ["exact", "paper"])
def test_grades_of_a_field_of_the_pool_judge_every_mode(pool: Pool, tmp_path: Path, mode: str) -> None:
    metadata = [{"human": int(t) + 4} if i < 80 else {} for i, t in enumerate(pool.true)]
    texts_of, ratings, graph = in_pool(tmp_path, pool, metadata)
    settings = parse(CurationSettings, {"mode": mode, "grades": {"column": "human"}}, where="settings")
    run(settings, ratings=[ratings], neighbors=graph, pool=texts_of, out=tmp_path / "out")
    found = json.loads((tmp_path / "out/diagnosis.json").read_text())["r"]
    assert found["grades"]["graded"] == 80
    held_out = found["held_out"]
    assert held_out["graded"] == 80
    raw = (pool.scores == pool.true)[:80].mean()
    assert held_out["right"]["raw"]["classical"]["value"] == pytest.approx(raw)
    if mode == "paper":
        curated_right = (rows_of(tmp_path / "out")["score"].to_numpy() == pool.true)[:80].mean()
        assert held_out["right"]["curated"]["value"] == pytest.approx(curated_right)
    with pytest.raises(SettingsError, match="a field of the pool"):
        run(settings, ratings=[ratings], neighbors=graph, out=tmp_path / "no-pool")


@pytest.mark.parametrize(("fill", "filled"), [("auto", True), (False, False)])
def test_what_a_rater_was_not_asked_about_is_predicted(
    pool: Pool, tmp_path: Path, fill: bool | str, filled: bool
) -> None:
    ids = names(1200)
    values = [int(RATINGS_OF_CLASSES[s]) if i % 3 == 0 else None for i, s in enumerate(pool.scores)]
    not_asked = [name for name, value in zip(ids, values, strict=True) if value is None]
    ratings = make_ratings(tmp_path / "r", "r", ids, values, not_asked=not_asked)
    settings = parse(CurationSettings, {"fill_missing": fill}, where="settings")
    manifest = run(settings, ratings=[ratings], neighbors=graph_of(tmp_path, pool), out=tmp_path / "out")
    table = rows_of(tmp_path / "out")
    rest = np.arange(1200) % 3 != 0
    assert table["raw_score"].null_count == 800
    assert table["score"].null_count == (0 if filled else 800)
    assert manifest.facts["filled"] == (800 if filled else 0)
    means = table["mean"].to_numpy()[rest]
    assert np.corrcoef(means, pool.true[rest])[0, 1] > 0.5


def test_ratings_that_failed_are_not_filled_in_by_themselves(pool: Pool, tmp_path: Path) -> None:
    scores = np.where(np.arange(1200) < 50, -1, pool.scores)
    ratings, graph = ratings_of(tmp_path, "r", scores), graph_of(tmp_path, pool)
    run(CurationSettings(), ratings=[ratings], neighbors=graph, out=tmp_path / "out")
    assert rows_of(tmp_path / "out")["score"].null_count == 50


def test_two_runs_write_the_same_bytes(pool: Pool, tmp_path: Path) -> None:
    ratings, graph = ratings_of(tmp_path, "r", pool.scores), graph_of(tmp_path, pool)
    hashes = [
        run(CurationSettings(), ratings=[ratings], neighbors=graph, out=tmp_path / out).content_hash
        for out in ("a", "b")
    ]
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lowest": 9, "highest": 9}, "highest .9. must be above lowest"),
        ({"lowest": 1, "highest": 10}, "10 score classes; .*at most 6"),
        ({"neighbors": 0}, "neighbors .0. must be 1 or more"),
        ({"confidence": 1.2}, "confidence"),
        ({"mode": "paper", "fill_missing": True}, "fill_missing needs mode: exact"),
        ({"mode": "exakt"}, "mode"),
        ({"treshold": 1}, "unknown setting"),
        ({"bootstrap": 50}, "unknown setting"),
        ({"ordinal": 3}, "unknown setting"),
        ({"assume": "anything"}, "assume"),
        ({"fit_samples": 10}, "fit_samples"),
    ],
)
def test_wrong_settings_are_explained(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse(CurationSettings, values, where="settings")


def test_the_component_passes_settings_and_paths(pool: Pool, tmp_path: Path) -> None:
    given = [dsl.Dataset(name="r", uri=str(ratings_of(tmp_path, "r", pool.scores)))]
    graph = dsl.Dataset(name="neighbors", uri=str(graph_of(tmp_path, pool)))
    out, metrics = dsl.Dataset(name="out", uri=str(tmp_path / "out")), dsl.Metrics(name="m", uri=str(tmp_path / "m"))
    curate.python_func(ratings=given, neighbors=graph, settings={"neighbors": 10.0}, curation=out, metrics=metrics)
    assert out.metadata["kind"] == "curation"
    assert metrics.metadata["flagged"] > 0


def test_a_pool_smaller_than_diversity_asks_for_is_curated(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    vectors = np.random.default_rng(0).standard_normal((8, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    indices, distances = nearest(vectors, 7)
    graph = make_neighbors(tmp_path / "neighbors", names(8), indices, distances)
    ratings = ratings_of(tmp_path, "r", np.arange(8) % 6)
    run(CurationSettings(), ratings=[ratings], neighbors=graph, out=tmp_path / "out")
    expected = np.tanh(distances.astype(np.float64).mean(1) / 2)
    np.testing.assert_allclose(rows_of(tmp_path / "out")["diversity"].to_numpy(), expected, rtol=1e-6)
    assert "7 neighbours, not 10" in caplog.text


def test_more_neighbours_than_the_graph_has_are_no_secret(pool: Pool, tmp_path: Path) -> None:
    settings = CurationSettings(neighbors=500)
    ratings, graph = ratings_of(tmp_path, "r", pool.scores), graph_of(tmp_path, pool)
    facts = run(settings, ratings=[ratings], neighbors=graph, out=tmp_path / "out").facts
    k = pool.indices.shape[1]
    assert f"neighbors is 500, but the graph has {k}: all were used" in facts["warnings"]["r"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"combine": True, "neighbors": 5}, "neighbors and combine need mode: exact, not paper"),
        ({"posterior": True}, "posterior needs mode: exact"),
        ({"assume": "clusterable"}, "assume needs mode: exact"),
        ({"fit_samples": 500}, "fit_samples needs mode: exact"),
        ({"copies": "keep"}, "copies needs mode: exact"),
        ({"fill_missing": False}, "fill_missing needs mode: exact"),
        (
            {"mode": "exact", "diversity": "reference", "diversity_neighbors": 5},
            "diversity_neighbors .*diversity: reference",
        ),
    ],
)
def test_settings_that_would_do_nothing_are_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        parse(CurationSettings, {"mode": "paper"} | changed, where="settings")
    parse(CurationSettings, CurationSettings(mode="paper").model_dump(), where="settings")
