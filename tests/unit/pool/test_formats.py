"""Files of every format, alone and together, are read from local paths."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tamis.core.errors import InputError, StorageError
from tamis.pool import sources
from tamis.pool.settings import PoolSettings
from tests.unit.pool.making import (
    Row,
    make,
    pairs,
    rejects_of,
    turns,
    write_csv,
    write_json,
    write_jsonl,
    write_parquet,
)

WRITERS: dict[str, Callable[[Path, Sequence[Row]], Path]] = {
    "jsonl": write_jsonl,
    "jsonl.gz": write_jsonl,
    "json": write_json,
    "csv": write_csv,
    "parquet": write_parquet,
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_gives_the_same_samples(tmp_path: Path, suffix: str) -> None:
    rows = [{"prompt": 'A "quoted", long\nquestion?', "completion": "Ä\r\nfine 答え"}, *pairs(300)]
    path = WRITERS[suffix](tmp_path / f"rows.{suffix}", rows)
    manifest, samples = make(tmp_path / "pool", {"path": str(path)})
    assert manifest.rows == 301
    assert [turns(row) for row in samples] == [[("user", r["prompt"]), ("assistant", r["completion"])] for r in rows]
    assert [row["origin"] for row in samples] == list(range(301))
    assert rejects_of(tmp_path / "pool") == []


def test_a_json_file_may_have_one_object_a_line(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.json", pairs(3))
    assert make(tmp_path / "pool", {"path": str(path)})[0].rows == 3


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv"])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path, suffix: str) -> None:
    path = WRITERS[suffix](tmp_path / f"rows.{suffix}", pairs(2))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    manifest, _ = make(tmp_path / "pool", {"path": str(path)})
    assert (manifest.rows, manifest.facts["rejected"]) == (2, 0)


def test_blank_lines_of_jsonl_are_no_rows(tmp_path: Path) -> None:
    first, second = (json.dumps(row) for row in pairs(2))
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{first}\n\n  \n{second}")
    manifest, rows = make(tmp_path / "pool", {"path": str(path)})
    assert [row["origin"] for row in rows] == [0, 1]
    assert manifest.facts["read"] == 2


def test_a_folder_gives_its_files_by_name_and_skips_what_is_no_data(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "data"
    (folder / "b").mkdir(parents=True)
    (folder / ".cache").mkdir()
    write_jsonl(folder / "c.jsonl", pairs(2, 20))
    write_parquet(folder / "b" / "x.parquet", pairs(2, 10))
    write_csv(folder / "a.csv", pairs(2))
    write_jsonl(folder / ".cache" / "old.jsonl", pairs(2, 90))
    (folder / "README.md").write_text("about")
    manifest, rows = make(tmp_path / "pool", {"path": str(folder)})
    assert [turns(row)[0][1] for row in rows] == [f"Question {i}?" for i in (0, 1, 10, 11, 20, 21)]
    assert [row["origin"] for row in rows] == [0, 1, 2, 3, 4, 5]
    assert manifest.facts["sources"]["s0"]["files"] == 3
    assert "README.md" in caplog.text


def test_a_glob_gives_the_files_that_match(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"d{i}").mkdir()
        write_jsonl(tmp_path / f"d{i}" / "rows.jsonl", pairs(1, i))
    write_jsonl(tmp_path / "d0" / "other.jsonl", pairs(1, 9))
    _, rows = make(tmp_path / "pool", {"path": str(tmp_path / "d[02]" / "rows.*")})
    assert [turns(row)[0][1] for row in rows] == ["Question 0?", "Question 2?"]
    _, rows = make(tmp_path / "deep", {"path": str(tmp_path / "d?" / "**" / "*.jsonl")})
    assert len(rows) == 4


def test_a_finished_pool_is_a_source(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", pairs(3))
    _, rows = make(tmp_path / "first", {"path": str(tmp_path / "rows.jsonl")})
    _, again = make(tmp_path / "second", {"path": str(tmp_path / "first"), "keep": ["source"]})
    assert [row["id"] for row in again] == [row["id"] for row in rows]
    assert again[0]["metadata"] == '{"source": "s0"}'


def test_nothing_at_a_path_names_what_lies_beside_it(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", pairs(1))
    with pytest.raises(StorageError, match=r"trian\.jsonl") as error:
        make(tmp_path / "pool", {"path": str(tmp_path / "trian.jsonl")})
    assert error.value.allowed == f"in {tmp_path}: train.jsonl"
    with pytest.raises(StorageError, match=r"\*\.csv") as error:
        make(tmp_path / "pool", {"path": str(tmp_path / "*.csv")})
    assert error.value.allowed == f"in {tmp_path}: train.jsonl"
    with pytest.raises(StorageError) as error:
        make(tmp_path / "pool", {"path": str(tmp_path / "no" / "where.csv")})
    assert str(tmp_path / "no") in error.value.allowed


def test_a_file_of_another_format_names_those_that_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.xlsx"
    path.write_bytes(b"PK")
    with pytest.raises(InputError, match=r"rows\.xlsx") as error:
        make(tmp_path / "pool", {"path": str(path)})
    assert ".jsonl, .jsonl.gz, .json, .csv, .parquet" in error.value.allowed


@pytest.mark.parametrize(
    ("name", "content", "seen"),
    [
        ("a.json", b'[{"prompt": "Q"', "JSON"),
        ("a.json", b'["\xff"]', "UTF-8: byte 2"),
        ("a.json", b"7", "JSON .*int"),
        ("a.json", b'{\n "data": []\n}', "array .*object"),
        ("a.json", b"[" * 100_000, "JSON"),
        ("a.jsonl.gz", b"plain text", r"\b0 rows"),
        ("a.parquet", b"PAR1 and no more", "Parquet"),
        ("a.parquet", b"", "Parquet"),
        ("a.csv", b"a,b,a\n1,2,3\n", "header .*\\ba\\b"),
        ("a.csv", b'"a"b,c\n1,2\n', "line 1 .*CSV"),
        ("a.csv", b"a" * (1 << 24) + b"b,c\n1,2\n", "header .*16 MiB"),
    ],
)
def test_a_file_that_cannot_be_read_as_a_whole_is_an_error(
    tmp_path: Path, name: str, content: bytes, seen: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}\b.*{seen}"):
        make(tmp_path / "pool", {"path": str(tmp_path / name)})
    assert not (tmp_path / "pool").exists()


def test_a_truncated_gzip_file_is_an_error(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl.gz", pairs(5000))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match=r"a\.jsonl\.gz .*\b[1-9]\d* rows"):
        make(tmp_path / "pool", {"path": str(path)})


def test_a_damaged_page_of_a_parquet_file_is_an_error(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", pairs(5000))
    content = bytearray(path.read_bytes())
    content[200:20_000] = b"\x07" * 19_800
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.parquet "):
        make(tmp_path / "pool", {"path": str(path)})


def test_a_json_array_too_large_to_load_is_an_error(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", [{"prompt": "Q" * (1 << 20), "completion": "A"}])
    with pytest.raises(InputError, match=r"a\.json .*\b1 MiB") as error:
        make(tmp_path / "pool", {"path": str(path)}, max_json_mib=1)
    assert "1 MiB (pool.max_json_mib)" in error.value.allowed
    assert "JSONL" in error.value.action


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_other_text_types_of_parquet_are_text(tmp_path: Path, kind: Any) -> None:
    table = pa.table({"prompt": pa.array(["Q1", "Q2"]).cast(kind), "completion": pa.array(["A", "A"]).cast(kind)})
    pq.write_table(table, tmp_path / "a.parquet")
    assert make(tmp_path / "pool", {"path": str(tmp_path / "a.parquet")})[0].rows == 2


def test_files_without_rows_are_allowed_beside_others(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    (tmp_path / "b.csv").write_text("")
    (tmp_path / "c.json").write_text("[]")
    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), tmp_path / "e.parquet")
    write_jsonl(tmp_path / "d.jsonl", pairs(1))
    with pytest.raises(InputError, match=r"e\.parquet .*'completion'"):
        make(tmp_path / "pool", {"path": str(tmp_path)})
    (tmp_path / "e.parquet").unlink()
    assert make(tmp_path / "pool", {"path": str(tmp_path / "?.*")})[0].rows == 1


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "json", "csv"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_file_in_utf_16_is_an_error_that_says_how_to_convert_it(tmp_path: Path, suffix: str, encoding: str) -> None:
    path = WRITERS[suffix](tmp_path / f"rows.{suffix}", pairs(20))
    if suffix.endswith(".gz"):
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).decode().encode(encoding)))
    else:
        path.write_bytes(path.read_bytes().decode().encode(encoding))
    with pytest.raises(InputError) as error:
        make(tmp_path / "pool", {"path": str(path)})
    assert (error.value.allowed, "iconv -f UTF-" in error.value.action) == ("UTF-8", True)


def test_turns_that_are_maps_in_parquet_are_read(tmp_path: Path) -> None:
    conversations = [
        [[("role", "user"), ("content", f"Q{i}")], [("role", "assistant"), ("content", "A")]] for i in (0, 1)
    ]
    twice = [[("role", "user"), ("role", "user"), ("content", "Q")], [("role", "assistant"), ("content", "A")]]
    kind = pa.list_(pa.map_(pa.string(), pa.string()))
    pq.write_table(pa.table({"messages": pa.array([*conversations, twice], kind)}), tmp_path / "a.parquet")
    manifest, rows = make(tmp_path / "pool", {"path": str(tmp_path / "a.parquet")}, max_reject_share=0.4)
    assert [turns(row) for row in rows] == [[("user", f"Q{i}"), ("assistant", "A")] for i in (0, 1)]
    assert manifest.facts["reject_reasons"] == {"wrong type": 1}


def test_columns_of_csv_without_a_name_are_called_by_their_places(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(",prompt, ,completion\n0,Q,x,A\n")
    source = {"path": str(tmp_path / "a.csv")}
    assert turns(make(tmp_path / "pool", source)[1][0]) == [("user", "Q"), ("assistant", "A")]
    _, rows = make(tmp_path / "kept", source | {"keep": ["column 1", "column 3"]})
    assert json.loads(rows[0]["metadata"]) == {"column 1": "0", "column 3": "x"}


def test_blank_lines_are_not_counted_as_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = PoolSettings.model_validate({"sources": [{"name": "a", "path": "a"}]})
    file = tmp_path / "rows.jsonl"
    row = b'{"instruction": "What?", "output": "That."}'
    for text in (row * 0, row, row + b"\n", b"\n\r\n  \n" + row + b"\n\n" + row, b"\n".join([row] * 20) + b"\n\n"):
        file.write_bytes(text)
        for block in (1, 7, len(row), 1 << 20):
            monkeypatch.setattr(sources, "_COUNTED", block)
            assert sources.count_rows(str(file), settings) == text.count(b"What"), (text, block)
