"""The selection stage on real artifacts."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tamis.core.artifacts import Artifact
from tamis.core.errors import ArtifactError, InputError, SettingsError, StorageError
from tamis.core.samples import response_of, sample_id
from tamis.core.settings import hash_of
from tamis.core.steps import Step
from tamis.core.tables import CURATION, SCORES, SELECTION, PartsWriter
from tamis.selection.reading import response_lengths
from tamis.selection.settings import SelectionSettings
from tamis.selection.stage import run
from tests.artifacts import NoSettings, conversation, make, make_curation, make_embeddings, make_neighbors, make_pool

SAMPLES = [conversation(f"Question {i}?", "é" * (i + 1), f"More on {i}?", "b" * (i % 3 + 1)) for i in range(24)]
IDS = [sample_id(messages) for messages in SAMPLES]
SCORE_OF: dict[str, Callable[[int], float]] = {
    "perplexity": lambda i: 1.0 + (i * 5) % 24,
    "deita": lambda i: float((i * 11) % 24),
    "less": lambda i: float(max(i % 5, -i)),
}
SOURCES = ["first", "second"] * 12


def settings_of(strategy: str, **values: Any) -> SelectionSettings:
    return SelectionSettings.model_validate({"name": strategy, "strategy": strategy} | values)


def curation_rows(rater: str = "r", shift: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "id": identity,
            "rater": rater,
            "raw_score": None if i == 5 else (i + shift) % 6,
            "score": None if i == 5 else (i + shift + 1) % 6,
            "diversity": ((i * 7) % 24) / 24,
        }
        for i, identity in enumerate(IDS)
    ]


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    return make_pool(tmp_path / "pool", SAMPLES, source=SOURCES)


@pytest.fixture
def curation(tmp_path: Path) -> Path:
    make_curation(tmp_path / "curation", curation_rows())
    return tmp_path / "curation"


@pytest.fixture
def neighbors(tmp_path: Path) -> Path:
    distances = np.sort(np.random.default_rng(0).random((24, 4)), axis=1)
    return make_neighbors(tmp_path / "neighbors", IDS, np.zeros((24, 4)), distances)


@pytest.fixture
def embeddings(tmp_path: Path) -> Path:
    make_embeddings(tmp_path / "embeddings", IDS[::-1], np.random.default_rng(1).normal(size=(24, 3)))
    return tmp_path / "embeddings"


@pytest.fixture
def scores(tmp_path: Path) -> list[Path]:
    """One artifact for each strategy that ranks by a model's scores; sample 7 has none."""

    def write(name: str) -> Path:
        rows = [
            {
                "id": identity,
                "score": None if i == 7 else SCORE_OF[name](i),
                "status": "too_long" if i == 7 else "ok",
                "tasks": None if i == 7 or name != "less" else [float(i % 5), float(-i)],
            }
            for i, identity in enumerate(IDS)
        ]

        def body(step: Step[NoSettings]) -> None:
            with PartsWriter(step.out, pa.schema([*SCORES, pa.field("tasks", pa.list_(pa.float32()))])) as parts:
                parts.write_rows(rows[::-1])
            step.rows = parts.rows
            step.facts["tasks"] = ["first", "second"]

        make("scores", tmp_path / name, body, name=name)
        return tmp_path / name

    return [write(name) for name in SCORE_OF]


def table_of(out: Path) -> list[dict[str, Any]]:
    table = pq.read_table(out / "selection.parquet")
    assert table.schema.equals(SELECTION)
    return table.to_pylist()


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "subset.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_subset_holds_the_picked_samples_in_the_order_of_the_pool(
    pool: Path, curation: Path, tmp_path: Path
) -> None:
    manifest = run(settings_of("ds2", size=9), pool=pool, curation=curation, out=tmp_path / "out")
    rows, lines = table_of(tmp_path / "out"), lines_of(tmp_path / "out")
    assert (manifest.kind, manifest.name, manifest.rows) == ("selection", "ds2", 9)
    assert [row["rank"] for row in rows] == list(range(9))
    assert {line["id"] for line in lines} == {row["id"] for row in rows}
    places = [IDS.index(line["id"]) for line in lines]
    assert places == sorted(places)
    ranked = {row["id"]: {"rank": row["rank"], "score": row["score"]} for row in rows}
    assert lines == [{"id": IDS[i], "source": SOURCES[i], "messages": SAMPLES[i]} | ranked[IDS[i]] for i in places]


