"""A compacted part: the records of many parts in one Parquet file, with the name of the part that each came in."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel

from tamis.llm.store.parts import moment_of

PART = pa.field("part", pa.dictionary(pa.int32(), pa.string()), nullable=False)
_FROM = b"tamis.compacted"  # names the compacted parts whose records are in this one


def with_parts(table: pa.Table, names: list[str], counts: list[int]) -> pa.Table:
    """The records of parts, one after the other, with the column `PART`."""
    codes = pa.array(np.repeat(np.arange(len(names), dtype=np.int32), counts))
    return table.append_column(PART, pa.DictionaryArray.from_arrays(codes, pa.array(names, pa.string())))


def to_bytes(table: pa.Table, compacted: list[str]) -> bytes:
    """A table with the column `PART` as a file; `compacted` are names of compacted parts whose records it has."""
    sink = pa.BufferOutputStream()
    table = table.replace_schema_metadata({_FROM: json.dumps(sorted(compacted)).encode()})
    pq.write_table(table, sink, compression="zstd", use_dictionary=[n for n in table.column_names if n != "id"])
    found: bytes = sink.getvalue().to_pybytes()
    return found


def from_bytes(data: bytes, schema: pa.Schema, model: type[BaseModel]) -> tuple[pa.Table, list[str]]:
    """The table of a file with the columns of `schema` and `PART`, and the compacted parts whose records it has.

    A column that an older version did not have gets the model's default.

    Raises:
        pa.ArrowException: when it is no such file, or of a version with other columns.
    """
    table = pq.read_table(pa.BufferReader(data))
    compacted: list[str] = json.loads((table.schema.metadata or {}).get(_FROM, b"[]"))
    if foreign := set(table.column_names) - {*schema.names, PART.name}:
        raise pa.ArrowInvalid(f"columns that are not known: {', '.join(sorted(foreign))}")
    for field in schema:
        if field.name not in table.column_names:
            default = model.model_fields[field.name]
            if default.is_required():
                raise pa.ArrowInvalid(f"no column {field.name}")
            value = pa.scalar(default.get_default(), field.type)
            table = table.append_column(field, pa.repeat(value, len(table)))
    return table.select([*schema.names, PART.name]).cast(schema.append(PART)), compacted


def parts_in(table: pa.Table) -> set[str]:
    """Names of the parts that a table has records of."""
    return set(pa.chunked_array(table[PART.name].unique()).cast(pa.string()).to_pylist())


def in_order(table: pa.Table) -> pa.Table:
    """The records in the order of their parts' names, those of one part as they were, without the column `PART`."""
    moments, digests = _keys(table)
    if len(table) and not _sorted(moments, digests):
        table = table.take(pa.array(np.lexsort((digests, moments))))  # a stable sort
    return table.drop_columns([PART.name])


def _keys(table: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """What orders (n,) records by their parts: (n,) nanoseconds, (n,) the beginnings of their contents' hashes."""
    moments, digests = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
    for chunk in table[PART.name].chunks:
        names = chunk.dictionary.to_pylist()
        codes = chunk.indices.to_numpy()
        moments.append(np.array([moment_of(name) for name in names], np.int64)[codes])
        digests.append(np.array([int(name[21:37], 16) for name in names], np.uint64)[codes])
    return np.concatenate(moments), np.concatenate(digests)


def _sorted(moments: NDArray[np.int64], digests: NDArray[np.uint64]) -> bool:
    later = moments[1:] > moments[:-1]
    return bool((later | ((moments[1:] == moments[:-1]) & (digests[1:] >= digests[:-1]))).all())
