"""Columns of files."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tamis.core.errors import InputError, StorageError
from tamis.core.tabular import local_copy, read_columns


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
