"""Readers of JSONL, JSON, CSV, TSV, Parquet and Arrow files, which yield rows in bounded memory.

A reader has `columns` (the fields of its header, or of its first readable row), `uniform` (whether every row has
exactly these fields), `total` (the number of rows, if known in advance), `guessed` (what was guessed about a text file)
and `rows`, which yields the number of each row from 0 and its fields, or a `Reject` instead of the fields. `pieces`
yields the same rows before they are parsed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from tamis.core.errors import InputError, explained_os_errors
from tamis.core.jsonrows import json_of
from tamis.pool.csvs import CsvReader
from tamis.pool.openings import (
    FORMATS,
    MIB,
    UTF_8,
    Guess,
    Guessed,
    Rows,
    damage_named,
    format_of,
    guessed_encoding,
    opened_text,
    too_long,
)
from tamis.pool.pieces import Batch, InPieces, Lines, Piece, Values, grouped, rows_of_a_piece
from tamis.pool.rejects import Reject
from tamis.pool.settings import PoolSettings, Source

if TYPE_CHECKING:
    import pyarrow as pa

_VALUES = 256  # elements of an array in a piece; their size is not known


class Reader(Protocol):
    """The interface of every reader."""

    columns: list[str]
    uniform: bool
    total: int | None
    guessed: Guessed

    def rows(self, wanted: Sequence[str]) -> Rows:
        """All rows with their numbers. From a columnar format only the fields `wanted` are read."""
        ...


@dataclass(frozen=True)
class HowToRead:
    """What the settings say about files: limits in MiB, and an encoding and a delimiter; None: they are guessed."""

    max_json_mib: int
    max_row_mib: int
    encoding: str | None = None
    delimiter: str | None = None


def how_to_read(settings: PoolSettings, source: Source | None = None) -> HowToRead:
    """What the pool's settings say about the files of `source`."""
    limits = settings.max_json_mib, settings.max_row_mib
    return HowToRead(*limits) if source is None else HowToRead(*limits, source.encoding, source.delimiter)


def reader_of(path: Path, how: HowToRead) -> InPieces:
    """The reader for the file at `path`, by the ending of its name.

    Raises:
        InputError: when the file is not valid, or the ending is not of a known format.
        StorageError: when the system refuses to read it.
    """
    kind = format_of(path.name)
    if kind is None:
        raise InputError(f"{path} has an unknown format", allowed=f"a name that ends in {FORMATS}")
    if kind == "parquet":
        return ParquetReader(path)
    if kind == "arrow":
        return ArrowReader(path)
    guess = guessed_encoding(path) if how.encoding is None else Guess(how.encoding)
    reader: CsvReader | JsonArrayReader | JsonLinesReader
    delimiter = None
    if kind in ("csv", "tsv"):
        given = how.delimiter or ("\t" if kind == "tsv" else None)
        reader = CsvReader(path, how.max_row_mib, guess.encoding, given)
        delimiter = reader.delimiter if given is None and reader.delimiter != "," else None
    elif kind == "json" and _first_byte(path, guess.encoding) != b"{":
        reader = JsonArrayReader(path, how.max_json_mib, guess.encoding)
    else:
        reader = JsonLinesReader(path, how.max_row_mib, guess.encoding)
        if kind == "json" and not reader.columns:
            problem = f"{path} is neither an array of objects nor one object per line"
            raise InputError(problem, action="write it as JSONL")
    reader.guessed = Guessed(guess if how.encoding is None and guess.encoding != UTF_8 else None, delimiter)
    return reader


class JsonLinesReader(InPieces):
    """One JSON object per line. Blank lines are skipped."""

    guessed = Guessed()
    uniform = False
    total: int | None = None

    def __init__(self, path: Path, max_row_mib: int, encoding: str = UTF_8) -> None:
        self._path, self._limit, self._encoding = path, max_row_mib * MIB, encoding
        self.columns = next((list(row) for _, row in self.rows([]) if not isinstance(row, Reject)), [])

    def pieces(self, wanted: Sequence[str]) -> Iterator[Piece]:
        """All rows with all their fields."""
        return map(Lines, grouped(self._lines(), lambda line: 0 if isinstance(line, Reject) else len(line)))

    def _lines(self) -> Iterator[bytes | Reject]:
        with opened_text(self._path, self._encoding) as file, damage_named(self._path):
            first = True
            while line := file.readline(self._limit + 1):
                text = (line.removeprefix(b"\xef\xbb\xbf") if first else line).strip()
                first = False
                if len(line) > self._limit and not line.endswith(b"\n"):
                    _skip_line(file, self._limit)
                    yield too_long(self._limit)
                elif text:
                    yield text