def test_the_subset_keeps_the_fields_that_the_pool_keeps(tmp_path: Path) -> None:
    kept = [{"topic": "rivers", "grade": i} if i % 2 else {"topic": "Übung"} for i in range(len(SAMPLES))]
    make_pool(tmp_path / "kept", SAMPLES, source=SOURCES, metadata=kept)
    run(settings_of("random", size=9), pool=tmp_path / "kept", out=tmp_path / "out")
    lines = lines_of(tmp_path / "out")
    assert [line["metadata"] for line in lines] == [kept[IDS.index(line["id"])] for line in lines]
    assert sorted(line["rank"] for line in lines) == list(range(9))
    assert {line["score"] for line in lines} == {None}


def test_ds2_follows_the_curated_scores_and_ds2_raw_the_raters(pool: Path, curation: Path, tmp_path: Path) -> None:
    known = [row for row in curation_rows() if row["score"] is not None]
    for strategy, field in (("ds2", "score"), ("ds2-raw", "raw_score")):
        run(settings_of(strategy, size=9), pool=pool, curation=curation, out=tmp_path / strategy)
        best = sorted(known, key=lambda row: (-row[field], -row["diversity"]))[:9]
        assert table_of(tmp_path / strategy) == [
            {"id": r["id"], "rank": rank, "score": r[field], "diversity": pytest.approx(r["diversity"])}
            for rank, r in enumerate(best)
        ]


@pytest.mark.parametrize(("strategy", "size", "warned"), [("ds2", 21, True), ("ds2", 20, False), ("random", 21, False)])
def test_samples_of_the_lowest_score_are_picked_with_a_warning(
    pool: Path, curation: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, strategy: str, size: int, warned: bool
) -> None:
    """Of 24 samples three are of the lowest class, and one has no score."""
    run(settings_of(strategy, size=size), pool=pool, curation=curation, out=tmp_path / "out")
    assert ("1 of its 21 samples" in caplog.text) == warned


def test_the_manifest_gives_an_account(pool: Path, curation: Path, tmp_path: Path) -> None:
    (tmp_path / "no.txt").write_text(f"{IDS[3]}\n{IDS[4]}\n{'0' * 32}\n")
    settings = settings_of("ds2", size=5, exclude=str(tmp_path / "no.txt"))
    manifest = run(settings, pool=pool, curation=curation, out=tmp_path / "out")
    picked = [SAMPLES[IDS.index(row["id"])] for row in table_of(tmp_path / "out")]
    characters = [sum(len(m["content"]) for m in messages if m["role"] == "assistant") for messages in picked]
    # Classes 5 (without the excluded sample 4) has three members; class 4 (without sample 3) has three.
    assert manifest.facts == {
        "pool_rows": 24,
        "rater": "r",
        "exclude_ids": 3,
        "eligible": 21,
        "not_eligible": {"excluded": 2, "unrated": 1},
        "sources": {source: sum(SOURCES[IDS.index(r["id"])] == source for r in table_of(tmp_path / "out"))
                    for source in ("first", "second")},
        "score_classes": {"0": 0, "1": 0, "2": 0, "3": 0, "4": 2, "5": 3},
        "predicted": 0,
        "thresholds": [{"sources": None, "score": 4.0, "picked": 2, "cut": 1}],
        "mean_characters": sum(characters) / 5,
    }  # fmt: skip


