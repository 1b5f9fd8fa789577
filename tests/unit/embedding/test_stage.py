"""The embedding stage, with the real encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError, ModelError, SettingsError
from tamis.core.samples import Message
from tamis.embedding.settings import EmbeddingSettings
from tamis.embedding.stage import run
from tests.artifacts import conversation, make_pool


def vectors_of(out: Path) -> np.ndarray:
    return np.load(out / "vectors.npy").astype(np.float32)


def test_vectors_have_length_one_and_the_order_of_the_pool(models: Path, small_pool: Path, tmp_path: Path) -> None:
    manifest = run(EmbeddingSettings(model=str(models / "minilm")), pool=small_pool, out=tmp_path / "out")
    vectors = vectors_of(tmp_path / "out")
    assert vectors.shape == (6, 384) == (manifest.rows, manifest.facts["dimensions"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    import pyarrow.parquet as pq

    ids = pq.read_table(tmp_path / "out" / "ids.parquet")["id"].to_pylist()
    assert ids == Artifact.open(small_pool, "pool").table(["id"])["id"].to_pylist()


def test_samples_on_one_subject_lie_closer_than_others(models: Path, tmp_path: Path) -> None:
    pool = make_pool(
        tmp_path / "pool",
        [
            conversation("How do I bake bread?", "Mix flour, water, salt and yeast; let it rise; bake it."),
            conversation("What makes dough rise?", "Yeast makes gas, which lifts the bread dough."),
            conversation("Who was Napoleon?", "A French general who became emperor in 1804."),
        ],
    )
    run(EmbeddingSettings(model=str(models / "minilm")), pool=pool, out=tmp_path / "out")
    cosine = vectors_of(tmp_path / "out") @ vectors_of(tmp_path / "out").T
    assert cosine[0, 1] > cosine[0, 2] + 0.2


def test_a_model_that_is_nowhere_is_a_clear_error(small_pool: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot load the encoder"):
        run(EmbeddingSettings(model=str(tmp_path / "nowhere")), pool=small_pool, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_more_tokens_than_the_encoder_has_positions_are_refused(models: Path, small_pool: Path, tmp_path: Path) -> None:
    settings = EmbeddingSettings(model=str(models / "minilm"), max_tokens=1024)
    with pytest.raises(SettingsError, match=r"max_tokens: seen 1024[\s\S]*at most 512"):
        run(settings, pool=small_pool, out=tmp_path / "out")


def test_finished_blocks_are_taken_up_and_give_the_same_bytes(
    models: Path, small_pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tamis.embedding import stage
    from tamis.embedding.encoder import Encoder

    monkeypatch.setattr(stage, "BLOCK", 2)
    monkeypatch.setattr(stage, "_READ", 4)  # so that texts are read in two parts: the second has one block
    settings = EmbeddingSettings(model=str(models / "minilm"))
    run(settings, pool=small_pool, out=tmp_path / "whole")

    encode, encoded = Encoder.encode, []

    def fail_at_the_third_block(self: Encoder, texts: list[str]) -> np.ndarray:
        if len(encoded) == 2:
            raise KeyboardInterrupt
        encoded.append(len(texts))
        return encode(self, texts)

    monkeypatch.setattr(Encoder, "encode", fail_at_the_third_block)
    with pytest.raises(KeyboardInterrupt):
        run(settings, pool=small_pool, out=tmp_path / "resumed")
    assert not (tmp_path / "resumed").exists()
    encoded.pop()
    monkeypatch.setattr(Encoder, "encode", lambda self, texts: encoded.append(len(texts)) or encode(self, texts))
    run(settings, pool=small_pool, out=tmp_path / "resumed")
    assert encoded == [2, 2], "one block before the interruption, only the missing one after it"
    assert (tmp_path / "resumed/vectors.npy").read_bytes() == (tmp_path / "whole/vectors.npy").read_bytes()


def test_vectors_of_known_samples_are_taken_over(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tamis.embedding.encoder import Encoder

    talks = [conversation(f"What is {number} squared?", str(number**2)) for number in range(7)]
    settings = EmbeddingSettings(model=str(models / "minilm"))
    run(settings, pool=make_pool(tmp_path / "a", talks[1:3]), out=tmp_path / "first")
    run(settings, pool=make_pool(tmp_path / "b", talks[2:5]), out=tmp_path / "second")
    pool = make_pool(tmp_path / "all", talks)
    whole = run(settings, pool=pool, out=tmp_path / "whole")
    encode, encoded = Encoder.encode, []
    monkeypatch.setattr(Encoder, "encode", lambda self, texts: encoded.extend(texts) or encode(self, texts))
    manifest = run(settings, pool=pool, known=[tmp_path / "first", tmp_path / "second"], out=tmp_path / "out")
    assert (manifest.facts["taken_over"], whole.facts["taken_over"], len(encoded)) == (4, 0, 3)
    np.testing.assert_allclose(vectors_of(tmp_path / "out"), vectors_of(tmp_path / "whole"), atol=2e-3)
    for place, folder, row in ((1, "first", 0), (2, "first", 1), (3, "second", 1)):
        np.testing.assert_array_equal(vectors_of(tmp_path / "out")[place], vectors_of(tmp_path / folder)[row])


def test_known_vectors_of_other_text_are_refused(models: Path, small_pool: Path, tmp_path: Path) -> None:
    model = str(models / "minilm")
    run(EmbeddingSettings(model=model, text="instruction"), pool=small_pool, out=tmp_path / "known")
    with pytest.raises(InputError, match="text instruction instead of conversation"):
        run(EmbeddingSettings(model=model), pool=small_pool, known=[tmp_path / "known"], out=tmp_path / "out")


def test_the_component_describes_its_artifact(models: Path, small_pool: Path, tmp_path: Path) -> None:
    from kfp import dsl

    from tamis.embedding.component import embed

    embeddings, metrics = dsl.Dataset(uri=str(tmp_path / "embeddings")), dsl.Metrics()
    settings = {"model": str(models / "minilm"), "batch_size": 4.0}
    embed.python_func(pool=dsl.Dataset(uri=str(small_pool)), settings=settings, embeddings=embeddings, metrics=metrics)
    assert embeddings.metadata["kind"] == "embeddings"
    assert metrics.metadata["dimensions"] == 384


PROMPT = "You answer for the shop. " + " ".join(f"Rule number {i}: be brief and kind." for i in range(60))
SUBJECTS = ("bread", "dough", "yeast", "Napoleon", "Caesar", "emperors")


def agents(talks: Sequence[str], system: str = PROMPT) -> list[list[Message]]:
    return [
        [Message(role="system", content=system), *conversation(f"Tell of {talk}", f"So: {talk}.")] for talk in talks
    ]


def test_a_beginning_longer_than_the_limit_does_not_make_all_vectors_equal(
    models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pool = make_pool(tmp_path / "pool", agents(SUBJECTS))
    model = str(models / "minilm")
    kept = run(EmbeddingSettings(model=model, shared_beginnings="keep"), pool=pool, out=tmp_path / "kept")
    assert (kept.facts["texts_cut"], kept.facts["equal_vectors"]) == (6, 6)
    assert sum(record.levelname == "WARNING" for record in caplog.records) == 2
    manifest = run(EmbeddingSettings(model=model), pool=pool, out=tmp_path / "out")
    assert (manifest.facts["texts_cut"], manifest.facts["equal_vectors"]) == (0, 0)
    assert [beginning["samples"] for beginning in manifest.facts["beginnings_left_out"]] == [6]
    assert sum(record.levelname == "WARNING" for record in caplog.records) == 3
    cosine = vectors_of(tmp_path / "out") @ vectors_of(tmp_path / "out").T
    assert cosine[0, 1] > cosine[0, 3:].max() + 0.2


def test_an_ordinary_pool_has_the_same_bytes_whatever_is_set(models: Path, tmp_path: Path) -> None:
    long = " ".join(f"word{i}" for i in range(400))
    talks = agents([*SUBJECTS, *(f"{i} {long}" for i in range(3))], system="You are a helpful assistant.")
    pool = make_pool(tmp_path / "pool", talks)
    for choice in ("leave_out", "keep"):
        settings = EmbeddingSettings(model=str(models / "minilm"), shared_beginnings=choice)
        manifest = run(settings, pool=pool, out=tmp_path / choice)
        assert (manifest.facts["texts_cut"], manifest.facts["equal_vectors"]) == (3, 0)
        assert "beginnings_left_out" not in manifest.facts
    assert (tmp_path / "leave_out/vectors.npy").read_bytes() == (tmp_path / "keep/vectors.npy").read_bytes()


def test_known_vectors_are_taken_over_where_the_same_text_was_read(models: Path, tmp_path: Path) -> None:
    talks = agents(SUBJECTS)
    plain = [conversation("What is a sieve?", "A tool that holds back what is coarse.")]
    settings = EmbeddingSettings(model=str(models / "minilm"))
    few = run(settings, pool=make_pool(tmp_path / "few", [*talks[:2], *plain]), out=tmp_path / "first")
    assert "beginnings_left_out" not in few.facts  # of two samples only
    pool = make_pool(tmp_path / "all", [*talks, *plain])
    manifest = run(settings, pool=pool, known=[tmp_path / "first"], out=tmp_path / "out")
    assert (manifest.facts["taken_over"], manifest.facts["equal_vectors"]) == (1, 0)
    again = run(settings, pool=pool, known=[tmp_path / "out"], out=tmp_path / "again")
    assert again.facts["taken_over"] == 7


@pytest.mark.parametrize("rows", [[], [[1, 2]], [[1, 2], [2, 1]], [[1, 2], [3, 4], [1, 2], [3, 4], [1, 2], [0, 0]]])
def test_rows_that_are_equal_are_counted(rows: list[list[int]]) -> None:
    from tamis.embedding.stage import equal_rows

    vectors = np.array(rows, np.float16).reshape(-1, 2)
    assert equal_rows(vectors) == sum(rows.count(row) > 1 for row in rows)
