"""A reader of CSV and TSV files with a header and strict quoting."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from tamis.core.errors import InputError
from tamis.pool.openings import MIB, UTF_8, Guessed, damage_named, opened_text, too_long
from tamis.pool.pieces import InPieces, Piece, Records, grouped
from tamis.pool.rejects import Reject

_LINE_ENDS = ("\n", "\r")
_DELIMITERS = (",", ";", "\t", "|")  # the first that fits is taken
_GUESSED_FROM = 1 << 16  # characters


class CsvReader(InPieces):
    """Separated values with a header. Every field is text. Row numbers do not count the header.

    Args:
        path: the file.
        max_row_mib: longest line and longest field, in MiB.
        encoding: the file's encoding.
        delimiter: the character between fields; None: the one that divides the first rows into equally many fields.
    """

    guessed = Guessed()
    uniform = True
    total: int | None = None

    def __init__(self, path: Path, max_row_mib: int, encoding: str = UTF_8, delimiter: str | None = None) -> None:
        self._path, self._limit, self._encoding = path, max_row_mib * MIB, encoding
        if delimiter is None:
            with self._text() as text, damage_named(path):
                delimiter = _delimiter_of(text.read(_GUESSED_FROM))
        self.delimiter = delimiter
        with self._text() as text, damage_named(path):
            header = next(self._records(text), [])
        if isinstance(header, Reject):
            raise InputError(f"{path}: its header cannot be read: {header}", action="correct the file")
        # Spreadsheets and pandas leave cells of the header empty. Such columns get names such as "column 1".
        self.columns = [name if name.strip() else f"column {place}" for place, name in enumerate(header, 1)]
        twice = sorted({name for name in self.columns if self.columns.count(name) > 1})
        if twice:
            raise InputError(f"{path}: the header has {', '.join(twice)} more than once", action="rename the columns")

    def pieces(self, wanted: Sequence[str]) -> Iterator[Piece]:
        """All rows with all their fields.

        Raises:
            InputError: at a row whose end is uncertain, because parts of its text could be read as rows.
        """
        for records in grouped(self._all_records(), _characters):
            yield Records(self.columns, records)

    def _all_records(self) -> Iterator[list[str] | Reject]:
        with self._text() as text, damage_named(self._path):
            records = self._records(text)
            next(records, None)  # the header
            yield from (record for record in records if record)  # an empty one is a blank line

    def _text(self) -> IO[str]:
        file = opened_text(self._path, self._encoding)
        return io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")

    def _records(self, text: IO[str]) -> Iterator[list[str] | Reject]:
        csv.field_size_limit(self._limit)  # for the whole process; the default is small
        lines = _CsvLines(text, self._limit, self.delimiter)
        # Strict, because an unclosed quote would otherwise swallow all rows after it.
        parsed = csv.reader(lines, strict=True, delimiter=self.delimiter)
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
        # Strict parsing fails only in or directly after quotes, so the next lines may still belong to the field.
        return InputError(
            f"{self._path}: the row that begins on line {lines.first} is not valid CSV (line {lines.number}: {error}), "
            "so its end is unknown",
            allowed="quoted fields that are closed, with quotes inside them doubled, and of at most "
            f"{self._limit // MIB} MiB (pool.max_row_mib)",
            action="correct or remove the row, or write the file as JSONL",
        )


def _characters(record: list[str] | Reject) -> int:
    return 0 if isinstance(record, Reject) else sum(map(len, record))


def _delimiter_of(start: str) -> str:
    """The first of `_DELIMITERS` that divides the rows in `start` into equally many fields, two or more; or a comma."""
    for delimiter in _DELIMITERS:
        try:
            rows = [row for row in csv.reader(io.StringIO(start), delimiter=delimiter) if row]
        except csv.Error:
            continue
        whole = rows[:-1] if len(rows) > 1 and len(start) == _GUESSED_FROM else rows
        if whole and len(whole[0]) > 1 and len({len(row) for row in whole}) == 1:
            return delimiter
    return _DELIMITERS[0]


class _CsvLines:
    """The lines of a CSV text. A line that is too long is skipped with a `Reject` if it is a complete record.

    Attributes:
        number: number of the last line that was read, from 1.
        first: number of the first line of the current record.
    """

    def __init__(self, text: IO[str], limit: int, delimiter: str) -> None:
        self._text, self._limit, self._delimiter = text, limit, delimiter
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
        reject = too_long(self._limit)
        if self.number == self.first and _ends_a_record(self._pieces(line), self._delimiter):
            raise reject
        raise csv.Error(reject.reason)

    def _pieces(self, line: str) -> Iterator[str]:
        """The rest of a long line in pieces, the first of which is `line`."""
        while line:
            yield line
            line = "" if line.endswith(_LINE_ENDS) else self._text.readline(self._limit)


def _ends_a_record(pieces: Iterable[str], delimiter: str) -> bool:
    """Whether the first line of a record is also its last: its quoted fields are well formed and closed."""
    quoted, before = (
        False,
        delimiter,
    )  # `before` is the previous character; the start of a record is the start of a field
    for piece in pieces:
        for number, part in enumerate(piece.split('"')):
            if number and quoted:  # a quote that ends the field, or the first of a doubled quote
                quoted, before = False, '"'
            elif number:  # a quote that begins a field, or the second of a doubled quote; otherwise plain text
                quoted = before in (delimiter, '"')
            if part:
                if before == '"' and not quoted and part[0] not in (delimiter, "\r", "\n"):
                    return False
                before = part[-1]
    return not quoted