def test_a_list_to_exclude_that_names_no_sample_of_the_pool_is_refused(
    pool: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, text in (("some", f"{IDS[3]}\n{'0' * 32}\n"), ("none", "0" * 32), ("empty", "")):
        (tmp_path / f"{name}.txt").write_text(text)
    settings = settings_of("random", size=5, exclude=[str(tmp_path / "some.txt"), str(tmp_path / "empty.txt")])
    run(settings, pool=pool, out=tmp_path / "out")
    assert any("1 of 2 ids are not in the pool" in record.message for record in caplog.records)
    with pytest.raises(InputError, match=r"none\.txt: none of its 1 ids is in the pool"):
        run(settings_of("random", size=5, exclude=str(tmp_path / "none.txt")), pool=pool, out=tmp_path / "out2")


def test_equal_runs_give_equal_bytes_and_another_seed_another_subset(pool: Path, tmp_path: Path) -> None:
    hashes = [
        run(settings_of("random", size=12, seed=seed), pool=pool, out=tmp_path / name).content_hash
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize(
    "strategy", ["full", "random", "length", "perplexity", "knn", "less", "alpagasus", "deita", "ds2-raw", "ds2"]
)
def test_a_pool_in_another_order_gives_the_same_ranks(
    strategy: str,
    pool: Path,
    curation: Path,
    neighbors: Path,
    embeddings: Path,
    scores: list[Path],
    tmp_path: Path,
) -> None:
    order = random.Random(1).sample(range(24), 24)
    other = make_pool(tmp_path / "other", [SAMPLES[i] for i in order], source=[SOURCES[i] for i in order])
    settings = settings_of(strategy, size=None if strategy == "full" else 11, k=3)
    for name, where in (("a", pool), ("b", other)):
        inputs = {"curation": curation, "neighbors": neighbors, "embeddings": embeddings, "scores": scores}
        run(settings, pool=where, **inputs, out=tmp_path / name)  # type: ignore[arg-type]
    assert table_of(tmp_path / "a") == table_of(tmp_path / "b")
    assert (tmp_path / "a" / "selection.parquet").read_bytes() == (tmp_path / "b" / "selection.parquet").read_bytes()


def test_full_is_the_whole_pool_and_needs_nothing_else(pool: Path, tmp_path: Path) -> None:
    manifest = run(settings_of("full"), pool=pool, out=tmp_path / "out")
    assert [line["messages"] for line in lines_of(tmp_path / "out")] == SAMPLES
    assert all(row["score"] is None and row["diversity"] is None for row in table_of(tmp_path / "out"))
    assert manifest.facts["thresholds"] == []


def test_length_counts_the_characters_of_all_responses(pool: Path, tmp_path: Path) -> None:
    run(settings_of("length", size=4), pool=pool, out=tmp_path / "out")
    characters = {i: (i + 1) + (i % 3 + 1) for i in range(24)}
    assert sorted(row["score"] for row in table_of(tmp_path / "out")) == sorted(characters.values())[-4:]


def test_lengths_leave_out_prompts_and_count_characters_not_bytes() -> None:
    samples = [
        conversation("long question", "añb"),
        [{"role": "system", "content": "be short"}, *conversation("q", "12", "q", "345")],
        conversation("only a question"),
    ]
    messages = pa.array(samples, pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})))
    assert response_lengths(messages).tolist() == [3, 5, 0]
    assert response_lengths(messages[1:]).tolist() == [5, 0]
    assert response_lengths(messages[:0]).tolist() == []
    assert [len(response_of(s).replace("\n", "")) for s in samples] == [3, 5, 0]  # type: ignore[arg-type]


def test_knn_is_the_mean_distance_to_the_k_nearest(pool: Path, neighbors: Path, tmp_path: Path) -> None:
    distances = np.load(neighbors / "distances.npy")
    for k in (1, 3):
        run(settings_of("knn", size=6, k=k), pool=pool, neighbors=neighbors, out=tmp_path / str(k))
        means = distances[:, :k].mean(axis=1)
        rows = table_of(tmp_path / str(k))
        assert [row["id"] for row in rows] == [IDS[i] for i in np.argsort(-means)[:6]]
        assert [row["score"] for row in rows] == pytest.approx(np.sort(means)[::-1][:6])


def test_more_neighbours_than_the_graph_has_are_refused(pool: Path, neighbors: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"\bk\b.* 5\b.*\b4 neighbours") as caught:
        run(settings_of("knn", size=6, k=5), pool=pool, neighbors=neighbors, out=tmp_path / "out")
    assert caught.value.allowed == "1 to 4"


@pytest.mark.parametrize(
    ("strategy", "extra", "kind"),
    [("ds2", {}, "curation"), ("alpagasus", {}, "curation"), ("random", {"min_score": 3}, "curation"),
     ("knn", {}, "neighbors")],
)  # fmt: skip
def test_an_input_that_is_needed_and_not_given_is_named(
    strategy: str, extra: dict[str, Any], kind: str, pool: Path, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=f"the strategy {strategy}.* needs the artifact {kind}"):
        run(settings_of(strategy, size=3, **extra), pool=pool, out=tmp_path / "out")


def test_inputs_that_are_not_needed_are_not_part_of_the_subset(pool: Path, curation: Path, tmp_path: Path) -> None:
    manifest = run(settings_of("random", size=3), pool=pool, curation=curation, out=tmp_path / "out")
    assert list(manifest.inputs) == ["pool"]


