"""The Kubeflow face of the pool."""

from __future__ import annotations

from pathlib import Path

from kfp import dsl

from tamis.core.artifacts import Artifact
from tamis.pool.component import pool
from tests.unit.pool.making import pairs, write_jsonl


def test_the_component_writes_a_pool_and_describes_it(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", pairs(5))
    made = dsl.Dataset(name="pool", uri=str(tmp_path / "pool"))
    metrics = dsl.Metrics(name="metrics", uri=str(tmp_path / "metrics"))
    # Kubeflow gives whole numbers inside dictionaries as floats.
    settings = {"sources": [{"name": "s", "path": str(path), "limit": 3.0, "seed": 1.0}], "max_row_mib": 4.0}
    pool.python_func(settings=settings, pool=made, metrics=metrics)
    manifest = Artifact.open(tmp_path / "pool", "pool").manifest
    assert made.metadata == {"kind": "pool", "name": "", "rows": 3, "content_hash": manifest.content_hash}
    assert metrics.metadata["kept"] == 3
    assert metrics.metadata["not_drawn"] == 2
    assert metrics.metadata["mean_turns"] == 2
