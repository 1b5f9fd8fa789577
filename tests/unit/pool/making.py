"""What the tests of the pool share: files of every format, and pools made of them."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tamis.core.artifacts import Artifact, Manifest
from tamis.core.sample_columns import rows_of
from tamis.core.settings import parse
from tamis.pool.settings import PoolSettings
from tamis.pool.stage import run

Row = dict[str, Any]


def pairs(count: int, start: int = 0) -> list[Row]:
    """Rows of prompt and completion, all different."""
    return [{"prompt": f"Question {i}?", "completion": f"Answer {i}."} for i in range(start, start + count)]


def write_jsonl(path: Path, rows: Sequence[Any]) -> Path:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


def write_json(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text(json.dumps(list(rows), indent=1), encoding="utf-8")
    return path


def write_csv(path: Path, rows: Sequence[Row]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path: Path, rows: Sequence[Row]) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def settings_of(*sources: Row, **settings: Any) -> PoolSettings:
    """Settings with `sources`, which get the names s0, s1, … where they have none."""
    named = [{"name": f"s{i}"} | source for i, source in enumerate(sources)]
    return parse(PoolSettings, {"sources": named} | settings, where="test")


def make(out: Path, *sources: Row, **settings: Any) -> tuple[Manifest, list[Row]]:
    """A pool at `out` out of `sources`: its manifest and its rows."""
    manifest = run(settings_of(*sources, **settings), out=out)
    return manifest, rows_of(Artifact.open(out, "pool").table())


def turns(row: Row) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in row["messages"]]


def rejects_of(out: Path) -> list[Row]:
    rows: list[Row] = pq.read_table(out / "rejects.parquet").to_pylist()
    return rows
