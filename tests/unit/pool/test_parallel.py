"""Rows that several processes parse: the same pool, counts and errors as with one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tamis.core.errors import InputError
from tamis.pool import rows as rows_module
from tests.unit.pool.making import make, pairs, rejects_of, write_csv, write_json, write_jsonl, write_parquet

ROWS = 9000  # several pieces, and more than one block


@pytest.fixture(autouse=True)
def _from_the_first_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "_ALONE", 0)


def written(folder: Path, kind: str) -> Path:
    rows: list[Any] = [row | {"id": str(i), "odd": str(i % 2)} for i, row in enumerate(pairs(ROWS))]
    folder.mkdir()
    if kind == "csv":
        return write_csv(folder / "a.csv", rows)
    if kind == "parquet":
        return write_parquet(folder / "a.parquet", rows)
    if kind == "json":
        return write_json(folder / "a.json", rows)
    if kind == "arrow":
        table = pa.Table.from_pylist(rows)
        with pa.ipc.new_file(folder / "a.arrow", table.schema) as file:
            file.write_table(table)
        return folder / "a.arrow"
    return write_jsonl(folder / f"a.{kind}", rows)


def content(pool: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(pool.glob("*.parquet"))}


def facts(pool: Path) -> Any:
    manifest = json.loads((pool / "manifest.json").read_text())
    return manifest["facts"]


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "json", "csv", "parquet", "arrow"])
def test_any_number_of_processes_writes_the_same_bytes(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path / "data", kind)
    source = {"path": str(path), "keep": ["id"], "where": {"odd": "1"}}
    for processes in (1, 3):
        _, rows = make(tmp_path / str(processes), source, processes=processes)
        assert [row["origin"] for row in rows] == list(range(1, ROWS, 2))
    assert content(tmp_path / "1") == content(tmp_path / "3")
    assert facts(tmp_path / "1") == facts(tmp_path / "3")


def test_rejected_rows_and_fields_that_are_not_read_are_counted_alike(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    first: list[Any] = pairs(5000)
    for i in range(0, 5000, 7):
        first[i] = first[i] | {f"name {i}": 1, "weight": i % 2}  # more names than are counted one by one
    lines = [json.dumps(row) for row in first]
    lines[4321] = "{broken"
    lines[10] = ""  # not a row
    (data / "a.jsonl").write_text("\n".join(lines) + "\n")
    write_jsonl(data / "b.jsonl", [*pairs(3000, 4000), {"prompt": 5, "completion": "x"}])
    for processes in (1, 3):
        make(tmp_path / str(processes), {"path": str(data)}, processes=processes, max_lost_share=1)
    assert content(tmp_path / "1") == content(tmp_path / "3")
    assert facts(tmp_path / "1") == facts(tmp_path / "3")
    rejects = rejects_of(tmp_path / "3")
    assert [(row["file"], row["row"]) for row in rejects] == [("a.jsonl", 4320), ("b.jsonl", 3000)]


def test_a_draw_and_a_limit_do_not_depend_on_processes(tmp_path: Path) -> None:
    path = str(written(tmp_path / "data", "jsonl"))
    for name, source in (("draw", {"limit": 50, "seed": 1}), ("first", {"limit": 4321})):
        for processes in (1, 2):
            make(tmp_path / f"{name}{processes}", {"path": path} | source, processes=processes)
        assert content(tmp_path / f"{name}1") == content(tmp_path / f"{name}2")


@pytest.mark.parametrize("processes", [1, 2])
def test_a_damaged_file_is_named(tmp_path: Path, processes: int) -> None:
    path = written(tmp_path / "data", "jsonl.gz")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError) as error:
        make(tmp_path / "pool", {"path": str(path)}, processes=processes)
    assert "a.jsonl.gz" in error.value.problem


def test_processes_are_not_part_of_the_key(tmp_path: Path) -> None:
    path = str(write_jsonl(tmp_path / "a.jsonl", pairs(3)))
    made = [make(tmp_path / str(n), {"path": path}, processes=n)[0] for n in (1, 2)]
    assert made[0].key == made[1].key
