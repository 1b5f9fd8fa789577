"""Rows that cannot be used are kept with their reasons, counted, and too many of them fail the stage."""

from __future__ import annotations

import csv
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.core.errors import InputError
from tamis.core.tables import REJECTS
from tamis.pool.csvs import CsvReader, _ends_a_record
from tests.unit.pool.making import make, pairs, rejects_of, turns, write_json, write_jsonl

GOOD = {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}


def messages(*pairs: tuple[str, Any]) -> bytes:
    return json.dumps({"messages": [{"role": role, "content": content} for role, content in pairs]}).encode()


@pytest.mark.parametrize(
    ("line", "kind", "reason"),
    [
        (b'{"messages": [', "broken JSON", "not JSON: Expecting value"),
        (b"[" * 100_000, "broken JSON", "not JSON: "),
        (b'["a"]', "no object", "JSON of type list, not an object"),
        (b"{}", "missing field", "an object without fields"),
        (b"null", "no object", "JSON of type NoneType, not an object"),
        (b'{"messages": "\xff"}', "not UTF-8", "the line is not UTF-8: byte 14"),
        (b'{"a": "' + b"x" * (1 << 20) + b'"}', "row too long", "the line is longer than 1 MiB"),
        (b'{"message": []}', "missing field", "no field 'messages'"),
        (b'{"messages": []}', "no messages", "no messages"),
        (b'{"messages": null}', "no messages", "no messages"),
        (b'{"messages": 7}', "wrong type", "the messages are of type int, not a list"),
        (b'{"messages": "Hi"}', "wrong type", "the messages are text that is not JSON"),
        (b'{"messages": [7]}', "wrong type", "message 1 is of type int, not an object"),
        (b'{"messages": {"role": ["user"], "content": []}}', "wrong type", "the messages have 1 roles and 0 contents"),
        (b'{"messages": [{"role": "user"}]}', "missing field", "message 1 has no 'content'"),
        (messages(("user", "Q"), ("tool", "A")), "unknown role", "message 2 has the role 'tool'; allowed: system, "),
        (messages(("user", "Q"), (None, "A")), "unknown role", "message 2 has the role None"),  # type: ignore[arg-type]
        (messages(("user", "Q"), ("assistant", " \n")), "empty message", "message 2 (assistant) is empty"),
        (messages(("user", None), ("assistant", "A")), "empty message", "message 1 (user) is empty"),
        (
            messages(("user", "Q"), ("assistant", ["A"])),
            "wrong type",
            "message 2: its 'content' is of type list, not text",
        ),
        (messages(("user", "Q")), "no assistant message", "no assistant message"),
        (messages(("assistant", "A")), "no user message", "no user message"),
        (messages(("user", "Q\ud800"), ("assistant", "A")), "invalid Unicode", "message 1 (user) is not valid Unicode"),
    ],
)
def test_a_bad_row_is_rejected_with_its_reason(tmp_path: Path, line: bytes, kind: str, reason: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n" + line + b"\n" + messages(("user", "R"), ("assistant", "B")))
    manifest, rows = make(tmp_path / "pool", {"path": str(path)}, max_reject_share=0.5, max_row_mib=1)
    assert [row["origin"] for row in rows] == [0, 2]
    (reject,) = rejects_of(tmp_path / "pool")
    assert (reject["source"], reject["file"], reject["row"]) == ("s0", "rows.jsonl", 1)
    assert reject["reason"].startswith(reason)
    assert manifest.facts["reject_reasons"] == {kind: 1}
    assert (manifest.facts["read"], manifest.facts["kept"], manifest.facts["rejected"]) == (3, 2, 1)


@pytest.mark.parametrize(
    ("content", "kind", "reason", "left"),
    [
        (b"Q,A,more\nQ2,A2\n", "broken CSV", "the row has 3 fields, the header 2", 1),
        (b"Q\nQ2,A2\n", "broken CSV", "the row has 1 fields, the header 2", 1),
        (b"Q,\xff\nQ2,A2\n", "not UTF-8", "the row is not UTF-8", 1),
        (b"Q,A\n\nQ2,\n", "empty message", "message 2 (assistant) is empty", 1),
    ],
)
def test_a_bad_row_of_csv_is_rejected(tmp_path: Path, content: bytes, kind: str, reason: str, left: int) -> None:
    (tmp_path / "rows.csv").write_bytes(b"prompt,completion\n" + content)
    manifest, rows = make(tmp_path / "pool", {"path": str(tmp_path / "rows.csv")}, max_reject_share=0.5)
    assert len(rows) == left
    assert manifest.facts["reject_reasons"] == {kind: 1}
    assert rejects_of(tmp_path / "pool")[0]["reason"].startswith(reason)


LONG = "x" * (1 << 20)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "line",
    [f"Q,{LONG}y", f'Q,"{LONG}"', f'"Q ""1""","{LONG}"",""{LONG}"', f'6" of,{LONG}"', f'{LONG},""', f'Q,"{LONG * 2}"'],
    ids=["plain", "quoted", "doubled quotes", "quotes in plain text", "an empty field", "in pieces"],
)
def test_a_line_of_csv_that_is_too_long_is_rejected(tmp_path: Path, line: str, end: str) -> None:
    (tmp_path / "rows.csv").write_text(end.join(["prompt,completion", line, "Q2,A2", ""]), newline="")
    manifest, rows = make(tmp_path / "pool", {"path": str(tmp_path / "rows.csv")}, max_reject_share=0.5, max_row_mib=1)
    assert manifest.facts["reject_reasons"] == {"row too long": 1}
    assert [turns(row)[0][1] for row in rows] == ["Q2"]


