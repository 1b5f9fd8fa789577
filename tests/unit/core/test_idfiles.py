"""Files of ids."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tamis.core.errors import InputError, SettingsError, StorageError
from tamis.core.idfiles import read_ids

IDS = [f"{i:032x}" for i in (7, 3, 10)]
SORTED = [bytes.fromhex(identity) for identity in sorted(IDS)]


def write(path: Path, content: str) -> str:
    path.write_text(content, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ids.txt", "\n".join(IDS)),
        ("ids.txt", "\ufeff" + "\r\n".join(IDS) + "\r\n\r\n"),
        ("ids.TXT", f"  {IDS[0]}\n{IDS[1]}\n{IDS[1]}\n{IDS[2]}"),
        ("ids.jsonl", "\n\n".join(json.dumps({"why": "test", "id": i}) for i in IDS) + "\n"),
        ("ids.csv", "why,id\n" + "".join(f"test,{i}\n" for i in IDS)),
    ],
)
def test_ids_are_read_from_text(tmp_path: Path, name: str, content: str) -> None:
    keys = read_ids(write(tmp_path / name, content), setting="exclude")
    assert [key.ljust(16, b"\0") for key in keys.tolist()] == SORTED


def test_ids_are_read_from_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": IDS, "rank": [0, 1, 2]}), tmp_path / "selection.parquet")
    assert len(read_ids(str(tmp_path / "selection.parquet"), setting="exclude")) == 3


@pytest.mark.parametrize("name", ["ids.txt", "ids.jsonl"])
def test_an_empty_file_has_no_ids(tmp_path: Path, name: str) -> None:
    assert len(read_ids(write(tmp_path / name, ""), setting="exclude")) == 0


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("ids.txt", f"{IDS[0]}\nrow 12\n", "entry 2 .*'row 12'"),
        ("ids.jsonl", json.dumps({"id": IDS[0]}) + "\n\n{id}", "line 3"),
        ("ids.jsonl", '{"identity": 3}', "line 1 .*`id`"),
        ("ids.jsonl", '{"id": 3}', "line 1 .*`id`"),
        ("ids.jsonl", "[1]", "row 0 .*`id`"),
        ("ids.csv", "identity,why\n3,test\n", "'id'.* identity, why"),
        ("ids.csv", "", "ids.csv"),
        ("ids.parquet", "no parquet", "ids.parquet"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(tmp_path: Path, name: str, content: str, place: str) -> None:
    with pytest.raises(InputError, match=place) as caught:
        read_ids(write(tmp_path / name, content), setting="exclude")
    assert f"exclude: {tmp_path / name}" in str(caught.value)


def test_text_that_is_not_utf8_is_told(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="UTF-16"):
        read_ids(str(tmp_path / "ids.txt"), setting="exclude")


def test_a_file_of_another_kind_is_refused_with_the_kinds(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"'\.xlsx'") as caught:
        read_ids(str(tmp_path / "ids.xlsx"), setting="exclude")
    assert "jsonl" in caught.value.allowed


def test_a_file_that_is_nowhere_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=str(tmp_path / "ids.txt")):
        read_ids(str(tmp_path / "ids.txt"), setting="exclude")
