"""How `tamis init` looks at a user's ratings: their columns, how they match samples, and their scale."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tamis.core.errors import InputError, SettingsError, UnparsableError
from tamis.core.ids import USUAL_NAMES
from tamis.core.settings import parse
from tamis.core.storage import is_remote
from tamis.core.tabular import number_of, read_columns
from tamis.pool.settings import PoolSettings
from tamis.rating.rating_files import checked_file
from tamis.rating.settings import ImportedRater
from tamis_pipelines.looking import SOURCE, Data, columns_of, rows_of

_SCORES = ("overall", "score", "rating", "quality", "grade", "stars")  # usual names of a column with ratings
_LOWEST_TOP = 7  # a highest score up to this may mean that the scale ends there


class UnknownScoresError(InputError):
    """The column of the ratings that contains the scores is not known. `columns` are the names of all columns."""

    code = "unknown-scores"

    def __init__(self, path: str, columns: Sequence[str], column: str | None) -> None:
        seen = "no column has a usual name for scores" if column is None else f"there is no column {column!r}"
        action = "give the column with the scores (--score-column)"
        super().__init__(f"{path}: {seen}", allowed=", ".join(columns), action=action)
        self.columns = list(columns)


def look_at_ratings(
    path: str, data: Sequence[Data], *, column: str | None = None, field: str | None = None, scale: str | None = None
) -> dict[str, Any]:
    """Return settings that import the ratings at `path`, and in `keep` the fields that the pool's sources must keep.

    Args:
        path: a file with ratings, .jsonl, .csv or .parquet; it may be the data file itself.
        data: the rated data, by source.
        column: the column with the overall rating. Default: a column with a usual name.
        field: the column by which ratings and data are matched, or "DATA=RATINGS" if it has two names. Default: a
            column with a usual name that all have; otherwise, for a single source, the order of the rows.
        scale: lowest and highest possible score, such as "1-5". Default: 1 to 10.

    Raises:
        UnknownScoresError: when the column with the scores does not exist or is not known.
        InputError: when the file cannot be read, ratings cannot be matched to samples, or scores are not on the scale.
        SettingsError: when no scale is given and the scores do not look like 1 to 10.
        StorageError: when there is nothing at `path`.
    """
    columns = _columns_of_ratings(path)
    column = score_column(path, column)
    found: dict[str, Any] = {"kind": "import", "path": path}
    keep: list[str] = []
    shared = [name for name in columns if name != column and all(name in one.columns for one in data)]
    itself = [one.path for one in data] == [path]
    key, kept = _key_and_field(path, columns, data, field) if field is not None else (None, None)
    if field is None and not itself:
        key = kept = _one_of(USUAL_NAMES, shared)
    if key is not None and kept is not None:
        found |= {"by": "metadata", "key": key} | ({"field": kept} if kept != key else {})
        keep = [kept]
    else:
        ratings, rows = len(_values(path, column)), rows_of(data)
        if len(data) > 1 or (rows is not None and ratings != rows):
            several = f" in {len(data)} sources" if len(data) > 1 else ""
            number = f"{rows:,}" if rows is not None else "many"
            both = f"a column that all have: {', '.join(shared)}" if shared else "two columns with the same content"
            raise InputError(
                f"{path} has {ratings:,} rows and the data have {number}{several}, so ratings cannot be matched to "
                "samples by their order",
                allowed=f"a single source with as many rows, or {both}",
                action="give the column that matches ratings to samples (--by-field NAME, or --by-field DATA=RATINGS "
                "if it has two names)",
            )
        found |= {"by": "row", "source": data[0].source["name"]}
    found |= {"overall": column} | _scale_of(path, column, scale)
    checked_file(parse(ImportedRater, {"name": SOURCE, "backend": found}, where="the ratings"))
    return found | {"keep": keep}


def score_column(path: str, column: str | None = None) -> str:
    """Return the column with the overall rating: `column`, or one with a usual name.

    Raises:
        UnknownScoresError: when there is no such column.
    """
    columns = _columns_of_ratings(path)
    found = column or _one_of(_SCORES, columns)
    if found is None or found not in columns:
        raise UnknownScoresError(path, columns, column)
    return found


def _key_and_field(path: str, columns: Sequence[str], data: Sequence[Data], named: str) -> tuple[str, str]:
    """Return the column of the ratings and the field of the data in `named`, which is NAME or DATA=RATINGS.

    Raises:
        InputError: when the ratings, or data that were read, do not have it.
    """
    # A column's name may itself contain "=".
    field, _, key = (named, "", named) if named in columns or "=" not in named else named.partition("=")
    lacking = [(path, columns)] if key not in columns else []
    lacking += [(one.path, one.columns) for one in data if one.columns and field not in one.columns]
    if lacking:
        where, there = lacking[0]
        raise InputError(
            f"{where}: there is no column {key if where == path and key not in columns else field!r}",
            allowed=", ".join(there),
            action="correct --by-field; write DATA=RATINGS if the column has two names",
        )
    return key, field


def scores_in(path: str, column: str | None = None) -> tuple[float, float] | None:
    """Return the lowest and highest score in a local file of ratings; None if it has none."""
    columns = _columns_of_ratings(path)
    column = column or _one_of(_SCORES, columns)
    numbers = _numbers(path, column) if column in columns else []
    return (min(numbers), max(numbers)) if numbers else None


def _scale_of(path: str, column: str, scale: str | None) -> dict[str, Any]:
    if scale is not None:
        return {"scale": scale_in(scale)}
    numbers = _numbers(path, column)
    if numbers and min(numbers) >= 1 and _LOWEST_TOP < max(numbers) <= 10:
        return {}
    seen = f"has values from {min(numbers):g} to {max(numbers):g}" if numbers else "has no numbers"
    raise SettingsError(
        f"{path}: the column '{column}' {seen}, which leaves its scale open",
        allowed="the lowest and highest possible score, such as 1-5, 0-1 or 1-10",
        action="give the scale (--scale)",
    )


def scale_in(text: str) -> dict[str, float] | str:
    """Return the scale in a text such as "1-5", in the form that settings use."""
    lowest, _, highest = text.replace(" ", "").partition("-")
    try:
        numbers = [float(lowest), float(highest)]
    except ValueError:
        numbers = []
    if len(numbers) < 2 or not float("-inf") < numbers[0] < numbers[1] < float("inf"):
        raise SettingsError(f"scale: seen '{text}'", allowed="LOWEST-HIGHEST, such as 1-5, 0-1 or 1-10")
    low, high = (int(number) if number.is_integer() else number for number in numbers)
    return "1-10" if (low, high) == (1, 10) else {"lowest": low, "highest": high}


def _columns_of_ratings(path: str) -> list[str]:
    if is_remote(path):
        raise SettingsError(f"{path} is in object storage", allowed="a local file, because its columns must be read")
    return columns_of(path, parse(PoolSettings, {"sources": [{"name": SOURCE, "path": path}]}, where="the ratings"))


def _values(path: str, column: str) -> list[Any]:
    return read_columns(Path(path), [column], shown=path)[column]


def _numbers(path: str, column: str) -> list[float]:
    found = []
    for value in _values(path, column):
        try:
            number = number_of(column, value)
        except UnparsableError:
            continue
        found += [] if number is None else [number]
    return found


def _one_of(names: Sequence[str], columns: Sequence[str]) -> str | None:
    return next((name for name in names if name in columns), None)