@pytest.mark.parametrize(
    ("rows", "first", "line", "seen"),
    [
        (['how?,"He said "hi" to me.', "First, wash it", "Then, dry it", 'Done"'], 3, 3, "',' expected after '\"'"),
        (['how?,"Two', 'lines" or', "Three, four", 'Done"'], 3, 4, "',' expected after '\"'"),
        (['Q,"A', "Q3,A3", "Q4,A4"], 3, 6, "unexpected end of data"),
        (['Q,"A', *["x" * 1000] * 1100, "Q3,A3", '"'], 3, 1051, r"field larger than field limit \(1048576\)"),
        (['Q,"A', LONG + "y", "Q3,A3", '"'], 3, 4, "the line is longer than 1 MiB"),
        ([f'Q,"{LONG}', "Q3,A3", '"'], 3, 3, "the line is longer than 1 MiB"),
        ([f'Q,"{LONG}"",', "Q3,A3", '"'], 3, 3, "the line is longer than 1 MiB"),
        ([f'Q,"A"b "{LONG}', "Q3,A3", '"'], 3, 3, "the line is longer than 1 MiB"),
    ],
)
def test_a_row_of_csv_whose_end_is_uncertain_ends_the_stage(
    tmp_path: Path, rows: list[str], first: int, line: int, seen: str
) -> None:
    (tmp_path / "rows.csv").write_text("\n".join(["prompt,completion", "Q1,A1", *rows, "Q9,A9", ""]))
    with pytest.raises(InputError, match=rf"rows\.csv: .* line {first} .*\(line {line}: {seen}") as error:
        make(tmp_path / "pool", {"path": str(tmp_path / "rows.csv")}, max_reject_share=1, max_row_mib=1)
    assert "1 MiB (pool.max_row_mib)" in error.value.allowed
    assert "JSONL" in error.value.action
    assert not (tmp_path / "pool").exists()


