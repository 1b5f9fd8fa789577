"""Fields beside a conversation: named and counted, and an error where many samples lose what they are to teach."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tamis.core.errors import InputError
from tests.unit.pool.making import Row, make, pairs, turns, write_csv, write_jsonl, write_parquet

TURNS = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
TOOLS = [{"type": "function", "function": {"name": "add"}}]


def facts_of(tmp_path: Path, rows: Sequence[Row], **settings: Any) -> Row:
    """What the manifest says of one source of `rows`, however much is lost."""
    source = {"path": str(write_jsonl(tmp_path / "rows.jsonl", rows))} | settings
    facts: Row = make(tmp_path / "pool", source, max_lost_share=1)[0].facts["sources"]["s0"]
    return facts


@pytest.mark.parametrize(
    ("beside", "lost"),
    [
        ({"system": "Be brief."}, True),
        ({"system_prompt": "Be brief."}, True),
        ({"system": " "}, False),
        ({"system": None}, False),
        ({"history": [["Q0", "A0"]]}, True),
        ({"history": []}, False),
        ({"tools": TOOLS}, True),
        ({"tools": json.dumps(TOOLS)}, True),
        ({"tools": "[]"}, False),
        ({"reasoning_content": "First"}, True),
        ({"images": ["a.png"]}, True),
        ({"weight": 0}, True),
        ({"weight": 0.5}, True),
        ({"weight": 1.0}, False),
        ({"weight": "1"}, False),
        ({"train": False}, True),
        ({"train": True}, False),
        ({"label": False}, True),
        ({"label": 0}, False),
        ({"id": 7, "source": "web", "category": "math", "score": 0.5}, False),
    ],
)
def test_a_field_of_the_row_is_lost_where_it_changes_what_is_taught(tmp_path: Path, beside: Row, lost: bool) -> None:
    facts = facts_of(tmp_path, [{"messages": TURNS} | beside])
    assert facts["fields_not_read"] == dict.fromkeys(sorted(beside), 1)
    assert facts.get("fields_lost") == (dict.fromkeys(beside, 1) if lost else None)


@pytest.mark.parametrize(
    ("turn", "beside", "lost"),
    [
        (1, {"tool_calls": [{"function": {"name": "add"}}]}, True),
        (1, {"function_call": {"name": "add", "arguments": "{}"}}, True),
        (1, {"reasoning_content": "First"}, True),
        (1, {"weight": 0}, True),
        (1, {"weight": 1}, False),
        (1, {"train": False}, True),
        (0, {"train": False, "weight": 0}, False),  # nothing is learnt from a question
        (1, {"tool_calls": []}, False),
        (0, {"name": "Ann", "id": 3}, False),
    ],
)
def test_a_field_of_a_turn_is_lost_where_it_changes_what_is_taught(
    tmp_path: Path, turn: int, beside: Row, lost: bool
) -> None:
    messages = [dict(message) for message in TURNS]
    messages[turn] |= beside
    for schema, row in (
        ("messages", {"messages": messages}),
        ("messages", {"messages": json.dumps(messages)}),
        ("prompt", {"prompt": messages[:1], "completion": messages[1:]}),
    ):
        (tmp_path / schema).mkdir(exist_ok=True)
        facts = facts_of(tmp_path / schema, [row])
        field = "messages" if schema == "messages" else ("prompt", "completion")[turn]
        named = {f"{field}.{name}": 1 for name in sorted(beside)}
        assert facts["fields_not_read"] == named
        assert facts.get("fields_lost") == (named if lost else None)
        for made in (tmp_path / schema).iterdir():
            made.rename(tmp_path / f"{schema}-{len(list(tmp_path.iterdir()))}")


def test_turns_as_an_object_of_lists_keep_their_fields_for_the_count(tmp_path: Path) -> None:
    lists = {"role": ["user", "assistant"], "content": ["Q", "A"], "weight": [1, 0]}
    assert facts_of(tmp_path, [{"messages": lists}])["fields_lost"] == {"messages.weight": 1}


def test_what_the_conversation_says_anyway_is_not_lost(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Use the tool add. Earlier question 0, earlier answer 0"}
    rows = [{"messages": [system, *TURNS], "system": "Use the tool add.", "history": [["earlier answer 0", "Q"]]}]
    assert "fields_lost" not in facts_of(tmp_path, rows)


@pytest.mark.parametrize("write", [write_jsonl, write_csv, write_parquet])
def test_every_format_counts_what_it_does_not_read(
    tmp_path: Path, write: Callable[[Path, Sequence[Row]], Path]
) -> None:
    rows = [row | {"id": i, "system": "Be brief." if i < 3 else ""} for i, row in enumerate(pairs(100))]
    path = write(tmp_path / f"rows.{write.__name__.removeprefix('write_')}", rows)
    manifest, _ = make(tmp_path / "pool", {"path": str(path)})
    facts = manifest.facts["sources"]["s0"]
    assert facts["fields_not_read"] == {"id": 100, "system": 100}
    assert (facts["fields_lost"], manifest.facts["samples_with_lost_fields"]) == ({"system": 3}, 3)


def test_more_than_the_limit_is_an_error_and_less_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [row | ({"tools": TOOLS} if i < 5 else {}) for i, row in enumerate(pairs(100))]
    source = {"path": str(write_jsonl(tmp_path / "rows.jsonl", rows))}
    make(tmp_path / "pool", source)
    assert sum(record.levelno == logging.WARNING for record in caplog.records) == 1
    write_jsonl(tmp_path / "rows.jsonl", [*rows, pairs(1, 1000)[0] | {"history": [["Q", "A"]]}])
    with pytest.raises(InputError) as error:
        make(tmp_path / "more", source)
    assert "0.05 (pool.max_lost_share)" in error.value.allowed
    assert not (tmp_path / "more").exists()
    manifest, _ = make(tmp_path / "raised", source, max_lost_share=0.06)
    assert manifest.facts["samples_with_lost_fields"] == 6


def test_fields_that_the_settings_name_are_known_to_the_user(tmp_path: Path) -> None:
    rows = [row | {"system": "Be brief.", "tools": "[1]", "train": False} for row in pairs(3)]
    path = str(write_jsonl(tmp_path / "rows.jsonl", rows))
    settings: Row = {"path": path, "fields": {"system": "system"}, "keep": ["tools"], "where": {"train": False}}
    manifest, read = make(tmp_path / "pool", settings)
    assert turns(read[0])[0] == ("system", "Be brief.")
    assert "fields_not_read" not in manifest.facts["sources"]["s0"]


def test_names_that_differ_from_row_to_row_do_not_fill_the_memory(tmp_path: Path) -> None:
    rows = [row | {f"key{i:03}": 1} | ({"weight": 0} if i > 298 else {}) for i, row in enumerate(pairs(300))]
    facts = facts_of(tmp_path, rows)
    assert (len(facts["fields_not_read"]), facts["fields_not_read"]["others"]) == (201, 101)
    assert facts["fields_lost"] == {"weight": 1}


@pytest.mark.parametrize("first", [False, True])
def test_a_system_prompt_that_only_some_rows_have_is_read_where_it_is(tmp_path: Path, first: bool) -> None:
    rows: list[Row] = [{"instruction": f"Q{i}", "output": "A"} for i in range(6)]
    rows[0 if first else 3]["system"] = "Be brief."
    source = {"path": str(write_jsonl(tmp_path / "rows.jsonl", rows)), "fields": {"system": "system"}}
    manifest, samples = make(tmp_path / "pool", source)[:2]
    assert manifest.facts["rejected"] == 0
    roles = [[message["role"] for message in sample["messages"]] for sample in samples]
    assert roles.count(["system", "user", "assistant"]) == 1
    assert len(roles) == 6


def test_a_system_prompt_that_no_row_has_is_an_error(tmp_path: Path) -> None:
    rows: list[Row] = [{"instruction": f"Q{i}", "output": "A"} for i in range(6)]
    source = {"path": str(write_jsonl(tmp_path / "rows.jsonl", rows)), "fields": {"system": "sytem"}}
    with pytest.raises(InputError, match="sytem"):
        make(tmp_path / "pool", source)
    named = {"path": str(write_csv(tmp_path / "rows.csv", rows)), "fields": {"system": "sytem"}}
    with pytest.raises(InputError, match="sytem"):
        make(tmp_path / "other", named)


def test_a_name_that_is_no_text_costs_no_pool(tmp_path: Path) -> None:
    rows: list[Row] = [{"messages": TURNS, "\ud800": 1}, {"messages": [TURNS[0], TURNS[1] | {"x\udc00": 2}]}]
    file = tmp_path / "odd.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    facts = make(tmp_path / "pool", {"path": str(file)})[0].facts["sources"]["s0"]
    assert facts["fields_not_read"] == {"?": 1, "messages.x?": 1}
