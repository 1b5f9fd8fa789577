"""Samples in Parquet: today's schema, and pools of old revisions."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from tamis.core.artifacts import Artifact
from tamis.core.sample_columns import MESSAGES, column_of, conversations, rows_of
from tamis.core.samples import Message
from tamis.core.tables import POOL
from tests.artifacts import OLD_POOL, conversation, make_pool

RICH: list[Message] = [
    {"role": "developer", "content": "Be short."},
    {"role": "user", "content": "Weather?", "name": "Ann"},
    {
        "role": "assistant",
        "content": "",
        "reasoning": "I need the tool.",
        "tool_calls": [
            {"id": "c1", "name": "weather", "arguments": '{"city":"Bonn"}'},
            {"name": "now", "arguments": ""},
        ],
    },
    {"role": "tool", "content": "", "tool_call_id": "c1", "name": "weather"},
    {"role": "assistant", "content": "Rain.", "train": False},
]


def old_pool(out: Path, samples: list[list[Message]]) -> Artifact:
    return Artifact.open(make_pool(out, samples, source="s", schema=OLD_POOL), "pool")


def test_conversations_come_back_from_a_column_as_they_were() -> None:
    samples = [RICH, conversation("Hi", "Hello"), RICH[1:]]
    column = column_of(samples)
    assert column.type == MESSAGES
    assert conversations(column) == samples
    assert conversations(column[1:]) == samples[1:]
    assert conversations(pa.chunked_array([column[2:], column[:1]])) == [samples[2], samples[0]]


def test_plain_conversations_have_no_other_fields() -> None:
    plain = [conversation("Hi", "Hello"), conversation("a", "b", "c", "d")]
    assert conversations(column_of(plain)) == plain
    assert conversations(column_of([])) == []


@pytest.mark.parametrize("columns", [None, ["id", "messages", "tools"], ["messages"], ["id", "tools"], ["id"]])
def test_a_pool_of_an_old_revision_is_read_in_todays_schema(tmp_path: Path, columns: list[str] | None) -> None:
    samples = [conversation("Hi", "Hello"), conversation("1 + 1", "2", "2 + 2", "4")]
    old = old_pool(tmp_path / "old", samples)
    names = columns or POOL.names
    table = old.table(columns)
    assert {name: table.schema.field(name).type for name in names} == {name: POOL.field(name).type for name in names}
    (batch,) = old.batches(columns)
    assert sorted(batch.schema.names) == sorted(names)
    if "messages" in names:
        assert [row["messages"] for row in rows_of(batch)] == samples
        assert conversations(table["messages"]) == samples
    if "tools" in names:
        assert batch["tools"].null_count == 2


def test_old_and_new_pools_of_plain_samples_have_equal_rows(tmp_path: Path) -> None:
    samples = [conversation("Hi", "Hello"), conversation("1 + 1", "2")]
    new = Artifact.open(make_pool(tmp_path / "new", samples, source="s"), "pool")
    assert rows_of(new.table()) == rows_of(old_pool(tmp_path / "old", samples).table())