def test_a_lowest_score_reads_the_curation_for_any_strategy(pool: Path, curation: Path, tmp_path: Path) -> None:
    manifest = run(settings_of("length", size=6, min_score=4), pool=pool, curation=curation, out=tmp_path / "out")
    scores = {row["id"]: row["score"] for row in curation_rows()}
    assert all(scores[row["id"]] >= 4 for row in table_of(tmp_path / "out"))
    assert manifest.facts["not_eligible"] == {"unrated": 1, "score below 4": 15}


def test_by_mean_the_means_rank_and_are_the_scores_of_the_table(pool: Path, tmp_path: Path) -> None:
    rows = [row | {"mean": None if n == 5 else (n * 11 % 24) / 5} for n, row in enumerate(curation_rows())]
    curation = make_curation(tmp_path / "curation", rows)
    settings = settings_of("ds2", size=7, rank_by="mean")
    manifest = run(settings, pool=pool, curation=curation, out=tmp_path / "out")
    best = sorted((row for row in rows if row["mean"] is not None), key=lambda row: -row["mean"])
    assert [(r["id"], r["score"]) for r in table_of(tmp_path / "out")] == [
        (row["id"], pytest.approx(row["mean"])) for row in best[:7]
    ]
    assert sum(manifest.facts["score_classes"].values()) == 7, "classes are counted, not means"
    assert manifest.facts["thresholds"] == [
        {"sources": None, "score": pytest.approx(best[6]["mean"]), "picked": 1, "cut": 0}
    ]


def test_equal_means_are_ranked_by_diversity_as_equal_classes_are(pool: Path, curation: Path, tmp_path: Path) -> None:
    for rank_by in ("class", "mean"):  # here every mean is the score itself
        settings = settings_of("ds2", size=9, rank_by=rank_by)
        run(settings, pool=pool, curation=curation, out=tmp_path / rank_by)
    assert table_of(tmp_path / "class") == table_of(tmp_path / "mean")


def test_samples_with_a_predicted_score_are_picked_and_counted(pool: Path, tmp_path: Path) -> None:
    rows = [row | ({"raw_score": None, "score": 5, "mean": 4.9} if n % 3 == 0 else {"mean": 2.5})
            for n, row in enumerate(curation_rows())]  # fmt: skip
    curation = make_curation(tmp_path / "curation", rows)
    for rank_by in ("class", "mean"):
        settings = settings_of("ds2", size=12, rank_by=rank_by)
        manifest = run(settings, pool=pool, curation=curation, out=tmp_path / rank_by)
        picked = {row["id"] for row in table_of(tmp_path / rank_by)}
        predicted = {row["id"] for row in rows if row["raw_score"] is None and row["score"] is not None}
        assert manifest.facts["predicted"] == len(picked & predicted) > 0
        assert manifest.facts["eligible"] == 23
    assert {row["id"] for row in rows[::3]} <= picked
    manifest = run(settings_of("ds2-raw", size=12), pool=pool, curation=curation, out=tmp_path / "raw")
    assert "predicted" not in manifest.facts
    assert manifest.facts["not_eligible"] == {"unrated": 9}


def test_a_lowest_score_takes_predicted_ones_for_any_strategy(pool: Path, tmp_path: Path) -> None:
    rows = [row | ({"raw_score": None, "score": 5} if n < 6 else {"score": 1}) for n, row in enumerate(curation_rows())]
    curation = make_curation(tmp_path / "curation", rows)
    manifest = run(settings_of("random", size=6, min_score=4), pool=pool, curation=curation, out=tmp_path / "out")
    assert manifest.facts["predicted"] == 6


def test_a_curation_without_means_is_refused_where_they_rank_and_does_elsewhere(pool: Path, tmp_path: Path) -> None:
    schema = pa.schema([field for field in CURATION if field.name != "mean"])

    def write(step: Step[NoSettings]) -> None:
        with PartsWriter(step.out, schema) as parts:
            parts.write_rows({"flagged": False} | row for row in curation_rows())
        step.rows = parts.rows

    make("curation", tmp_path / "old", write)
    run(settings_of("ds2", size=3), pool=pool, curation=tmp_path / "old", out=tmp_path / "by-class")
    with pytest.raises(InputError, match="this curation has no column 'mean'; an earlier version") as caught:
        run(settings_of("ds2", size=3, rank_by="mean"), pool=pool, curation=tmp_path / "old", out=tmp_path / "out")
    assert caught.value.action