def test_rows_before_one_whose_end_is_uncertain_can_be_taken(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text('prompt,completion\nQ1,A1\nQ2,"A\n')
    manifest, _ = make(tmp_path / "pool", {"path": str(tmp_path / "rows.csv"), "limit": 1})
    assert manifest.rows == 1


def test_a_quote_that_is_never_closed_takes_bounded_memory(tmp_path: Path) -> None:
    with (tmp_path / "rows.csv").open("w") as file:
        file.write('prompt,completion\nQ,"A\n')
        file.writelines(f"Q{i},{'x' * 1000}\n" for i in range(40_000))
    reader = CsvReader(tmp_path / "rows.csv", 1)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="larger than field limit"):
            list(reader.rows([]))
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@given(text=st.text('a,;"', max_size=12), cut=st.integers(0, 12), delimiter=st.sampled_from(",;"))
def test_a_line_ends_a_record_where_strict_csv_says_so(text: str, cut: int, delimiter: str) -> None:
    line = text + "\n"
    try:
        list(csv.reader([line], strict=True, delimiter=delimiter))
        whole = True
    except csv.Error:
        whole = False
    assert _ends_a_record([line[:cut], line[cut:]], delimiter) == whole


def test_a_row_of_parquet_with_a_time_after_the_year_9999_is_rejected_alone(tmp_path: Path) -> None:
    times = pa.array([0, 1 << 50, 2], pa.timestamp("s"))
    table = pa.table({"prompt": ["Q0", "Q1", "Q2"], "completion": ["A", "A", "A"], "at": times})
    pq.write_table(table, tmp_path / "rows.parquet")
    source = {"path": str(tmp_path / "rows.parquet"), "keep": ["at"]}
    _, rows = make(tmp_path / "pool", source, max_reject_share=0.5)
    assert [row["origin"] for row in rows] == [0, 2]
    assert [row["row"] for row in rejects_of(tmp_path / "pool")] == [1]


def test_a_row_of_parquet_that_is_not_utf8_is_rejected_alone(tmp_path: Path) -> None:
    raw = pa.array([b"Q0", b"Q\xff", b"Q2"], pa.binary())
    text = pa.StringArray.from_buffers(3, *raw.buffers()[1:])
    pq.write_table(pa.table({"prompt": text, "completion": ["A", "A", "A"]}), tmp_path / "rows.parquet")
    _, rows = make(tmp_path / "pool", {"path": str(tmp_path / "rows.parquet")}, max_reject_share=0.5)
    assert [row["origin"] for row in rows] == [0, 2]
    assert rejects_of(tmp_path / "pool") == [
        {"source": "s0", "file": "rows.parquet", "row": 1, "reason": "the row is not UTF-8"}
    ]


def test_an_element_of_a_json_array_that_is_no_object_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps([7, *pairs(2)]))
    manifest, _ = make(tmp_path / "pool", {"path": str(tmp_path / "rows.json")}, max_reject_share=0.5)
    assert manifest.facts["reject_reasons"] == {"no object": 1}


@pytest.mark.parametrize("write", [write_jsonl, write_json])
def test_a_first_object_without_fields_is_rejected(tmp_path: Path, write: Any) -> None:
    path = write(tmp_path / f"rows.{write.__name__.removeprefix('write_')}", [{}, *pairs(2)])
    manifest, rows = make(tmp_path / "pool", {"path": str(path)}, max_reject_share=0.5)
    assert [row["origin"] for row in rows] == [1, 2]
    assert manifest.facts["reject_reasons"] == {"missing field": 1}


@pytest.mark.parametrize("write", [write_jsonl, write_json])
def test_a_file_of_objects_without_fields_says_so(tmp_path: Path, write: Any) -> None:
    path = write(tmp_path / f"rows.{write.__name__.removeprefix('write_')}", [{}, {}])
    with pytest.raises(InputError, match=r"2 x missing field, first: .*, row 0: an object without fields"):
        make(tmp_path / "pool", {"path": str(path)})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": 7, "completion": "A"}, "the field 'prompt' is of type int, not text"),
        ({"prompt": "Q"}, "no field 'comp"),
    ],
)
def test_a_prompt_that_is_no_text_is_rejected(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [*pairs(1), row])
    make(tmp_path / "pool", {"path": str(path)}, max_reject_share=0.5)
    assert rejects_of(tmp_path / "pool")[0]["reason"].startswith(reason)


