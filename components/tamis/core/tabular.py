"""Columns of JSONL, CSV and Parquet files as Python lists, and values as keys or scores."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from tamis.core.errors import InputError, UnparsableError, explained_os_errors
from tamis.core.jsonrows import json_of
from tamis.core.settings import canonical_json
from tamis.core.storage import download, locate, missing
from tamis.core.texts import START, check_encoding

_NUMBER = re.compile(r"[+-]?\d{1,18}(\.\d*)?")
_WHOLE = re.compile(r"-?(0|[1-9]\d{0,17})\.0+")  # a whole number written as a float
_LONGEST_FIELD = 1 << 30  # bytes of a CSV field; the standard library's default limit is 128 KiB


def local_copy(path: str, folder: Path) -> Path:
    """The file at `path`. A file in object storage is downloaded into `folder`.

    Raises:
        StorageError: when it does not exist or cannot be read, or the copy cannot be written.
    """
    location = locate(path)
    if isinstance(location, Path):
        if not location.exists():
            raise missing(path)
        return location
    copy = folder / Path(path).name
    download(location, copy)
    return copy


def read_columns(
    path: Path,
    columns: Sequence[str],
    *,
    shown: str,
    optional: Sequence[str] = (),
    kept_as: Mapping[str, Callable[[Any], Any]] | None = None,
) -> dict[str, list[Any]]:
    """The values of some columns, row by row; None where a row has no value.

    Args:
        path: a local file; its suffix determines the format: .jsonl, .ndjson, .csv or .parquet.
        columns: names of the columns, one or more.
        shown: the file's name in errors.
        optional: names of columns that may be missing; the result then does not have them.
        kept_as: functions that reduce the values of a column, so that long texts are not kept in memory. Columns
            without one are kept as they are.

    Raises:
        InputError: when the file has another format, cannot be read, is empty, or lacks a column.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{shown} has an unknown format", allowed=f"a file name that ends in {', '.join(_READERS)}")
    try:
        with explained_os_errors(f"reading {shown}"):
            if reader is not _read_parquet:
                with path.open("rb") as file:
                    check_encoding(file.read(START), shown)
            values, present = reader(path, [*columns, *optional], kept_as or {})
    except UnicodeDecodeError as error:
        raise InputError(
            f"{shown} is not UTF-8 text: {error.reason} at byte {error.start}",
            allowed="UTF-8",
            action="convert it, for example: iconv -f WINDOWS-1252 -t UTF-8 FILE > FILE.utf8",
        ) from None
    except ValueError as error:
        raise InputError(f"{shown}: {error}", action="correct the file") from None
    for column in columns:
        if column not in present:
            raise InputError(
                f"{shown} has no column '{column}'",
                allowed=", ".join(present) or "none; the file is empty",
                action="correct the column's name in the settings",
            )
    if not values[columns[0]]:
        raise InputError(f"{shown} has no rows")
    return {column: values[column] for column in [*columns, *optional] if column in present}


_Columns = tuple[dict[str, list[Any]], list[str]]  # the wanted columns' values, and the names of all columns
_KeptAs = Mapping[str, Callable[[Any], Any]]


def _read_parquet(path: Path, columns: Sequence[str], kept_as: _KeptAs) -> _Columns:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            present = file.schema_arrow.names
            for column in columns:
                if present.count(column) > 1:
                    raise ValueError(f"it has the column '{column}' {present.count(column)} times")
            values: dict[str, list[Any]] = {column: [] for column in columns if column in present}
            for batch in file.iter_batches(columns=list(values)):
                for name, column in zip(batch.schema.names, batch.columns, strict=True):
                    values[name] += _kept(column.to_pylist(), name, kept_as)
    except (OSError, pa.ArrowException) as error:
        if getattr(error, "errno", None) is not None:  # from the system; errors about damaged content have no number
            raise
        raise ValueError(f"it is not a Parquet file, or it is damaged: {error}") from None
    except OverflowError as error:  # for example a time after the year 9999
        raise ValueError(f"a value cannot be read: {error}") from None
    return values, present


