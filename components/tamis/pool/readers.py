"""Readers: rows out of JSONL, JSON, CSV and Parquet files, one after another, in bounded memory.

A reader has `columns` (the fields of its header, or of its first readable row), `uniform` (whether every row has just
these), `total` (its rows, where that is known beforehand) and `rows`, which gives each row's number from 0 and its
fields, or a `Reject` in their place.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, AnyStr, Protocol, TypeAlias, cast

from tamis.core.errors import InputError, explained_os_errors
from tamis.pool.rejects import Reject

if TYPE_CHECKING:
    import pyarrow as pa

Fields: TypeAlias = dict[str, Any]
Rows: TypeAlias = "Iterator[tuple[int, Fields | Reject]]"

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".csv", ".parquet")
ARROW_ROWS = 256  # rows that become Python objects at a time
_MIB = 1 << 20
_DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error)


class Reader(Protocol):
    """What every reader has."""

    columns: list[str]
    uniform: bool
    total: int | None

    def rows(self, wanted: Sequence[str]) -> Rows:
        """All rows; of a columnar source only the fields `wanted` are read."""
        ...


def reader_of(path: Path, max_json_mib: int, max_row_mib: int) -> Reader:
    """The reader of the file at `path`, by its suffix, which must be one of `SUFFIXES`.

    Raises:
        InputError: when the file as a whole cannot be read.
        StorageError: when it may not be read.
    """
    if path.name.endswith(".parquet"):
        return ParquetReader(path)
    if path.name.endswith(".csv"):
        return CsvReader(path, max_row_mib)
    if path.name.endswith(".json") and _first_byte(path) != b"{":
        return JsonArrayReader(path, max_json_mib)
    reader = JsonLinesReader(path, max_row_mib)
    if path.name.endswith(".json") and not reader.columns:
        raise InputError(f"{path} is neither an array of objects nor one object a line", action="write it as JSONL")
    return reader


class JsonLinesReader:
    """One JSON object a line, gzipped if the name ends in .gz. A row's number is its line's, blank lines counted."""

    uniform = False
    total: int | None = None

    def __init__(self, path: Path, max_row_mib: int) -> None:
        self._path, self._limit = path, max_row_mib * _MIB
        self.columns = next((list(row) for _, row in self.rows([]) if not isinstance(row, Reject)), [])

    def rows(self, wanted: Sequence[str]) -> Rows:
        """All rows with all their fields."""
        with _opened(self._path) as file:
            number = 0
            try:
                while line := file.readline(self._limit + 1):
                    if len(line) > self._limit and not line.endswith(b"\n"):
                        _skip_line(file, self._limit)
                        yield number, _too_long(self._limit)
                    elif text := (line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line).strip():
                        yield number, _object_of(text)
                    number += 1
            except _DAMAGED as error:
                raise InputError(
                    f"{self._path} is damaged after line {number}: {error}", action="get it again"
                ) from None


class JsonArrayReader:
    """A JSON array of objects, which is loaded whole."""

    uniform = False

    def __init__(self, path: Path, max_json_mib: int) -> None:
        size = path.stat().st_size
        if size > max_json_mib * _MIB:
            raise InputError(
                f"{path} is a JSON array of {size / _MIB:,.0f} MiB, which would be loaded whole",
                allowed=f"{max_json_mib} MiB (pool.max_json_mib)",
                action="write it as JSONL, one object a line, or raise the setting",
            )
        try:
            with _opened(path) as file:
                self._values = json.loads(file.read().decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not UTF-8: byte {error.start}", action="convert it to UTF-8") from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is not JSON: {error}", action="correct the file, or get it again") from None
        if not isinstance(self._values, list):
            raise InputError(f"{path} holds JSON of type {type(self._values).__name__}", allowed="an array of objects")
        self.columns = next((list(value) for value in self._values if isinstance(value, dict)), [])
        self.total: int | None = len(self._values)

    def rows(self, wanted: Sequence[str]) -> Rows:
        """All elements of the array with all their fields."""
        for number, value in enumerate(self._values):
            yield number, value if isinstance(value, dict) else _no_object(value)


class CsvReader:
    """Comma-separated values with a header; every field is text. A row's number does not count the header."""

    uniform = True
    total: int | None = None

    def __init__(self, path: Path, max_row_mib: int) -> None:
        self._path, self._limit = path, max_row_mib * _MIB
        with self._text() as text:
            try:
                self.columns = next(self._parsed(text), [])
            except (csv.Error, Reject) as error:
                raise InputError(f"{path}: its header cannot be read: {error}", action="correct the file") from None
        twice = sorted({name for name in self.columns if self.columns.count(name) > 1})
        if twice:
            raise InputError(f"{path}: the header has {', '.join(twice)} more than once", action="rename the columns")

    def rows(self, wanted: Sequence[str]) -> Rows:
        """All rows with all their fields."""
        with self._text() as text:
            records, number = self._parsed(text), 0
            next(records, None)  # the header
            while True:
                try:
                    values = next(records)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield number, Reject("broken CSV", f"no CSV: {error}")
                except Reject as reject:
                    yield number, reject
                else:
                    if not values:
                        continue  # a blank line
                    yield number, self._fields(values)
                number += 1

    def _text(self) -> IO[str]:
        return io.TextIOWrapper(_opened(self._path), encoding="utf-8-sig", errors="surrogateescape", newline="")

    def _parsed(self, text: IO[str]) -> Iterator[list[str]]:
        csv.field_size_limit(self._limit)  # of the whole process, and small unless set
        # Strict: a quote that is never closed would else swallow all rows after it.
        return csv.reader(_Lines(text, self._limit), strict=True)

    def _fields(self, values: list[str]) -> Fields | Reject:
        if len(values) != len(self.columns):
            return Reject("broken CSV", f"the row has {len(values)} fields, the header {len(self.columns)}")
        try:
            "".join(values).encode()
        except UnicodeEncodeError:
            return Reject("not UTF-8", "the row is not UTF-8")
        return dict(zip(self.columns, values, strict=True))


