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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from tamis.core.errors import InputError, explained_os_errors
from tamis.pool.rejects import Reject

if TYPE_CHECKING:
    import pyarrow as pa

Fields: TypeAlias = dict[str, Any]
Rows: TypeAlias = "Iterator[tuple[int, Fields | Reject]]"

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".csv", ".parquet")
ARROW_ROWS = 256  # rows that become Python objects at a time
_MIB = 1 << 20
_LINE_ENDS = ("\n", "\r")  # of CSV
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
    """One JSON object a line, gzipped if the name ends in .gz. Blank lines are no rows."""

    uniform = False
    total: int | None = None

    def __init__(self, path: Path, max_row_mib: int) -> None:
        self._path, self._limit = path, max_row_mib * _MIB
        self.columns = next((list(row) for _, row in self.rows([]) if not isinstance(row, Reject)), [])

    def rows(self, wanted: Sequence[str]) -> Rows:
        """All rows with all their fields."""
        with _opened(self._path) as file:
            number, first = 0, True
            try:
                while line := file.readline(self._limit + 1):
                    text = (line.removeprefix(b"\xef\xbb\xbf") if first else line).strip()
                    first = False
                    if len(line) > self._limit and not line.endswith(b"\n"):
                        _skip_line(file, self._limit)
                        yield number, _too_long(self._limit)
                    elif text:
                        yield number, _object_of(text)
                    else:
                        continue
                    number += 1
            except _DAMAGED as error:
                raise InputError(
                    f"{self._path} is damaged after {number} rows: {error}", action="get it again"
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
        self.columns = next((list(value) for value in self._values if value and isinstance(value, dict)), [])
        self.total: int | None = len(self._values)

    def rows(self, wanted: Sequence[str]) -> Rows:
        """All elements of the array with all their fields."""
        for number, value in enumerate(self._values):
            yield number, _fields_of(value)


class CsvReader:
    """Comma-separated values with a header; every field is text. A row's number does not count the header."""

    uniform = True
    total: int | None = None

    def __init__(self, path: Path, max_row_mib: int) -> None:
        self._path, self._limit = path, max_row_mib * _MIB
        with self._text() as text:
            header = next(self._records(text), [])
        if isinstance(header, Reject):
            raise InputError(f"{path}: its header cannot be read: {header}", action="correct the file")
        self.columns = header
        twice = sorted({name for name in self.columns if self.columns.count(name) > 1})
        if twice:
            raise InputError(f"{path}: the header has {', '.join(twice)} more than once", action="rename the columns")

    def rows(self, wanted: Sequence[str]) -> Rows:
        """All rows with all their fields.

        Raises:
            InputError: at a row that has no certain end; what is read after it might be made of pieces of its text.
        """
        with self._text() as text:
            records, number = self._records(text), 0
            next(records, None)  # the header
            for record in records:
                if not record:
                    continue  # a blank line
                yield number, record if isinstance(record, Reject) else self._fields(record)
                number += 1

    def _text(self) -> IO[str]:
        return io.TextIOWrapper(_opened(self._path), encoding="utf-8-sig", errors="surrogateescape", newline="")

    def _records(self, text: IO[str]) -> Iterator[list[str] | Reject]:
        csv.field_size_limit(self._limit)  # of the whole process, and small unless set
        lines = _CsvLines(text, self._limit)
        # Strict: a quote that is never closed would else swallow all rows after it.
        parsed = csv.reader(lines, strict=True)
        while True:
            lines.first = lines.number + 1
            try:
                record = next(parsed, None)
            except Reject as reject:
                yield reject
            except csv.Error as error:
                raise self._endless(lines, error) from None
            else:
                if record is None:
                    return
                yield record

    def _endless(self, lines: _CsvLines, error: csv.Error) -> InputError:
        # Strict parsing fails within or right behind quotes only, so the lines that follow may still be the field's.
        return InputError(
            f"{self._path}: the row that begins on line {lines.first} is no CSV (line {lines.number}: {error}), "
            "and where it ends cannot be told",
            allowed="quoted fields that are closed, have the quotes within them written twice, and are no longer than "
            f"{self._limit // _MIB} MiB (pool.max_row_mib)",
            action="correct the row or take it out, or write the file as JSONL",
        )

    def _fields(self, values: list[str]) -> Fields | Reject:
        if len(values) != len(self.columns):
            return Reject("broken CSV", f"the row has {len(values)} fields, the header {len(self.columns)}")
        try:
            "".join(values).encode()
        except UnicodeEncodeError:
            return Reject("not UTF-8", "the row is not UTF-8")
        return dict(zip(self.columns, values, strict=True))


class _CsvLines:
    """The lines of a CSV text. A line that is too long is passed over with a `Reject` if it is a whole record.

    Attributes:
        number: of the line that was read last, from 1.
        first: number of the line that the record begins with.
    """

    def __init__(self, text: IO[str], limit: int) -> None:
        self._text, self._limit = text, limit
        self.number, self.first = 0, 1

    def __iter__(self) -> _CsvLines:
        return self

    def __next__(self) -> str:
        line = self._text.readline(self._limit + 1)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) <= self._limit or line.endswith(_LINE_ENDS):
            return line
        too_long = _too_long(self._limit)
        if self.number == self.first and _ends_a_record(self._pieces(line)):
            raise too_long
        raise csv.Error(too_long.reason)

    def _pieces(self, line: str) -> Iterator[str]:
        """A line that begins with `line`, piece by piece."""
        while line:
            yield line
            line = "" if line.endswith(_LINE_ENDS) else self._text.readline(self._limit)


def _ends_a_record(pieces: Iterable[str]) -> bool:
    """Whether a line that begins a record also ends it: its quoted fields are well formed, and closed."""
    quoted, before = False, ","  # the character before: a record begins as a field does
    for piece in pieces:
        for number, part in enumerate(piece.split('"')):
            if number and quoted:  # a quote that ends the field, or the first one of two
                quoted, before = False, '"'
            elif number:  # one that begins a field, or the second one of two; elsewhere it is plain text
                quoted = before in ',"'
            if part:
                if before == '"' and not quoted and part[0] not in ",\r\n":
                    return False
                before = part[-1]
    return not quoted


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


def _skip_line(file: IO[bytes], piece: int) -> None:
    while (more := file.readline(piece)) and not more.endswith(b"\n"):
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
    return _fields_of(value)


def _fields_of(value: Any) -> Fields | Reject:
    if not isinstance(value, dict):
        return Reject("no object", f"JSON of type {type(value).__name__}, not an object")
    return value or Reject("missing field", "an object without fields")