class JsonArrayReader(InPieces):
    """A JSON array of objects, which is loaded completely."""

    guessed = Guessed()
    uniform = False

    def __init__(self, path: Path, max_json_mib: int, encoding: str = UTF_8) -> None:
        with opened_text(path, encoding) as file, damage_named(path):
            data = file.read(max_json_mib * MIB + 1)
        if len(data) > max_json_mib * MIB:
            raise InputError(
                f"{path} is a JSON array of more than {max_json_mib:,} MiB, which would be loaded completely",
                allowed=f"at most {max_json_mib} MiB (pool.max_json_mib)",
                action="write it as JSONL, with one object per line, or raise the setting",
            )
        try:
            self._values = json_of(data.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path} is not {encoding.upper()}: byte {error.start}",
                allowed="text in one encoding",
                action="convert the file, or set the source's `encoding`",
            ) from None
        except ValueError as error:
            raise InputError(f"{path} is not JSON: {error}", action="correct the file, or download it again") from None
        if not isinstance(self._values, list):
            problem = f"{path} contains JSON of type {type(self._values).__name__}"
            raise InputError(problem, allowed="an array of objects")
        self.columns = next((list(value) for value in self._values if value and isinstance(value, dict)), [])
        self.total: int | None = len(self._values)

    def pieces(self, wanted: Sequence[str]) -> Iterator[Piece]:
        """All elements of the array with all their fields."""
        for start in range(0, len(self._values), _VALUES):
            yield Values(self._values[start : start + _VALUES])


class ParquetReader(InPieces):
    """A Parquet file, read in small batches of the wanted columns."""

    guessed = Guessed()
    uniform = True

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self._path = path
        with _parquet_faults_named(path), pq.ParquetFile(path) as file:
            self.columns = list(file.schema_arrow.names)
            self.total: int | None = file.metadata.num_rows
            groups = (file.metadata.row_group(i) for i in range(file.num_row_groups))
            self._at_once = rows_of_a_piece(sum(group.total_byte_size for group in groups), file.metadata.num_rows)

    def pieces(self, wanted: Sequence[str]) -> Iterator[Piece]:
        """All rows with the fields `wanted`."""
        import pyarrow.parquet as pq

        columns = [name for name in self.columns if name in set(wanted)]
        with pq.ParquetFile(self._path, buffer_size=MIB) as file:
            batches = file.iter_batches(batch_size=self._at_once, columns=columns)
            while True:
                with _parquet_faults_named(self._path):
                    batch = next(batches, None)
                if batch is None:
                    return
                yield Batch(batch)


class ArrowReader(InPieces):
    """An Arrow file or stream (also called IPC, or Feather), read in small slices of the wanted columns."""

    guessed = Guessed()
    uniform = True
    total: int | None = None

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._batches() as (schema, _):
            self.columns = list(schema.names)

    def pieces(self, wanted: Sequence[str]) -> Iterator[Piece]:
        """All rows with the fields `wanted`."""
        columns = [name for name in self.columns if name in set(wanted)]
        with self._batches() as (_, batches):
            for batch in batches:
                at_once = rows_of_a_piece(batch.nbytes, batch.num_rows)
                for start in range(0, batch.num_rows, at_once):
                    yield Batch(batch.select(columns).slice(start, at_once))

    @contextmanager
    def _batches(self) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
        import pyarrow as pa

        try:
            with explained_os_errors(f"reading {self._path}"), pa.memory_map(str(self._path)) as file:
                opened = _opened_arrow(file)
                if isinstance(opened, pa.RecordBatchStreamReader):
                    yield opened.schema, opened
                else:
                    yield opened.schema, (opened.get_batch(number) for number in range(opened.num_record_batches))
        except pa.ArrowException as error:
            first = str(error).strip().split("\n")[0]
            raise InputError(
                f"{self._path} is not a complete Arrow file: {first}",
                allowed="Arrow's IPC file or stream; Feather of version 2",
                action="write it again, or as Parquet",
            ) from None


def _opened_arrow(file: Any) -> pa.RecordBatchFileReader | pa.RecordBatchStreamReader:
    import pyarrow as pa

    try:
        return pa.ipc.open_file(file)
    except pa.ArrowInvalid:
        file.seek(0)
        return pa.ipc.open_stream(file)


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


def _first_byte(path: Path, encoding: str) -> bytes:
    """The first byte of a file that is neither white space nor part of a byte order mark; empty if there is none."""
    with opened_text(path, encoding) as file, damage_named(path):
        if file.peek(3)[:3] == b"\xef\xbb\xbf":  # type: ignore[attr-defined]
            file.read(3)
        while byte := file.read(1):
            if not byte.isspace():
                return byte
    return b""


def _skip_line(file: IO[bytes], piece: int) -> None:
    while (more := file.readline(piece)) and not more.endswith(b"\n"):
        pass