class _Lines:
    """The lines of a text; for one that is too long `Reject` is raised, and the next call goes on behind it."""

    def __init__(self, text: IO[str], limit: int) -> None:
        self._text, self._limit = text, limit

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._text.readline(self._limit + 1)
        if not line:
            raise StopIteration
        if len(line) > self._limit and not line.endswith("\n"):
            _skip_line(self._text, self._limit)
            raise _too_long(self._limit)
        return line


class ParquetReader:
    """A Parquet file, read by small batches of the wanted columns."""

    uniform = True

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self._path = path
        with _parquet_faults_named(path), pq.ParquetFile(path) as file:
            self.columns = list(file.schema_arrow.names)
            self.total: int | None = file.metadata.num_rows

    def rows(self, wanted: Sequence[str]) -> Rows:
        """All rows with the fields `wanted`."""
        import pyarrow.parquet as pq

        columns = [name for name in self.columns if name in set(wanted)]
        with pq.ParquetFile(self._path, buffer_size=_MIB) as file:
            batches, first = file.iter_batches(batch_size=ARROW_ROWS, columns=columns), 0
            while True:
                with _parquet_faults_named(self._path):
                    batch = next(batches, None)
                if batch is None:
                    return
                yield from rows_of_arrow(batch, first)
                first += batch.num_rows


@contextmanager
def _parquet_faults_named(path: Path) -> Iterator[None]:
    """Turn what Arrow says of a file that is no whole Parquet file into `InputError`."""
    import pyarrow as pa

    try:
        with explained_os_errors(f"reading {path}"):
            yield
    except (pa.ArrowException, OSError) as error:
        first = str(error).strip().split("\n")[0]
        raise InputError(f"{path} is no whole Parquet file: {first}", action="get it again") from None


def rows_of_arrow(batch: pa.RecordBatch | pa.Table, first: int) -> Rows:
    """The rows of an Arrow batch, numbered from `first`; a row with text that is not UTF-8 is a `Reject`."""
    try:
        values = batch.to_pylist()
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            values = [Reject("not UTF-8", "the row is not UTF-8")]
        else:
            values = [value for i in range(batch.num_rows) for _, value in rows_of_arrow(batch.slice(i, 1), i)]
    yield from enumerate(values, first)


def _opened(path: Path) -> IO[bytes]:
    with explained_os_errors(f"reading {path}"):
        if path.name.endswith(".gz"):
            return cast(IO[bytes], gzip.open(path, "rb"))
        return path.open("rb")


def _first_byte(path: Path) -> bytes:
    """The first byte of a file that is neither white space nor byte order mark; nothing, if there is none."""
    with _opened(path) as file:
        file.seek(3 if file.read(3) == b"\xef\xbb\xbf" else 0)
        while byte := file.read(1):
            if not byte.isspace():
                return byte
    return b""


def _skip_line(file: IO[AnyStr], piece: int) -> None:
    while (more := file.readline(piece)) and more[-1:] not in (b"\n", "\n"):
        pass


def _too_long(limit: int) -> Reject:
    return Reject("row too long", f"the line is longer than {limit // _MIB} MiB")


def _object_of(text: bytes) -> Fields | Reject:
    try:
        value = json.loads(text.decode())
    except UnicodeDecodeError as error:
        return Reject("not UTF-8", f"the line is not UTF-8: byte {error.start}")
    except (ValueError, RecursionError) as error:
        return Reject("broken JSON", f"no JSON: {error}")
    return value if isinstance(value, dict) else _no_object(value)


def _no_object(value: object) -> Reject:
    return Reject("no object", f"JSON of type {type(value).__name__}, not an object")
