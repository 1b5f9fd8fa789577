"""`tamis.load` of a run in object storage."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import tamis
from tamis.core.storage import locate, upload
from tests.artifacts import conversation, make_embeddings, make_pool, make_selection


def test_a_run_in_object_storage_is_the_same_table(remote: str, tmp_path: Path) -> None:
    samples = [conversation(f"What is {i}?", f"{i}.") for i in range(6)]
    run = tmp_path / "run"
    make_pool(run / "pool", samples)
    make_selection(run / "selections/best", samples[2:4], name="best")
    ids = tamis.load(run)["id"].to_pylist()
    make_embeddings(run / "embeddings", ids, np.eye(6, dtype=np.float32))
    for file in (file for file in run.rglob("*") if file.is_file()):
        upload(file, locate(f"{remote}/run/{file.relative_to(run).as_posix()}"))
    assert tamis.load(f"{remote}/run", messages=True).equals(tamis.load(run, messages=True))
    assert tamis.load(f"{remote}/run", ids=[ids[3]], messages=True)["messages"].to_pylist() == [samples[3]]
    assert tamis.load(f"{remote}/run/embeddings").equals(tamis.load(run / "embeddings"))
