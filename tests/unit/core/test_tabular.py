"""Columns of files."""

from __future__ import annotations

import gzip
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tamis.core.errors import InputError, StorageError
from tamis.core.idfiles import read_ids
from tamis.core.tabular import key_of, local_copy, read_columns


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_an_optional_column_that_is_missing_is_left_out_and_a_wanted_one_is_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"file.{kind}"
    if kind == "csv":
        path.write_text("a,b\n1,2\n")
    elif kind == "jsonl":
        path.write_text('{"a": "1", "b": "2"}\n')
    else:
        pq.write_table(pa.table({"a": ["1"], "b": ["2"]}), path)
    assert read_columns(path, ["a"], optional=["b", "c"], shown="it") == {"a": ["1"], "b": ["2"]}
    with pytest.raises(InputError, match="it has no column 'c'"):
        read_columns(path, ["a", "c"], shown="it")


def test_a_local_file_is_its_own_copy_and_a_missing_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "here.csv"
    path.write_text("a\n")
    assert local_copy(str(path), tmp_path) == path
    with pytest.raises(StorageError, match=r"gone\.csv does not exist"):
        local_copy(str(tmp_path / "gone.csv"), tmp_path)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_file_in_utf_16_is_told_how_to_convert_it(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(("a,b\n1,2\n" if suffix == "csv" else '{"a": 1}\n').encode("utf-16"))
    with pytest.raises(InputError) as error:
        read_columns(path, ["a"], shown="a")
    assert (error.value.allowed, "iconv" in error.value.action) == ("UTF-8", True)


DEEP = "[" * 100_000


@pytest.mark.parametrize("line", [DEEP, f'{{"a": {DEEP}', "{"])
def test_a_line_that_is_no_json_or_nests_too_deep_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"a": 1}}\n{line}\n')
    with pytest.raises(InputError) as refused:
        read_columns(path, ["a"], shown="it")
    assert refused.value.code == "input"
    assert "line 2" in refused.value.problem


@pytest.mark.parametrize("compression", ["snappy", "zstd"])
def test_a_damaged_page_of_a_parquet_file_is_the_file_s_fault(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": [f"{i:032x}" for i in range(5000)]}), path, compression=compression)
    data = bytearray(path.read_bytes())
    data[200:2000] = b"\xff" * 1800
    path.write_bytes(data)
    with pytest.raises(InputError) as refused:
        read_columns(path, ["a"], shown="it")
    assert (refused.value.code, refused.value.problem.startswith("it: ")) == ("input", True)
    with pytest.raises(InputError) as refused:
        read_ids(write_ids(path), setting="exclude")
    assert refused.value.code == "input"


def write_ids(damaged: Path) -> str:
    """The same damage in a file of ids."""
    path = damaged.with_name("ids.parquet")
    pq.write_table(pa.table({"id": [f"{i * 7919:032x}" for i in range(5000)]}), path)
    data = bytearray(path.read_bytes())
    data[200:2000] = b"\xff" * 1800
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (7, "7"),
        (7.0, "7"),
        (Decimal("7.00"), "7"),
        ("7.0", "7"),
        ("-7.00", "-7"),
        ("-0.0", "0"),
        ("007", "007"),
        ("007.0", "007.0"),
        ("7.5", "7.5"),
        (True, "true"),
        (b"x", "x"),
        (date(2024, 1, 2), "2024-01-02"),
        (datetime(2024, 1, 2, 3, tzinfo=UTC), "2024-01-02T03:00:00+00:00"),
        (time(3, 4), "03:04:00"),
        (timedelta(hours=1), "1:00:00"),
        ([date(2024, 1, 2)], '["2024-01-02"]'),
        ("\ud800x", "\\ud800x"),
        ({"a": "\ud800"}, '{"a":"\\ud800"}'),
        (" ", None),
        (float("nan"), None),
    ],
)
def test_values_of_all_types_are_keys_as_text(value: Any, key: str | None) -> None:
    assert key_of(value) == key


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_compressed_file_is_told_as_such(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(gzip.compress(b"a\n1\n"))
    with pytest.raises(InputError) as raised:
        read_columns(path, ["a"], shown="it")
    assert "gzip" in raised.value.problem