def test_with_several_raters_one_must_be_named(pool: Path, tmp_path: Path) -> None:
    make_curation(tmp_path / "two", curation_rows("llama") + curation_rows("gpt", shift=2))
    with pytest.raises(SettingsError, match="rater") as caught:
        run(settings_of("ds2", size=3), pool=pool, curation=tmp_path / "two", out=tmp_path / "out")
    assert caught.value.allowed == "gpt, llama"
    with pytest.raises(SettingsError, match=r"rater .*'mistral'") as caught:
        run(settings_of("ds2", size=3, rater="mistral"), pool=pool, curation=tmp_path / "two", out=tmp_path / "out")
    assert caught.value.allowed == "gpt, llama"
    manifest = run(settings_of("ds2", size=4, rater="gpt"), pool=pool, curation=tmp_path / "two", out=tmp_path / "out")
    best = {row["id"] for row in curation_rows("gpt", shift=2) if row["score"] == 5}
    assert {row["id"] for row in table_of(tmp_path / "out")} == best
    assert manifest.facts["rater"] == "gpt"


def test_samples_that_the_curation_does_not_have_are_counted_and_not_picked(pool: Path, tmp_path: Path) -> None:
    make_curation(tmp_path / "half", curation_rows()[::-2])
    manifest = run(settings_of("ds2", size=11), pool=pool, curation=tmp_path / "half", out=tmp_path / "out")
    assert manifest.facts["not_eligible"] == {"not in the curation": 12, "unrated": 1}
    with pytest.raises(InputError, match=r"\b11 of 24\b.*\b12 not in the curation, 1 unrated"):
        run(settings_of("ds2", size=12), pool=pool, curation=tmp_path / "half", out=tmp_path / "more")
    assert not (tmp_path / "more").exists()


def test_artifacts_of_another_pool_are_refused(curation: Path, neighbors: Path, tmp_path: Path) -> None:
    other = make_pool(tmp_path / "other", [conversation("What?", "That.")])
    with pytest.raises(InputError, match="this curation has none of the pool's samples"):
        run(settings_of("ds2", size=1), pool=other, curation=curation, out=tmp_path / "out")
    with pytest.raises(InputError, match="this graph has none of the pool's samples"):
        run(settings_of("knn", size=1, k=2), pool=other, neighbors=neighbors, out=tmp_path / "out")


def test_an_artifact_of_another_kind_is_refused(pool: Path, neighbors: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is a neighbors"):
        run(settings_of("ds2", size=1), pool=pool, curation=neighbors, out=tmp_path / "out")


def test_excluded_samples_are_never_picked_and_a_changed_list_gives_a_new_subset(pool: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(IDS[:10]))
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"id": i}) + "\n" for i in IDS[8:14]))
    settings = settings_of("random", size=10, exclude=[str(tmp_path / "a.txt"), str(tmp_path / "b.jsonl")])
    manifest = run(settings, pool=pool, out=tmp_path / "out")
    assert {row["id"] for row in table_of(tmp_path / "out")} == set(IDS[14:])
    assert manifest.facts["not_eligible"] == {"excluded": 14}
    (tmp_path / "a.txt").write_text(IDS[20])
    again = run(settings, pool=pool, out=tmp_path / "again")
    assert IDS[20] not in {row["id"] for row in table_of(tmp_path / "again")}
    assert again.key != manifest.key


def test_a_list_that_is_nowhere_is_told_before_any_work(pool: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"gone\.txt does not exist"):
        run(settings_of("random", size=3, exclude=str(tmp_path / "gone.txt")), pool=pool, out=tmp_path / "out")


def test_quotas_come_out_exactly(pool: Path, curation: Path, tmp_path: Path) -> None:
    settings = settings_of("ds2", size=8, sources={"second": 0.25})
    manifest = run(settings, pool=pool, curation=curation, out=tmp_path / "out")
    assert manifest.facts["sources"] == {"first": 6, "second": 2}


def test_a_large_pool_is_read_and_written_in_batches(tmp_path: Path) -> None:
    samples = [conversation(f"Question {i}", f"Answer {i}") for i in range(5_000)]
    make_pool(tmp_path / "pool", samples, source=[f"s{i % 7}" for i in range(5_000)])
    run(settings_of("random", size=4_321), pool=tmp_path / "pool", out=tmp_path / "out")
    lines = lines_of(tmp_path / "out")
    assert len(lines) == len({line["id"] for line in lines}) == 4_321
    assert all(line["id"] == sample_id(line["messages"]) for line in lines)
    assert all(line["source"] == f"s{int(line['messages'][0]['content'].split()[1]) % 7}" for line in lines)


