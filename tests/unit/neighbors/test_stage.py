"""The neighbors stage on artifacts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from kfp import dsl

from tamis.core.artifacts import Artifact
from tamis.core.errors import ArtifactError, InputError, SettingsError
from tamis.core.settings import parse
from tamis.neighbors.component import find_neighbors
from tamis.neighbors.settings import NeighborsSettings
from tamis.neighbors.stage import run
from tests.artifacts import NoSettings, Step, make, make_embeddings
from tests.unit.neighbors.test_search import brute_force


def vectors_of(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 16)).astype(np.float32)


def names(n: int) -> list[str]:
    return [f"{i:032x}" for i in range(n)]


def test_the_artifact_holds_neighbours_distances_ids_and_facts(tmp_path: Path) -> None:
    embeddings = make_embeddings(tmp_path / "embeddings", names(200), vectors_of(200))
    manifest = run(NeighborsSettings(k=12), embeddings=embeddings, out=tmp_path / "out")
    indices, distances = np.load(tmp_path / "out/indices.npy"), np.load(tmp_path / "out/distances.npy")
    assert (indices.shape, indices.dtype, distances.dtype) == ((200, 12), np.int32, np.float32)
    expected, far = brute_force(np.load(embeddings / "vectors.npy"), 12)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(distances, far)
    assert pq.read_table(tmp_path / "out/ids.parquet")["id"].to_pylist() == names(200)
    assert manifest.rows == 200
    assert manifest.facts == {
        "k": 12,
        "metric": "cosine",
        "exact": True,
        "copies": 0,
        "compared_again": 0,
        "taken_over": 0,
    }
    assert Artifact.open(tmp_path / "out", "neighbors").manifest == manifest


def test_k_is_lowered_in_a_small_pool_and_that_is_a_fact(tmp_path: Path) -> None:
    embeddings = make_embeddings(tmp_path / "embeddings", names(5), vectors_of(5))
    manifest = run(NeighborsSettings(k=32), embeddings=embeddings, out=tmp_path / "out")
    assert np.load(tmp_path / "out/indices.npy").shape == (5, 4)
    assert manifest.facts["warnings"] == ["k was lowered from 32 to 4: there are only 5 samples"]


def test_two_samples_are_too_few(tmp_path: Path) -> None:
    embeddings = make_embeddings(tmp_path / "embeddings", names(2), vectors_of(2))
    with pytest.raises(InputError, match=r"\b2 samples"):
        run(NeighborsSettings(), embeddings=embeddings, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_vector_of_nan_is_named_by_its_id(tmp_path: Path) -> None:
    def write(step: Step[NoSettings]) -> None:
        vectors = vectors_of(10).astype(np.float16)
        vectors[7, 3] = np.nan
        np.save(step.out / "vectors.npy", vectors)
        pq.write_table(pq.read_table(good / "ids.parquet"), step.out / "ids.parquet")

    good = make_embeddings(tmp_path / "good", names(10), vectors_of(10))
    make("embeddings", tmp_path / "embeddings", write)
    with pytest.raises(InputError, match=rf"row 7 \(id {names(10)[7]}\) is not finite"):
        run(NeighborsSettings(), embeddings=tmp_path / "embeddings", out=tmp_path / "out")


def test_ids_and_vectors_of_different_number_are_refused(tmp_path: Path) -> None:
    embeddings = make_embeddings(tmp_path / "embeddings", names(9), vectors_of(10))
    with pytest.raises(InputError, match=r"vectors.npy has 10 rows but ids.parquet has 9"):
        run(NeighborsSettings(), embeddings=embeddings, out=tmp_path / "out")


def test_copies_are_counted_and_stay_in_the_graph(tmp_path: Path) -> None:
    vectors = vectors_of(50)
    vectors[10] = vectors[20] = vectors[30]
    embeddings = make_embeddings(tmp_path / "embeddings", names(50), vectors)
    manifest = run(NeighborsSettings(k=4), embeddings=embeddings, out=tmp_path / "out")
    assert manifest.facts["copies"] == 3
    assert np.load(tmp_path / "out/indices.npy")[10, :2].tolist() == [20, 30]


def test_auto_is_approximate_beyond_its_limit_and_measures_recall(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    embeddings = make_embeddings(tmp_path / "embeddings", names(600), vectors_of(600))
    settings = NeighborsSettings(k=8, exact_up_to=20, recall_sample=100)
    manifest = run(settings, embeddings=embeddings, out=tmp_path / "out")
    assert manifest.facts["exact"] is False
    assert manifest.facts["recall_sample"] == 100
    assert manifest.facts["recall_at_8"] > 0.98
    assert manifest.facts["search_effort"] >= 128
    assert "warnings" not in manifest.facts


def test_a_recall_that_is_not_reached_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    monkeypatch.setattr("tamis.neighbors.approximate._MOST_EFFORT", 16)
    embeddings = make_embeddings(tmp_path / "embeddings", names(3000), vectors_of(3000))
    settings = NeighborsSettings(k=8, method="approximate", links=4, build_effort=16, search_effort=16, recall=0.999)
    manifest = run(settings, embeddings=embeddings, out=tmp_path / "out")
    assert "less than the 0.999 asked for" in manifest.facts["warnings"][0]


def read(out: Path) -> tuple[np.ndarray, np.ndarray]:
    return np.load(out / "indices.npy"), np.load(out / "distances.npy")


@pytest.mark.parametrize("order", [(3, 1, 2), (2, 3, 1)])
def test_parts_make_the_graph_of_one_run(tmp_path: Path, order: tuple[int, ...]) -> None:
    vectors = vectors_of(500)
    vectors[100:108] = vectors[7]  # copies, in more than one part
    vectors[300:308] = vectors[7]
    embeddings = make_embeddings(tmp_path / "embeddings", names(500), vectors)
    run(NeighborsSettings(k=6), embeddings=embeddings, out=tmp_path / "whole")
    parts = []
    for shard in order:
        parts.append(tmp_path / f"part-{shard}")
        run(NeighborsSettings(k=6, shard=f"{shard}/3"), embeddings=embeddings, out=parts[-1])
    manifest = run(NeighborsSettings(k=6), embeddings=embeddings, parts=parts, out=tmp_path / "merged")
    assert manifest.facts["taken_over"] == 500
    for merged, whole in zip(read(tmp_path / "merged"), read(tmp_path / "whole"), strict=True):
        np.testing.assert_array_equal(merged, whole)


def test_a_missing_part_is_searched_and_counted(tmp_path: Path) -> None:
    embeddings = make_embeddings(tmp_path / "embeddings", names(300), vectors_of(300))
    run(NeighborsSettings(k=6, shard="2/3"), embeddings=embeddings, out=tmp_path / "part")
    manifest = run(NeighborsSettings(k=6), embeddings=embeddings, parts=[tmp_path / "part"], out=tmp_path / "out")
    assert (manifest.rows, manifest.facts["taken_over"]) == (300, 100)
    np.testing.assert_array_equal(read(tmp_path / "out")[0], brute_force(np.load(embeddings / "vectors.npy"), 6)[0])


def test_a_part_is_no_graph(tmp_path: Path) -> None:
    embeddings = make_embeddings(tmp_path / "embeddings", names(300), vectors_of(300))
    run(NeighborsSettings(k=6, shard="2/3"), embeddings=embeddings, out=tmp_path / "part")
    with pytest.raises(ArtifactError, match="neighbors_part"):
        Artifact.open(tmp_path / "part", "neighbors")


@pytest.mark.parametrize("added", [1, 5, 200])
def test_added_samples_extend_a_graph(tmp_path: Path, added: int) -> None:
    ids, vectors = names(400 + added), vectors_of(400 + added)
    vectors[50:60] = vectors[5]
    new = np.random.default_rng(1).choice(np.arange(10, 400 + added), added, replace=False)  # not only at the end
    old = np.setdiff1d(np.arange(400 + added), new)
    before = make_embeddings(tmp_path / "before", [ids[i] for i in old], vectors[old])
    after = make_embeddings(tmp_path / "after", ids, vectors)
    settings = NeighborsSettings(k=8)
    run(settings, embeddings=before, out=tmp_path / "graph")
    manifest = run(settings, embeddings=after, known=[tmp_path / "graph"], out=tmp_path / "extended")
    run(settings, embeddings=after, out=tmp_path / "whole")
    assert manifest.facts["taken_over"] == 400
    assert manifest.facts["exact"]
    for extended, whole in zip(read(tmp_path / "extended"), read(tmp_path / "whole"), strict=True):
        np.testing.assert_array_equal(extended, whole)


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (lambda ids, vectors: (ids[1:], vectors[1:]), rf"\b1 of its samples .*{names(1)[0]}"),
        (lambda ids, vectors: (ids[::-1], vectors[::-1]), "order"),
        (lambda ids, vectors: (ids, -vectors + 1), r"vector .*\b0\b"),
    ],
)
def test_a_graph_of_something_else_is_refused(
    tmp_path: Path, change: Callable[[list[str], np.ndarray], tuple[list[str], np.ndarray]], seen: str
) -> None:
    ids, vectors = names(60), vectors_of(60)
    run(NeighborsSettings(k=4), embeddings=make_embeddings(tmp_path / "e", ids, vectors), out=tmp_path / "graph")
    other = make_embeddings(tmp_path / "other", *change(ids, vectors))
    with pytest.raises(InputError, match=seen):
        run(NeighborsSettings(k=4), embeddings=other, known=[tmp_path / "graph"], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_graph_with_fewer_neighbours_is_refused(tmp_path: Path) -> None:
    embeddings = make_embeddings(tmp_path / "e", names(60), vectors_of(60))
    run(NeighborsSettings(k=4), embeddings=embeddings, out=tmp_path / "graph")
    with pytest.raises(InputError, match=r"\b4 neighbours .*\bk\b.*\b5\b"):
        run(NeighborsSettings(k=5), embeddings=embeddings, known=[tmp_path / "graph"], out=tmp_path / "out")


def test_a_shard_that_is_not_there_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"no shard 4 of 3; allowed: 1/3 to 3/3"):
        parse(NeighborsSettings, {"shard": "4/3"}, where="neighbors")


def test_the_component_passes_settings_and_paths(tmp_path: Path) -> None:
    embeddings = make_embeddings(tmp_path / "embeddings", names(30), vectors_of(30))
    given = dsl.Dataset(name="embeddings", uri=str(embeddings))
    out, metrics = (
        dsl.Dataset(name="neighbors", uri=str(tmp_path / "out")),
        dsl.Metrics(name="m", uri=str(tmp_path / "m")),
    )
    find_neighbors.python_func(embeddings=given, settings={"k": 3.0}, neighbors=out, metrics=metrics)
    assert out.metadata["kind"] == "neighbors"
    assert metrics.metadata["k"] == 3