def test_a_field_to_keep_that_json_cannot_hold_rejects_the_row(tmp_path: Path) -> None:
    columns = {"prompt": ["Q", "Q2"], "completion": ["A", "A2"], "image": pa.array([None, b"\x89PNG"], pa.binary())}
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    source = {"path": str(tmp_path / "rows.parquet"), "keep": ["image"]}
    manifest, rows = make(tmp_path / "pool", source, max_reject_share=0.5)
    assert [row["metadata"] for row in rows] == ['{"image": null}']
    assert manifest.facts["reject_reasons"] == {"wrong type": 1}


def test_a_reason_that_quotes_much_data_is_shortened(tmp_path: Path) -> None:
    row = {"messages": [{"role": "x" * 5000, "content": "Q"}]}
    path = write_jsonl(tmp_path / "rows.jsonl", [GOOD, row])
    make(tmp_path / "pool", {"path": str(path)}, max_reject_share=0.5)
    assert len(rejects_of(tmp_path / "pool")[0]["reason"]) == 301


def test_the_row_of_a_reject_is_that_in_its_file(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", pairs(20))
    write_jsonl(tmp_path / "b.jsonl", [*pairs(20, 50), {"prompt": "", "completion": "A"}, *pairs(1, 90)])
    _, rows = make(tmp_path / "pool", {"path": str(tmp_path / "*.jsonl")})
    assert rejects_of(tmp_path / "pool") == [
        {"source": "s0", "file": "b.jsonl", "row": 20, "reason": "message 1 (user) is empty"}
    ]
    assert rows[-1]["origin"] == 41


def test_too_many_rejects_fail_with_the_most_frequent_reasons(tmp_path: Path) -> None:
    bad = [{"prompt": "", "completion": "A"}] * 3 + [{"prompt": "Q"}] * 2 + [{"prompt": 1, "completion": ""}] + [[]]
    path = write_jsonl(tmp_path / "rows.jsonl", [*pairs(5), *bad])
    with pytest.raises(InputError, match=r"'s0': 7 of 12 rows\b") as error:
        make(tmp_path / "pool", {"path": str(path)})
    assert error.value.problem.splitlines()[1:] == [
        "    3 x empty message, first: rows.jsonl, row 5: message 1 (user) is empty",
        "    2 x missing field, first: rows.jsonl, row 8: no field 'completion'",
        "    1 x no object, first: rows.jsonl, row 11: JSON of type list, not an object",
    ]
    assert "0.1 (pool.max_reject_share)" in error.value.allowed
    assert not (tmp_path / "pool").exists()
    beside = tmp_path / "pool.rejects.parquet"
    assert str(beside) in error.value.action
    table = pq.read_table(beside)
    assert table.schema == REJECTS
    assert table["row"].to_pylist() == [5, 6, 7, 8, 9, 10, 11]

    make(tmp_path / "pool", {"path": str(path)}, max_reject_share=0.6)
    assert not beside.exists()  # it told of a failure that is no more


def test_the_share_is_each_sources_own(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "good.jsonl", pairs(1000))
    write_jsonl(tmp_path / "bad.jsonl", [*pairs(2, 5000), {"prompt": "", "completion": ""}])
    with pytest.raises(InputError, match="source 'bad': 1 of 3 rows"):
        make(
            tmp_path / "pool",
            {"name": "good", "path": str(tmp_path / "good.jsonl")},
            {"name": "bad", "path": str(tmp_path / "bad.jsonl")},
        )


def test_a_file_of_only_bad_rows_says_what_is_wrong_with_them(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes('{"prompt": "\xfc"}\n{}'.encode("latin-1"))
    with pytest.raises(InputError, match=r"1 x not UTF-8, first: rows\.jsonl, row 0"):
        make(tmp_path / "pool", {"path": str(tmp_path / "rows.jsonl")})


def test_an_empty_pool_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("")
    with pytest.raises(InputError, match=r"\b0 rows, 0\b"):
        make(tmp_path / "pool", {"path": str(tmp_path / "rows.jsonl")})
    write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "", "completion": ""}] * 2)
    with pytest.raises(InputError, match=r"\b2 rows, 2\b"):
        make(tmp_path / "pool", {"path": str(tmp_path / "rows.jsonl")}, max_reject_share=1)
    assert pq.read_table(tmp_path / "pool.rejects.parquet").num_rows == 2
