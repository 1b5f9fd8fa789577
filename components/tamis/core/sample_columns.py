"""Samples in Parquet: the columns of a pool, and conversations to and from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, cast

import numpy as np
import pyarrow as pa

from tamis.core.samples import OPTIONAL, Message

Rows = TypeVar("Rows", pa.RecordBatch, pa.Table)
_CALL = pa.struct([pa.field("id", pa.string()), pa.field("name", pa.string()), pa.field("arguments", pa.string())])
_KINDS: dict[str, pa.DataType] = {"tool_calls": pa.list_(_CALL), "train": pa.bool_()}
_NAMES = ("role", "content", *OPTIONAL)
MESSAGES = pa.list_(pa.struct([pa.field(name, _KINDS.get(name, pa.string())) for name in _NAMES]))
TOOLS = pa.string()  # canonical JSON of the list of function schemas; null if a sample has none


def column_of(samples: Sequence[Sequence[Message]]) -> pa.ListArray:
    """Conversations as an array of the type `MESSAGES`; absent fields are null."""
    turns = [message for messages in samples for message in messages]
    offsets = np.zeros(len(samples) + 1, dtype=np.int32)
    np.cumsum([len(messages) for messages in samples], out=offsets[1:])
    given = {name for turn in turns if len(turn) > 2 for name in turn}
    children = [
        pa.array([turn.get(name) for turn in turns], field.type)
        if name in ("role", "content") or name in given
        else pa.nulls(len(turns), field.type)
        for name, field in ((field.name, field) for field in MESSAGES.value_type)
    ]
    structs = pa.StructArray.from_arrays(children, fields=list(MESSAGES.value_type))
    return pa.ListArray.from_arrays(pa.array(offsets), structs, type=MESSAGES)


def conversations(column: pa.Array | pa.ChunkedArray) -> list[list[Message]]:
    """The conversations in a column `messages` of any revision; null fields are absent."""
    slim = without_unused_fields(column)
    samples = slim.to_pylist()
    if slim.type.value_type.num_fields > 2:
        samples = [[_without_nulls(turn) for turn in sample] for sample in samples]
    return cast("list[list[Message]]", samples)


def without_unused_fields(column: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    """A column `messages` with only the fields that some turn has; role and content stay."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    fields = [_children(chunk.flatten()) for chunk in chunks]
    used = [
        field
        for field in column.type.value_type
        if field.name not in OPTIONAL or any(chunk[field.name].null_count < len(chunk[field.name]) for chunk in fields)
    ]
    kind = pa.list_(pa.struct(used))
    slim = [
        pa.ListArray.from_arrays(
            _offsets(chunk), pa.StructArray.from_arrays([child[field.name] for field in used], fields=used), type=kind
        )
        for chunk, child in zip(chunks, fields, strict=True)
    ]
    return pa.chunked_array(slim, kind)


def rows_of(batch: pa.RecordBatch | pa.Table) -> list[dict[str, Any]]:
    """The rows of a pool's batch as dictionaries, with `messages` as by `conversations`."""
    columns = {
        name: conversations(batch[name]) if name == "messages" else batch[name].to_pylist()
        for name in batch.schema.names
    }
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def upgraded(rows: Rows, columns: Sequence[str] | None) -> Rows:
    """Rows of a pool of any revision in today's schema; `columns` are those that were asked for, None for all."""
    place = rows.schema.get_field_index("messages")
    if place >= 0 and rows.schema.field(place).type != MESSAGES:
        field = rows.schema.field(place).with_type(MESSAGES)
        rows = rows.set_column(place, field, _upgraded(rows.column(place)))
    if "tools" not in rows.schema.names and (columns is None or "tools" in columns):
        rows = rows.append_column("tools", pa.nulls(rows.num_rows, TOOLS))
    return rows


def _upgraded(messages: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    if isinstance(messages, pa.ChunkedArray):
        return pa.chunked_array([_upgraded(chunk) for chunk in messages.chunks], MESSAGES)
    turns = messages.flatten()
    known = _children(turns)
    children = [known.get(field.name, pa.nulls(len(turns), field.type)) for field in MESSAGES.value_type]
    structs = pa.StructArray.from_arrays(children, fields=list(MESSAGES.value_type))
    return pa.ListArray.from_arrays(_offsets(messages), structs, type=MESSAGES)


def _children(turns: pa.StructArray) -> dict[str, pa.Array]:
    return {field.name: child for field, child in zip(turns.type, turns.flatten(), strict=True)}


def _offsets(lists: pa.ListArray) -> pa.Array:
    """Offsets into `lists.flatten()`, from 0."""
    offsets = lists.offsets.to_numpy()
    return pa.array(offsets - offsets[0], pa.int32())


def _without_nulls(turn: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in turn.items() if value is not None}
    if "tool_calls" in kept:
        calls = kept["tool_calls"]
        kept["tool_calls"] = [{name: part for name, part in call.items() if part is not None} for call in calls]
    return kept
