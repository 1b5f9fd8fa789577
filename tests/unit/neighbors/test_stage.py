"""The neighbors stage on artifacts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from kfp import dsl

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError
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
    assert manifest.facts == {"k": 12, "metric": "cosine", "exact": True, "copies": 0, "compared_again": 0}
    assert Artifact.open(tmp_path / "out", "neighbors").manifest == manifest


def test_k_is_lowered_in_a_small_pool_and_that_is_a_fact(tmp_path: Path) -> None:
    embeddings = make_embeddings(tmp_path / "embeddings", names(5), vectors_of(5))
    manifest = run(NeighborsSettings(k=32), embeddings=embeddings, out=tmp_path / "out")
    assert np.load(tmp_path / "out/indices.npy").shape == (5, 4)
    assert manifest.facts["warnings"] == ["k was lowered from 32 to 4: there are only 5 samples"]


def test_two_samples_are_too_few(tmp_path: Path) -> None:
    embeddings = make_embeddings(tmp_path / "embeddings", names(2), vectors_of(2))
    with pytest.raises(InputError, match="2 samples have too few neighbours"):
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
    assert manifest.facts["recall_at_8"] > 0.95


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
