"""The Kubeflow face of the selection stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from tamis.core.failures import failure_in
from tamis.selection.component import select
from tests.artifacts import make_curation, make_neighbors, make_pool
from tests.unit.selection.test_stage import IDS, SAMPLES, curation_rows, lines_of


def outputs(folder: Path) -> dict[str, dsl.Artifact]:
    return {
        "selection": dsl.Dataset(name="selection", uri=str(folder / "selection")),
        "metrics": dsl.Metrics(name="metrics", uri=str(folder / "metrics")),
    }


def test_a_subset_is_made_and_described(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool", SAMPLES)
    make_curation(tmp_path / "curation", curation_rows())
    out = outputs(tmp_path)
    # Kubeflow hands the whole numbers inside a dictionary over as floats.
    settings = {"name": "best", "strategy": "ds2", "size": 6.0, "min_score": 3.0, "seed": 1.0}
    select.python_func(
        pool=dsl.Dataset(uri=str(pool)),
        curation=dsl.Dataset(uri=str(tmp_path / "curation")),
        settings=settings,
        **out,
    )
    assert len(lines_of(tmp_path / "selection")) == 6
    described = out["selection"].metadata
    assert (described["kind"], described["name"], described["rows"]) == ("selection", "best", 6)
    assert out["metrics"].metadata["eligible"] == 12


def test_without_curation_and_graph_a_random_subset_is_made(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool", SAMPLES)
    settings = {"name": "any", "strategy": "random", "size": 0.5}
    select.python_func(pool=dsl.Dataset(uri=str(pool)), settings=settings, **outputs(tmp_path))
    assert len(lines_of(tmp_path / "selection")) == 12


def test_the_graph_reaches_the_strategy(tmp_path: Path) -> None:
    import numpy as np

    pool = make_pool(tmp_path / "pool", SAMPLES)
    distances = np.arange(24, dtype=float)[:, None]
    make_neighbors(tmp_path / "neighbors", IDS, np.zeros((24, 1)), distances)
    select.python_func(
        pool=dsl.Dataset(uri=str(pool)),
        neighbors=dsl.Dataset(uri=str(tmp_path / "neighbors")),
        settings={"name": "far", "strategy": "knn", "size": 2, "k": 1},
        **outputs(tmp_path),
    )
    assert [line["id"] for line in lines_of(tmp_path / "selection")] == IDS[22:]


@pytest.mark.parametrize(("changed", "reason"), [({"strategy": "best"}, "strategy: seen 'best'"), ({"size": 25}, "24")])
def test_a_subset_that_cannot_be_made_is_a_failed_cell(tmp_path: Path, changed: dict[str, Any], reason: str) -> None:
    pool = make_pool(tmp_path / "pool", SAMPLES)
    settings = {"name": "x", "strategy": "random", "size": 3} | changed
    select.python_func(pool=dsl.Dataset(uri=str(pool)), settings=settings, **outputs(tmp_path))
    failure = failure_in(tmp_path / "selection")
    assert failure is not None
    assert (failure.name, failure.stage) == ("x", "selection")
    assert settings.items() <= failure.settings["selection"].items()
    assert reason in failure.reason


def test_all_inputs_but_the_pool_are_optional() -> None:
    inputs = select.component_spec.inputs
    assert {name for name, spec in inputs.items() if spec.optional} == set(inputs) - {"pool", "settings"}
