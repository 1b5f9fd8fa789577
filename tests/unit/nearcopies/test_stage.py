"""Near-copies against a naive comparison of all pairs, and the stage on small pools."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError, StoppedError
from tamis.core.sample_columns import rows_of
from tamis.core.tables import POOL
from tamis.nearcopies import stage
from tamis.nearcopies.clusters import NOT_DROPPED, near_copies
from tamis.nearcopies.settings import NearCopiesSettings
from tamis.nearcopies.shingles import hashes, jaccard, ngrams, normalized
from tamis.nearcopies.signatures import Buckets, bands, signatures
from tamis.nearcopies.stage import run
from tamis.pool.settings import PoolSettings
from tamis.pool.stage import run as assemble
from tests.artifacts import OLD_POOL, conversation, make_pool

SENTENCE = "the quick brown fox jumps over the lazy dog while seven wizards vex a jolly sphinx of black quartz"


def naive(texts: Sequence[str], n: int, threshold: float) -> list[int]:
    """For every text the first kept one that it is a near-copy of, comparing all pairs."""
    kept_for: list[int] = []
    for number, text in enumerate(texts):
        matches = (
            earlier
            for earlier in range(number)
            if kept_for[earlier] == NOT_DROPPED and jaccard(ngrams(texts[earlier], n), ngrams(text, n)) >= threshold
        )
        kept_for.append(next(matches, NOT_DROPPED))
    return kept_for


texts_alike = st.lists(st.text("abä中", min_size=1, max_size=14), min_size=1, max_size=30)


@settings(deadline=None, max_examples=150)
@given(texts_alike, st.integers(1, 4), st.sampled_from([0.5, 0.7, 0.8, 1.0]))
def test_with_bands_that_miss_nothing_it_drops_what_comparing_all_pairs_drops(
    texts: list[str], n: int, threshold: float
) -> None:
    texts = [normalized(text) for text in texts]
    matrix = signatures(texts, n, 256, 0)
    found, similarity, _ = near_copies(matrix, Buckets.of(matrix, 256, 1), texts.__getitem__, n=n, threshold=threshold)
    assert found.tolist() == naive(texts, n, threshold)
    for number in np.flatnonzero(found != NOT_DROPPED):
        exact = jaccard(ngrams(texts[number], n), ngrams(texts[found[number]], n))
        assert similarity[number] == np.float32(exact)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.text(max_size=12), min_size=1, max_size=8), st.integers(1, 6))
def test_texts_have_equal_hashes_exactly_where_they_have_equal_ngrams(texts: list[str], n: int) -> None:
    flat, offsets = hashes(texts, n)
    sets = [set(flat[first:last].tolist()) for first, last in pairwise(offsets.tolist())]
    assert [len(one) for one in sets] == [len(ngrams(text, n)) for text in texts]
    for text, one in zip(texts, sets, strict=True):
        for other_text, other in zip(texts, sets, strict=True):
            assert (text == other_text) <= (one == other)
            if len(text) >= n and len(other_text) >= n:
                assert len(one & other) == len(ngrams(text, n) & ngrams(other_text, n))


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 0.99, 1.0])
def test_bands_find_pairs_at_the_threshold_as_often_as_asked(threshold: float) -> None:
    count, rows = bands(128, threshold, 0.99)
    assert count * rows <= 128
    assert 1 - (1 - threshold**rows) ** count >= 0.99


def test_signatures_estimate_the_similarity() -> None:
    one, other = normalized(SENTENCE), normalized(SENTENCE.replace("lazy", "idle"))
    first, second = signatures([one, other], 5, 1024, 3)
    assert abs((first == second).mean() - jaccard(ngrams(one, 5), ngrams(other, 5))) < 0.06


# The stage.


def pool_of(folder: Path, *sources: Sequence[Any]) -> Path:
    """A pool of texts, or of texts with a field `rating`; each becomes prompt and completion."""
    described = []
    for number, texts in enumerate(sources):
        path = folder / f"source{number}.jsonl"
        rows = [text if isinstance(text, dict) else {"prompt": text, "completion": text} for text in texts]
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        rated = {"keep": ["rating"]} if "rating" in rows[0] else {}
        described.append({"name": f"source{number}", "path": str(path)} | rated)
    place = folder / f"pool-{len(list(folder.glob('pool-*')))}"
    assemble(PoolSettings.model_validate({"sources": described}), out=place)
    return place


def prompts(artifact: Path) -> list[str]:
    return [messages[0]["content"] for messages in Artifact.open(artifact, "pool").table()["messages"].to_pylist()]


def clusters(artifact: Path) -> list[dict[str, Any]]:
    return pq.read_table(artifact / "clusters.parquet").to_pylist()


def test_the_result_is_a_pool_without_near_copies_that_names_what_it_dropped(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, [SENTENCE, "something else entirely, about trains"], [SENTENCE.upper(), SENTENCE + "!"])
    made = run(NearCopiesSettings(), samples=pool, out=tmp_path / "near")
    assert prompts(tmp_path / "near") == [SENTENCE, "something else entirely, about trains"]
    assert made.rows == made.facts["kept"] == 2
    assert {row["source"] for row in clusters(tmp_path / "near")} == {"source1"}
    assert {row["kept_source"] for row in clusters(tmp_path / "near")} == {"source0"}
    assert {name: entry["near_copies"] for name, entry in made.facts["sources"].items()} == {"source0": 0, "source1": 2}
    assert made.facts["sources"]["source1"]["kept"] == 0
    counted = made.facts["near_copies"]
    assert (counted["dropped"], counted["clusters"], counted["largest_cluster"]) == (2, 1, 3)
    assert counted["of_other_sources"] == 2
    assert (tmp_path / "near" / "rejects.parquet").is_file()


def test_a_pool_without_near_copies_keeps_all_rows_as_they_are(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, [f"{word} " * 9 for word in ("one", "seven", "hundred")])
    run(NearCopiesSettings(), samples=pool, out=tmp_path / "near")
    before, after = (Artifact.open(place, "pool").table() for place in (pool, tmp_path / "near"))
    assert after.equals(before)
    assert clusters(tmp_path / "near") == []


@pytest.mark.parametrize(
    ("choice", "kept"),
    [
        ({"keep": "first"}, SENTENCE + "."),
        ({"keep": "longest"}, SENTENCE + " today"),
        ({"keep": "best", "rated_by": "rating"}, SENTENCE),
    ],
)
def test_the_rule_says_which_one_is_kept(choice: dict[str, Any], kept: str, tmp_path: Path) -> None:
    texts = {SENTENCE + ".": 3, SENTENCE + " today": None, SENTENCE: 4.5}
    rows = [{"prompt": text, "completion": "yes", "rating": rating} for text, rating in texts.items()]
    run(NearCopiesSettings.model_validate(choice), samples=pool_of(tmp_path, rows), out=tmp_path / "near")
    assert prompts(tmp_path / "near") == [kept]


def test_a_rating_that_is_no_number_is_an_error(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, [{"prompt": "a", "completion": "b", "rating": "good"}])
    chosen = NearCopiesSettings(keep="best", rated_by="rating")
    with pytest.raises(InputError):
        run(chosen, samples=pool, out=tmp_path / "near")


def test_texts_without_spaces_between_words_are_compared(tmp_path: Path) -> None:
    text = "春天来了、公园里的樱花开得非常漂亮、很多人带着家人去那里散步、拍照、野餐、孩子们在草地上快乐地奔跑"
    pool = pool_of(tmp_path, [text, text + "。", text[::-1]])
    run(NearCopiesSettings(), samples=pool, out=tmp_path / "near")
    assert prompts(tmp_path / "near") == [text, text[::-1]]


def test_a_grown_pool_keeps_what_an_earlier_run_has_kept(tmp_path: Path) -> None:
    old = [SENTENCE, SENTENCE + "!", "a text about the history of railways in three countries"]
    first = pool_of(tmp_path, old)
    run(NearCopiesSettings(keep="longest"), samples=first, out=tmp_path / "near")
    assert prompts(tmp_path / "near") == old[1:]
    new = [
        SENTENCE + " and much longer",
        "a text about the history of railways in three countries.",
        "new text, indeed",
    ]
    grown = pool_of(tmp_path, old, new)
    made = run(NearCopiesSettings(keep="longest"), samples=grown, known=[tmp_path / "near"], out=tmp_path / "grown")
    assert prompts(tmp_path / "grown") == [*old[1:], "new text, indeed"]
    assert made.facts["near_copies"]["taken_over"] == 3
    assert len(clusters(tmp_path / "grown")) == 3


def test_known_results_of_another_threshold_and_plain_pools_are_refused(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, [SENTENCE])
    run(NearCopiesSettings(threshold=0.7), samples=pool, out=tmp_path / "near")
    for known in (tmp_path / "near", pool):
        with pytest.raises(InputError):
            run(NearCopiesSettings(), samples=pool, known=[known], out=tmp_path / "again")


def test_a_killed_run_goes_on_with_its_signatures_and_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(2)
    texts = [" ".join(draw.choices(SENTENCE.split(), k=20)) for _ in range(50)]
    pool = pool_of(tmp_path, [*texts, *(text + "!" for text in texts[:9])])
    monkeypatch.setattr(stage, "BLOCK", 16)
    whole = run(NearCopiesSettings(), samples=pool, out=tmp_path / "whole")
    made: list[int] = []

    def stopped(given: Sequence[str], *rest: Any) -> Any:
        made.append(len(given))
        if len(made) == 3:
            raise StoppedError("stopped")
        return signatures(given, *rest)

    monkeypatch.setattr(stage, "signatures", stopped)
    with pytest.raises(StoppedError):
        run(NearCopiesSettings(), samples=pool, out=tmp_path / "killed")
    again = run(NearCopiesSettings(), samples=pool, out=tmp_path / "killed")
    assert made == [16, 16, 16, 16, 11]
    assert again.content_hash == whole.content_hash
    assert again.facts == whole.facts


def test_many_copies_of_one_text_are_compared_with_the_kept_one_only(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, [f"{SENTENCE} {number}" for number in range(300)])
    made = run(NearCopiesSettings(), samples=pool, out=tmp_path / "near")
    assert made.rows == 1
    assert made.facts["near_copies"]["compared_exactly"] == 299


def test_a_pool_of_an_old_revision_becomes_one_of_todays(tmp_path: Path) -> None:
    samples = [conversation(f"{SENTENCE}?", f"{SENTENCE}{'!' * i}") for i in range(3)]
    samples.append(conversation("Hi?", "Hello."))
    pool = make_pool(tmp_path / "pool", samples, schema=OLD_POOL)
    assert run(NearCopiesSettings(), samples=pool, out=tmp_path / "out").rows == 2
    found = Artifact.open(tmp_path / "out", "pool")
    assert [pq.read_schema(part).equals(POOL) for part in found.parts()] == [True]
    assert [row["messages"] for row in rows_of(found.table())] == [samples[0], samples[3]]
