"""Readers of JSONL, JSON, CSV and Parquet files, which yield rows in bounded memory.

A reader has `columns` (the fields of its header, or of its first readable row), `uniform` (whether every row has
exactly these fields), `total` (the number of rows, if known in advance) and `rows`, which yields the number of each row
from 0 and its fields, or a `Reject` instead of the fields.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from tamis.core.errors import InputError, explained_os_errors
from tamis.core.jsonrows import json_of
from tamis.core.texts import START, check_encoding, text_of
from tamis.pool.csvs import CsvReader
from tamis.pool.openings import MIB, Fields, Rows, opened, too_long
from tamis.pool.rejects import Reject

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".csv", ".parquet")
ARROW_ROWS = 256  # rows converted to Python objects at a time
_DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error)


class Reader(Protocol):
    """The interface of every reader."""

    columns: list[str]
    uniform: bool
    total: int | None

    def rows(self, wanted: Sequence[str]) -> Rows:
        """All rows. From a columnar format only the fields `wanted` are read."""
        ...


def reader_of(path: Path, max_json_mib: int, max_row_mib: int) -> Reader:
    """The reader for the file at `path`, chosen by its suffix, which must be one of `SUFFIXES`.

    Raises:
        InputError: when the file is not valid.
        StorageError: when the system refuses to read it.
    """
    if path.name.endswith(".parquet"):
        return ParquetReader(path)
    if path.name.endswith(".csv"):
        return CsvReader(path, max_row_mib)
    if path.name.endswith(".json") and _first_byte(path) != b"{":
        return JsonArrayReader(path, max_json_mib)
    reader = JsonLinesReader(path, max_row_mib)
    if path.name.endswith(".json") and not reader.columns:
        raise InputError(f"{path} is neither an array of objects nor one object per line", action="write it as JSONL")
    return reader


class JsonLinesReader:
    """One JSON object per line, gzipped if the name ends in .gz. Blank lines are skipped."""

    uniform = False
    total: int | None = None

    def __init__(self, path: Path, max_row_mib: int) -> None:
        self._path, self._limit = path, max_row_mib * MIB
        self.columns = next((list(row) for _, row in self.rows([]) if not isinstance(row, Reject)), [])

    def rows(self, wanted: Sequence[str]) -> Rows:
        """All rows with all their fields."""
        with opened(self._path) as file:
            number, first = 0, True
            try:
                check_encoding(file.peek(START), str(self._path))  # type: ignore[attr-defined]
                while line := file.readline(self._limit + 1):
                    text = (line.removeprefix(b"\xef\xbb\xbf") if first else line).strip()
                    first = False
                    if len(line) > self._limit and not line.endswith(b"\n"):
                        _skip_line(file, self._limit)
                        yield number, too_long(self._limit)
                    elif text:
                        yield number, _object_of(text)
                    else:
                        continue
                    number += 1
            except _DAMAGED as error:
                raise InputError(
                    f"{self._path} is damaged after {number} rows: {error}", action="download or create it again"
                ) from None


class JsonArrayReader:
    """A JSON array of objects, which is loaded completely."""

    uniform = False

    def __init__(self, path: Path, max_json_mib: int) -> None:
        size = path.stat().st_size
        if size > max_json_mib * MIB:
            raise InputError(
                f"{path} is a JSON array of {size / MIB:,.0f} MiB, which would be loaded completely",
                allowed=f"at most {max_json_mib} MiB (pool.max_json_mib)",
                action="write it as JSONL, with one object per line, or raise the setting",
            )
        try:
            with opened(path) as file:
                self._values = json_of(text_of(file.read(), str(path)))
        except ValueError as error:
            raise InputError(f"{path} is not JSON: {error}", action="correct the file, or download it again") from None
        if not isinstance(self._values, list):
            problem = f"{path} contains JSON of type {type(self._values).__name__}"
            raise InputError(problem, allowed="an array of objects")
        self.columns = next((list(value) for value in self._values if value and isinstance(value, dict)), [])
        self.total: int | None = len(self._values)

    def rows(self, wanted: Sequence[str]) -> Rows:
        """All elements of the array with all their fields."""
        for number, value in enumerate(self._values):
            yield number, _fields_of(value)


class ParquetReader:
    """A Parquet file, read in small batches of the wanted columns."""

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
        with pq.ParquetFile(self._path, buffer_size=MIB) as file:
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
    """Turn Arrow's errors about a damaged Parquet file into `InputError`."""
    import pyarrow as pa

    try:
        with explained_os_errors(f"reading {path}"):
            yield
    except (pa.ArrowException, OSError) as error:
        first = str(error).strip().split("\n")[0]
        problem = f"{path} is not a complete Parquet file: {first}"
        raise InputError(problem, action="download or create it again") from None


def rows_of_arrow(batch: pa.RecordBatch | pa.Table, first: int) -> Rows:
    """The rows of an Arrow batch, numbered from `first`. A row that Python cannot represent becomes a `Reject`.

    Such rows have text that is not UTF-8, a map with a repeated key, or a time after the year 9999. Maps become
    objects, because the turns of a conversation are maps in some files.
    """
    try:
        values = batch.to_pylist(maps_as_pydicts="strict")
    except (ValueError, KeyError, OverflowError) as error:  # UnicodeDecodeError is a ValueError
        if batch.num_rows == 1:
            values = [_unreadable(error)]
        else:
            values = [value for i in range(batch.num_rows) for _, value in rows_of_arrow(batch.slice(i, 1), i)]
    yield from enumerate(values, first)


def _unreadable(error: Exception) -> Reject:
    if isinstance(error, UnicodeDecodeError):
        return Reject("not UTF-8", "the row is not UTF-8")
    if isinstance(error, KeyError):
        return Reject("wrong type", f"a map of the row has a key twice: {error}")
    return Reject("wrong type", f"a value of the row is out of range: {error}")


def _first_byte(path: Path) -> bytes:
    """The first byte of a file that is neither white space nor part of a byte order mark; empty if there is none."""
    with opened(path) as file:
        file.seek(3 if file.read(3) == b"\xef\xbb\xbf" else 0)
        while byte := file.read(1):
            if not byte.isspace():
                return byte
    return b""


def _skip_line(file: IO[bytes], piece: int) -> None:
    while (more := file.readline(piece)) and not more.endswith(b"\n"):
        pass


def _object_of(text: bytes) -> Fields | Reject:
    try:
        value = json_of(text.decode())
    except UnicodeDecodeError as error:
        return Reject("not UTF-8", f"the line is not UTF-8: byte {error.start}")
    except ValueError as error:
        return Reject("broken JSON", f"not JSON: {error}")
    return _fields_of(value)


def _fields_of(value: Any) -> Fields | Reject:
    if not isinstance(value, dict):
        return Reject("no object", f"JSON of type {type(value).__name__}, not an object")
    return value or Reject("missing field", "an object without fields")
