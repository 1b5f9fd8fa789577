"""Pieces of files: rows as they were read, which this process or another one turns into Python objects.

Pieces depend only on the data and never on the number of processes, so that results are equal whatever that number is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from tamis.core.jsonrows import json_of
from tamis.pool.openings import MIB, Fields, Guessed, Rows
from tamis.pool.rejects import Reject

if TYPE_CHECKING:
    import pyarrow as pa

Value = TypeVar("Value")
ROWS = 2048  # in a piece, at most
_BYTES = 4 * MIB  # after which a piece ends
_ARROW_ROWS = 256  # converted to Python objects at a time


class Piece(Protocol):
    """Consecutive rows of a file; it can be pickled."""

    def rows(self) -> Iterator[Fields | Reject]:
        """Its rows, of which those that cannot be used are rejects."""
        ...


class InPieces:
    """Base of the readers of whole sources: their rows are those of their pieces."""

    columns: list[str]
    uniform: bool
    total: int | None
    guessed: Guessed

    def pieces(self, wanted: Sequence[str]) -> Iterator[Piece]:
        """All rows. From a columnar format only the fields `wanted` are read."""
        raise NotImplementedError

    def rows(self, wanted: Sequence[str]) -> Rows:
        """All rows, with their numbers from 0. From a columnar format only the fields `wanted` are read."""
        number = 0
        for piece in self.pieces(wanted):
            for row in piece.rows():
                yield number, row
                number += 1


@dataclass(frozen=True)
class Lines:
    """Lines that should be JSON objects, and lines that were too long."""

    lines: list[bytes | Reject]

    def rows(self) -> Iterator[Fields | Reject]:
        """The objects."""
        return (line if isinstance(line, Reject) else _object_of(line) for line in self.lines)


@dataclass(frozen=True)
class Values:
    """Elements of a JSON array."""

    values: list[Any]

    def rows(self) -> Iterator[Fields | Reject]:
        """The objects."""
        return map(fields_of, self.values)


@dataclass(frozen=True)
class Records:
    """Records of a CSV file with the names of its columns."""

    columns: list[str]
    records: list[list[str] | Reject]

    def rows(self) -> Iterator[Fields | Reject]:
        """The records as objects of texts."""
        return (record if isinstance(record, Reject) else self._fields(record) for record in self.records)

    def _fields(self, values: list[str]) -> Fields | Reject:
        if len(values) != len(self.columns):
            return Reject("broken CSV", f"the row has {len(values)} fields, the header {len(self.columns)}")
        try:
            "".join(values).encode()
        except UnicodeEncodeError:
            return Reject("not UTF-8", "the row is not UTF-8")
        return dict(zip(self.columns, values, strict=True))


class Batch:
    """Rows of an Arrow table. Maps become objects, because the turns of a conversation are maps in some files.

    A row that Python cannot represent becomes a `Reject`. Such rows have text that is not UTF-8, a map with a repeated
    key, or a time after the year 9999.
    """

    def __init__(self, batch: pa.RecordBatch | pa.Table) -> None:
        self._batch = batch

    def rows(self) -> Iterator[Fields | Reject]:
        """The rows as objects."""
        for start in range(0, self._batch.num_rows, _ARROW_ROWS):
            yield from _as_objects(self._batch.slice(start, _ARROW_ROWS))

    def __reduce__(self) -> tuple[object, ...]:
        import pyarrow as pa

        # Unlike pickle, Arrow's stream has only the rows of a slice.
        with pa.BufferOutputStream() as sink:
            with pa.ipc.new_stream(sink, self._batch.schema) as stream:
                stream.write(self._batch)
            return _batch, (sink.getvalue().to_pybytes(),)


def _batch(stream: bytes) -> Batch:
    import pyarrow as pa

    return Batch(pa.ipc.open_stream(stream).read_all())


def grouped(values: Iterable[Value], size_of: Callable[[Value], int]) -> Iterator[list[Value]]:
    """The values in lists for pieces. If an error ends them, the values before it still come."""
    held: list[Value] = []
    size = 0
    try:
        for value in values:
            held.append(value)
            size += size_of(value)
            if len(held) == ROWS or size >= _BYTES:
                full, held, size = held, [], 0
                yield full
    except Exception:
        if held:
            yield held
        raise
    if held:
        yield held


def rows_of_a_piece(size: int, rows: int) -> int:
    """How many rows a piece of a columnar format has, given the bytes of `rows` rows."""
    return max(1, min(ROWS, _BYTES * rows // max(size, 1)))


def fields_of(value: Any) -> Fields | Reject:
    """A value of JSON as a row."""
    if not isinstance(value, dict):
        return Reject("no object", f"JSON of type {type(value).__name__}, not an object")
    return value or Reject("missing field", "an object without fields")


def _object_of(text: bytes) -> Fields | Reject:
    try:
        value = json_of(text.decode())
    except UnicodeDecodeError as error:
        return Reject("not UTF-8", f"the line is not UTF-8: byte {error.start}")
    except ValueError as error:
        return Reject("broken JSON", f"not JSON: {error}")
    return fields_of(value)


def _as_objects(batch: pa.RecordBatch | pa.Table) -> Iterator[Fields | Reject]:
    try:
        yield from batch.to_pylist(maps_as_pydicts="strict")
    except (ValueError, KeyError, OverflowError) as error:  # UnicodeDecodeError is a ValueError
        if batch.num_rows == 1:
            yield _unreadable(error)
        else:
            for row in range(batch.num_rows):
                yield from _as_objects(batch.slice(row, 1))


def _unreadable(error: Exception) -> Reject:
    if isinstance(error, UnicodeDecodeError):
        return Reject("not UTF-8", "the row is not UTF-8")
    if isinstance(error, KeyError):
        return Reject("wrong type", f"a map of the row has a key twice: {error}")
    return Reject("wrong type", f"a value of the row is out of range: {error}")