def test_the_artifact_opens_as_a_selection(pool: Path, tmp_path: Path) -> None:
    manifest = run(settings_of("random", size=3, name="tiny"), pool=pool, out=tmp_path / "out")
    artifact = Artifact.open(tmp_path / "out", "selection")
    artifact.verify()
    assert artifact.name == "tiny"
    assert manifest.config_hash == hash_of(settings_of("random", size=3.0, name="tiny").model_dump(mode="json"))


@pytest.mark.parametrize("strategy", ["perplexity", "less"])
def test_a_models_scores_decide_and_a_sample_without_one_is_never_picked(
    strategy: str, pool: Path, scores: list[Path], tmp_path: Path
) -> None:
    manifest = run(settings_of(strategy, size=9), pool=pool, scores=scores, out=tmp_path / "out")
    expected = sorted((SCORE_OF[strategy](i) for i in range(24) if i != 7), reverse=True)[:9]
    assert [row["score"] for row in table_of(tmp_path / "out")] == expected
    assert manifest.facts["not_eligible"] == {"without a score": 1}
    assert set(manifest.inputs) == {"pool", "scores"}


def test_less_takes_one_task_or_the_mean_as_in_the_paper(pool: Path, scores: list[Path], tmp_path: Path) -> None:
    run(settings_of("less", size=3, task="second"), pool=pool, scores=scores, out=tmp_path / "one")
    assert [row["score"] for row in table_of(tmp_path / "one")] == [0.0, -1.0, -2.0]
    run(settings_of("less", size=23, variant="ds2-paper"), pool=pool, scores=scores, out=tmp_path / "mean")
    means = {IDS[i]: (i % 5 - i) / 2 for i in range(24)}
    assert all(row["score"] == means[row["id"]] for row in table_of(tmp_path / "mean"))
    with pytest.raises(SettingsError, match=r"task .*'third'") as caught:
        run(settings_of("less", size=3, task="third"), pool=pool, scores=scores, out=tmp_path / "no")
    assert caught.value.allowed == "first, second"


def test_deita_passes_over_what_is_too_close_to_a_better_one(
    pool: Path, scores: list[Path], embeddings: Path, tmp_path: Path
) -> None:
    vectors = np.load(embeddings / "vectors.npy").astype(float)[::-1]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected: list[int] = []
    for i in sorted(set(range(24)) - {7}, key=lambda i: -SCORE_OF["deita"](i)):
        if all(unit[i] @ unit[j] <= 0.6 for j in expected):
            expected.append(i)
    settings = settings_of("deita", size=len(expected), max_similarity=0.6)
    run(settings, pool=pool, scores=scores, embeddings=embeddings, out=tmp_path / "out")
    assert [row["id"] for row in table_of(tmp_path / "out")] == [IDS[i] for i in expected]
    settings = settings_of("deita", size=len(expected) + 1, max_similarity=0.6)
    with pytest.raises(InputError, match=rf"accepts {len(expected)}\b"):
        run(settings, pool=pool, scores=scores, embeddings=embeddings, out=tmp_path / "more")


def test_the_variant_of_the_paper_reads_ratings_where_it_did(
    pool: Path, curation: Path, embeddings: Path, tmp_path: Path
) -> None:
    for strategy in ("deita", "alpagasus"):
        settings = settings_of(strategy, size=3, variant="ds2-paper")
        run(settings, pool=pool, curation=curation, embeddings=embeddings, out=tmp_path / strategy)
        assert table_of(tmp_path / strategy)[0]["score"] == 5


@pytest.mark.parametrize(
    ("strategy", "words"),
    [("perplexity", "tamis score"), ("deita", "embeddings|tamis score"), ("less", "tamis influence")],
)
def test_scores_that_are_not_given_are_named_with_the_way_to_make_them(
    strategy: str, words: str, pool: Path, scores: list[Path], embeddings: Path, tmp_path: Path
) -> None:
    others = [uri for uri in scores if uri.name != strategy]
    with pytest.raises(SettingsError, match=f"the scores '{strategy}'") as caught:
        run(settings_of(strategy, size=3), pool=pool, scores=others, embeddings=embeddings, out=tmp_path / "out")
    assert any(word in caught.value.action for word in words.split("|"))
