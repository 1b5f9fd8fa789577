"""Files of every format, alone and together, are read from local paths."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tamis.core.errors import InputError, SettingsError, StorageError
from tamis.pool import sources
from tamis.pool.openings import FORMATS
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
    assert FORMATS in error.value.allowed


@pytest.mark.parametrize(
    ("name", "content", "seen"),
    [
        ("a.json", b'[{"prompt": "Q"', "JSON"),
        ("a.json", b'["\xff"]', "UTF-8: byte 2"),
        ("a.json", b"7", "JSON .*int"),
        ("a.json", b'{\n "data": []\n}', "array .*object"),
        ("a.json", b"[" * 100_000, "JSON"),
        ("a.jsonl.gz", b"plain text", "damaged"),
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
    with pytest.raises(InputError, match=r"a\.jsonl\.gz .*damaged"):
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
    with pytest.raises(InputError, match=r"e\.parquet .*'prompt'"):
        make(tmp_path / "pool", {"path": str(tmp_path)})
    (tmp_path / "e.parquet").unlink()
    assert make(tmp_path / "pool", {"path": str(tmp_path / "?.*")})[0].rows == 1


UMLAUTS = [{"prompt": f"Wie heißt die Größe Nr. {i}?", "completion": f"Äußerst schön: {i} µ"} for i in range(20)]


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "json", "csv"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "cp1252"])
def test_a_text_in_another_encoding_is_read_as_in_utf_8(tmp_path: Path, suffix: str, encoding: str) -> None:
    plain = suffix.removesuffix(".gz")
    expected = make(tmp_path / "expected", {"path": str(WRITERS[plain](tmp_path / f"rows.{plain}", UMLAUTS))})[1]
    text = (tmp_path / f"rows.{plain}").read_text("utf-8")
    text = json.dumps(UMLAUTS, ensure_ascii=False, indent=1) if plain == "json" else text
    if plain == "jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in UMLAUTS)
    data = text.encode(encoding)
    path = tmp_path / f"other.{suffix}"
    path.write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
    for given in (None, encoding.removesuffix("-sig")):
        manifest, rows = make(tmp_path / f"pool-{given}", {"path": str(path), "encoding": given})
        assert [row["id"] for row in rows] == [row["id"] for row in expected]
        guessed = manifest.facts["sources"]["s0"].get("guessed")
        if given or encoding == "utf-8-sig":
            assert guessed is None
        else:
            (how,) = guessed
            assert (guessed[how], "(likely)" in how) == (1, encoding == "cp1252")


def test_a_few_broken_rows_do_not_make_a_file_one_of_another_encoding(tmp_path: Path) -> None:
    lines = [
        json.dumps(row, ensure_ascii=False).encode("cp1252" if i < 2 else "utf-8") for i, row in enumerate(UMLAUTS)
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    manifest, rows = make(tmp_path / "pool", {"path": str(tmp_path / "a.jsonl")}, max_reject_share=0.2)
    assert (len(rows), manifest.facts["reject_reasons"]) == (18, {"not UTF-8": 2})
    assert "guessed" not in manifest.facts["sources"]["s0"]


def test_an_encoding_that_nobody_knows_is_a_settings_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="latin-99"):
        make(tmp_path / "pool", {"path": "a.csv", "encoding": "latin-99"})


@pytest.mark.parametrize(
    ("delimiter", "suffix"), [(";", "csv"), ("\t", "csv"), ("|", "csv"), ("\t", "tsv"), (",", "csv")]
)
def test_the_delimiter_of_a_csv_file_is_the_one_that_divides_its_rows(
    tmp_path: Path, delimiter: str, suffix: str
) -> None:
    rows = [["prompt", "completion"]] + [[f"One, two; three {i}?", f'He said "{i}"; yes,\nreally'] for i in range(9)]
    path = tmp_path / f"a.{suffix}"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    for number, given in enumerate((None, delimiter)):
        manifest, found = make(tmp_path / f"pool{number}", {"path": str(path), "delimiter": given})
        assert [[content for _, content in turns(row)] for row in found] == rows[1:]
        guessed = manifest.facts["sources"]["s0"].get("guessed")
        usual = given or suffix == "tsv" or delimiter == ","
        assert guessed == (None if usual else {f"delimiter {delimiter!r}": 1})


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "xz": lzma.compress,
    "bz2": bz2.compress,
    "zst": lambda data: pa.compress(data, "zstd", asbytes=True),
}


@pytest.mark.parametrize("plain", ["jsonl", "ndjson", "json", "csv"])
@pytest.mark.parametrize("compression", sorted(COMPRESSIONS))
def test_compressed_texts_are_read_whatever_the_case_of_their_names(
    tmp_path: Path, plain: str, compression: str
) -> None:
    path = WRITERS["jsonl" if plain == "ndjson" else plain](tmp_path / f"rows.{plain}", pairs(300))
    expected = make(tmp_path / "expected", {"path": str(path)})[1]
    data = COMPRESSIONS[compression](path.read_bytes())
    shouted = tmp_path / f"ROWS.{plain.upper()}.{compression.upper()}"
    shouted.write_bytes(data)
    assert make(tmp_path / "pool", {"path": str(shouted)})[1] == expected
    shouted.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="damaged"):
        make(tmp_path / "cut", {"path": str(shouted)})
    shouted.write_bytes(b"no such thing" * 9)
    with pytest.raises(InputError, match="damaged"):
        make(tmp_path / "none", {"path": str(shouted)})


def test_a_json_array_that_grows_beyond_the_limit_when_decompressed_is_an_error(tmp_path: Path) -> None:
    rows = json.dumps([{"prompt": "Q" * (1 << 21), "completion": "A"}]).encode()
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(rows))
    with pytest.raises(InputError, match=r"1 MiB"):
        make(tmp_path / "pool", {"path": str(tmp_path / "a.json.gz")}, max_json_mib=1)


@pytest.mark.parametrize("name", ["rows.arrow", "rows.ipc", "rows.feather", "ROWS.ARROW"])
@pytest.mark.parametrize("stream", [False, True])
def test_arrow_files_and_streams_are_read(tmp_path: Path, name: str, stream: bool) -> None:
    table = pa.Table.from_pylist(pairs(700))
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with new(tmp_path / name, table.schema) as writer:
        writer.write_table(table, max_chunksize=300)
    expected = make(tmp_path / "expected", {"path": str(write_jsonl(tmp_path / "rows.jsonl", pairs(700)))})[1]
    assert make(tmp_path / "pool", {"path": str(tmp_path / name)})[1] == expected
    data = (tmp_path / name).read_bytes()
    for number, damaged in enumerate((data[:200], b"", b"not Arrow")):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(InputError, match=name):
            make(tmp_path / f"damaged{number}", {"path": str(tmp_path / name)})


def test_files_of_several_layouts_are_told_apart(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", pairs(3))
    write_jsonl(tmp_path / "b.jsonl", [{"instruction": "Add.", "output": "3"}])
    write_jsonl(
        tmp_path / "c.jsonl", [{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}]
    )
    write_jsonl(tmp_path / "d.jsonl", [{"prompt": "Q", "completion": "A"}])
    manifest, rows = make(tmp_path / "pool", {"path": str(tmp_path / "*.jsonl")})
    assert len(rows) == 6
    assert manifest.facts["sources"]["s0"]["schema"] == "prompt_completion, instruction, conversations"
    assert turns(rows[3]) == [("user", "Add."), ("assistant", "3")]


def test_rows_are_chosen_by_conditions(tmp_path: Path) -> None:
    rows = [row | {"score": i, "language": "en" if i % 2 else "de"} for i, row in enumerate(pairs(20))]
    path = str(write_jsonl(tmp_path / "a.jsonl", rows))
    where = {"score": {">=": 4, "<": 12}, "language": ["de", "fr"], "prompt": {"matches": "[468]", "length": {"<": 99}}}
    manifest, found = make(tmp_path / "pool", {"path": path, "where": where})
    assert [row["origin"] for row in found] == [4, 6, 8]
    assert manifest.facts["sources"]["s0"]["left_out"] == 17
    with pytest.raises(SettingsError, match=r"where\.score"):
        make(tmp_path / "none", {"path": path, "where": {"score": {"above": 3}}})
    with pytest.raises(InputError, match="no row matches"):
        make(tmp_path / "none", {"path": path, "where": {"score": {">": 99}}})


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