def _kept(values: list[Any], name: str, kept_as: _KeptAs) -> list[Any]:
    return list(map(kept_as[name], values)) if name in kept_as else values


def _read_csv(path: Path, columns: Sequence[str], kept_as: _KeptAs) -> _Columns:
    csv.field_size_limit(_LONGEST_FIELD)
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, strict=True)
        try:
            header = next(rows, [])
            for column in columns:
                if header.count(column) > 1:
                    raise ValueError(f"its header has the column '{column}' {header.count(column)} times")
            places = {column: header.index(column) for column in columns if column in header}
            values: dict[str, list[Any]] = {column: [] for column in places}
            number = 0
            for row in rows:
                if not row:
                    continue  # an empty line
                if len(row) != len(header):
                    fields = f"{len(row)} fields, but the header has {len(header)}"
                    raise ValueError(f"row {number} (counting from 0) has {fields}")
                for column, place in places.items():
                    values[column] += _kept([row[place]], column, kept_as)
                number += 1
        except csv.Error as error:
            raise ValueError(f"line {rows.line_num} is not CSV: {error}") from None
    return values, header


def _read_jsonl(path: Path, columns: Sequence[str], kept_as: _KeptAs) -> _Columns:
    values: dict[str, list[Any]] = {column: [] for column in columns}
    present: dict[str, None] = {}
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json_of(line)
            except ValueError as error:
                raise ValueError(f"line {number} is not JSON: {error}") from None
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is not a JSON object: {line.strip()[:40]!r}")
            present.update(dict.fromkeys(row))
            for column in columns:
                values[column] += _kept([row.get(column)], column, kept_as)
    return values, list(present)


_READERS: dict[str, Callable[[Path, Sequence[str], _KeptAs], _Columns]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}


def key_of(value: Any) -> str | None:
    """A value as text to match by; None for an empty value.

    5, 5.0, "5", "5.0" and " 5" have the same key; "005" has another. Dates and times are written in ISO 8601, as in
    the pool's metadata. Invalid Unicode, such as a lone surrogate, is escaped.
    """
    if isinstance(value, str):
        text = _unicode(value.strip())
        return str(int(text.partition(".")[0])) if _WHOLE.fullmatch(text) else text or None
    if value is None or value != value:  # pandas writes NaN for an empty value
        return None
    if isinstance(value, bytes):
        return value.decode(errors="replace").strip() or None
    if isinstance(value, (float, Decimal)):
        return str(int(value)) if float(value).is_integer() else str(value)
    if isinstance(value, (bool, int, list, tuple, dict)):
        return _unicode(canonical_json(value, default=_as_text))
    return _as_text(value)


def _as_text(value: Any) -> str:
    return str(value.isoformat() if hasattr(value, "isoformat") else value)


def _unicode(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def number_of(name: str, value: Any) -> float | None:
    """A value as a number; None for an empty value (null, NaN, empty text).

    Raises:
        UnparsableError: "not a number: <name> is <value>".
    """
    if isinstance(value, str):
        value = value.strip()
        if not value:
            return None
        if not _NUMBER.fullmatch(value):
            raise UnparsableError(f"not a number: {name} is {value[:40]!r}")
    if value is None or value != value:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, str)):
        raise UnparsableError(f"not a number: {name} is {str(value)[:40]!r}")
    try:
        return float(value)
    except OverflowError:
        raise UnparsableError(f"not a number: {name} has {len(str(value))} digits") from None


def integer_of(name: str, value: Any) -> int | None:
    """A value as an integer; None for an empty value.

    Raises:
        UnparsableError: "not a number: …" or "not an integer: …".
    """
    number = number_of(name, value)
    if number is None:
        return None
    if not number.is_integer():
        raise UnparsableError(f"not an integer: {name} is {value}")
    return int(number)
