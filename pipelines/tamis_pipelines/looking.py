"""What `tamis init` sees of a user's data and ratings: their first rows, as the pool's and the import's readers do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tamis.core.errors import InputError, SettingsError, TamisError
from tamis.core.llm.forms import UnparsableError
from tamis.core.samples import Message
from tamis.core.settings import parse
from tamis.core.storage import is_remote
from tamis.core.tabular import number_of, read_columns
from tamis.pool.checking import first_samples, look_into
from tamis.pool.mapping import mapping_of
from tamis.pool.readers import reader_of
from tamis.pool.saved import is_saved
from tamis.pool.settings import PoolSettings
from tamis.pool.sources import count_rows, files_at
from tamis.reporting.numbers import clipped

SOURCE = "mine"  # what the pool's only source is called
SHOWN = 100  # characters of a text of the user's, which a terminal must not obey
_LARGE = 1 << 28  # bytes of files that are not counted
_SCORES = ("overall", "score", "rating", "quality", "grade")  # usual names of a column with ratings
_IDS = ("id", "key", "uid", "uuid", "sample_id", "prompt_id")  # usual names of what identifies a row
_LOWEST_TOP = 7  # scores up to this may be on a scale that ends there


class UnknownLayoutError(InputError):
    """Rows can be read, and their fields are of no known layout. `columns` are their names."""

    code = "unknown-layout"

    def __init__(self, problem: str, *, allowed: str = "", action: str = "", columns: Sequence[str] = ()) -> None:
        super().__init__(problem, allowed=allowed, action=action)
        self.columns = list(columns)


@dataclass(frozen=True)
class Data:
    """What the first rows of the data hold.

    Attributes:
        path: where they lie.
        columns: fields of the first row; none where they were not looked at, or a library keeps them.
        layout: the pool's schema and its fields as they are called here, "" where they were not looked at.
        source: settings of the pool's source.
        rows: how many there are, None where that would take long to count.
        read: rows that were looked at.
        unusable: those of them that are no samples.
        first: the first sample; None where there is none.
    """

    path: str
    columns: tuple[str, ...]
    layout: str
    source: dict[str, Any]
    rows: int | None
    read: int
    unusable: int
    first: list[Message] | None


def look_at_data(path: str, prompt: str | None = None, answer: str | None = None) -> Data:
    """Read the first rows of the data at `path`.

    Args:
        path: file, folder or glob; what lies in object storage, or is one large JSON array, is not read.
        prompt: name of the field with the question, where the layout is no usual one.
        answer: name of the field with the answer.

    Raises:
        UnknownLayoutError: when the fields are of no known layout.
        InputError: when it cannot be read, or not one of its first rows is a sample.
        StorageError: when nothing is there.
    """
    if (prompt is None) != (answer is None):
        raise SettingsError("one of the fields with question and answer is named", allowed="both, or neither")
    source: dict[str, Any] = {"name": SOURCE, "path": path}
    if prompt is not None:
        source |= {"schema": "prompt_completion", "fields": {"prompt": prompt, "completion": answer}}
    settings = parse(PoolSettings, {"sources": [source]}, where="the data")
    try:
        found = look_into(settings.sources[0], settings)
    except InputError:
        _check_layout(settings, path)
        raise
    if found is None:  # in object storage, or too large to be loaded
        files_at(path)  # an error where nothing is there
        return Data(path, (), "", source, None, 0, 0, None)
    samples = first_samples(settings, 1)
    if not samples:
        raise InputError(
            f"{path}: none of its first {found.rows:,} rows is a sample{'; the first: ' if found.example else ''}"
            f"{found.example}",
            action="correct the data, or name the fields with question and answer",
        )
    assert found.mapping is not None  # there is a sample
    columns = _columns_of(path, settings)
    used = [name for name in found.mapping.columns if not columns or name in columns]
    layout = f"{found.mapping.schema} ({', '.join(used)})"
    counted = _counted(path, settings)
    return Data(path, tuple(columns), layout, source, counted, found.rows, found.rejected.total(), samples[0])


def described(data: Data) -> list[str]:
    """What was seen, in lines for a terminal."""
    if not data.layout:
        return ["not looked at: in object storage, or too large"]
    rows = "many rows" if data.rows is None else f"{data.rows:,} rows"
    lines = [f"{rows}; layout: {clipped(data.layout, SHOWN)}"]
    lines += [f"first sample, {turn['role']}: {clipped(turn['content'], SHOWN)}" for turn in (data.first or [])[:4]]
    if data.unusable:
        lines.append(f"{data.unusable:,} of the first {data.read:,} rows are no samples; the pool says why")
    return lines


def _check_layout(settings: PoolSettings, path: str) -> None:
    """Raises UnknownLayoutError when the layout is why the data cannot be read."""
    columns = _columns_of(path, settings)
    if not columns:
        return  # something else is wrong
    try:
        mapping_of(settings.sources[0], columns, path)
    except InputError as error:
        raise UnknownLayoutError(
            error.problem,
            allowed=error.allowed,
            action="name the fields with question and answer (--prompt-field, --answer-field)",
            columns=columns,
        ) from None


def _columns_of(path: str, settings: PoolSettings) -> list[str]:
    """Fields of the first local file at `path`; none of a folder that `datasets` wrote."""
    if is_saved(path):
        return []
    return list(reader_of(Path(str(files_at(path)[0][1])), settings.max_json_mib, settings.max_row_mib).columns)


def _counted(path: str, settings: PoolSettings) -> int | None:
    """Rows at `path`, None where they are many or no rows of files."""
    try:
        size = sum(Path(str(file)).stat().st_size for _, file in files_at(path))
        return count_rows(path, settings) if size <= _LARGE else None
    except TamisError:
        return None


def look_at_ratings(
    path: str, data: Data, *, column: str | None = None, field: str | None = None, scale: str | None = None
) -> dict[str, Any]:
    """Settings that import the ratings at `path`, and with them `keep`: fields that the pool's source has to keep.

    Args:
        path: a file with ratings, .jsonl, .csv or .parquet; it may be the data themselves.
        data: what is rated.
        column: the column with the overall rating; one of the usual names if not given.
        field: the column, of both files, that says which rating is whose; if not given, one of the usual names that
            both have, else the order of the rows.
        scale: lowest and highest score that can be given, as in "1-5"; 1 to 10 if not given.

    Raises:
        InputError: when the file cannot be read, or a column is not there or cannot be told.
        SettingsError: when no scale is given, and the scores do not look like 1 to 10.
        StorageError: when nothing is there.
    """
    columns = _columns_of_ratings(path)
    column = column or _one_of(_SCORES, columns)
    if column is None or column not in columns:
        raise InputError(
            f"{path}: {'no column with ratings can be told' if column is None else f'there is no column {column!r}'}",
            allowed=", ".join(columns),
            action="name it (--score-column)",
        )
    found: dict[str, Any] = {"kind": "import", "path": path}
    keep: list[str] = []
    field = field or (None if path == data.path else _one_of(_IDS, [name for name in columns if name in data.columns]))
    if field is not None:
        found |= {"by": "metadata", "key": field}
        keep = [field]
    else:
        values = _values(path, column)
        if data.rows is not None and len(values) != data.rows:
            raise InputError(
                f"{path} has {len(values):,} rows, the data {data.rows:,}, so that their order tells nothing",
                allowed="as many rows, or a column that both have: " + ", ".join(_IDS),
                action="name the column that both have (--by-field)",
            )
        found |= {"by": "row", "source": SOURCE}
    found |= {"overall": column} | _scale_of(path, column, scale)
    return found | {"keep": keep}


def scores_in(path: str, column: str | None = None) -> tuple[float, float] | None:
    """Lowest and highest score in a local file of ratings; None where there are none."""
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
    seen = f"goes from {min(numbers):g} to {max(numbers):g}" if numbers else "holds no number"
    raise SettingsError(
        f"{path}: the column '{column}' {seen}, which does not tell its scale",
        allowed="the lowest and the highest score that can be given, as in 1-5, 0-1 or 1-10",
        action="give it (--scale)",
    )


def scale_in(text: str) -> dict[str, float] | str:
    """A scale as the settings have it, out of a text such as "1-5"."""
    lowest, _, highest = text.replace(" ", "").partition("-")
    try:
        numbers = [float(lowest), float(highest)]
    except ValueError:
        numbers = []
    if len(numbers) < 2 or not float("-inf") < numbers[0] < numbers[1] < float("inf"):
        raise SettingsError(f"scale: seen '{text}'", allowed="lowest-highest, as in 1-5, 0-1 or 1-10")
    low, high = (int(number) if number.is_integer() else number for number in numbers)
    return "1-10" if (low, high) == (1, 10) else {"lowest": low, "highest": high}


def _columns_of_ratings(path: str) -> list[str]:
    if is_remote(path):
        raise SettingsError(f"{path} is in object storage", allowed="a local file, which can be looked at")
    return _columns_of(path, parse(PoolSettings, {"sources": [{"name": SOURCE, "path": path}]}, where="the ratings"))


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
