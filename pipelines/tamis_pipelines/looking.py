"""How `tamis init` looks at a user's data: it reads their first rows, and derives the settings of sources."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Any

from tamis.core.errors import InputError, SettingsError, StorageError, TamisError
from tamis.core.samples import Message
from tamis.core.saved import is_saved
from tamis.core.settings import parse
from tamis.core.storage import is_remote
from tamis.core.storage.connecting import few_attempts
from tamis.pool.checking import first_samples, look_at, look_into, samples_in
from tamis.pool.hub import DatasetReader, opened_as_stream
from tamis.pool.mapping import mapping_of
from tamis.pool.readers import how_to_read, reader_of
from tamis.pool.settings import PoolSettings
from tamis.pool.sources import count_rows, files_at
from tamis.reporting.numbers import clipped
from tamis_pipelines.pool_size import LARGE

SOURCE = "mine"  # name of the pool's source if there is only one
SHOWN = 100  # characters shown of a user's text, which may contain control characters
HUB = "hub:"  # prefix of the name of a data set on the Hugging Face Hub
_MOST_SOURCES = 20  # most sources that one folder or pattern may become
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
# Usual names of fields with question and answer that the pool does not recognise, in lower case.
_PAIRS = (
    ("question", "answer"),
    ("query", "response"),
    ("input", "output"),
    ("prompt", "response"),
    ("instruction", "response"),
    ("q", "a"),
)


class UnknownLayoutError(InputError):
    """Rows can be read, but their fields have no known layout. `columns` are their names."""

    code = "unknown-layout"

    def __init__(self, problem: str, *, allowed: str = "", action: str = "", columns: Sequence[str] = ()) -> None:
        super().__init__(problem, allowed=allowed, action=action)
        self.columns = list(columns)


@dataclass(frozen=True)
class Data:
    """What the first rows of one source contain.

    Attributes:
        path: where the source is, or "hub:" and the name of a data set.
        columns: fields of the first row; none if they were not read, or if `datasets` saved them.
        used: the fields that the pool reads.
        schema: the pool's name of the layout, "" if the rows were not read.
        source: settings of the pool's source.
        rows: number of rows, None if counting would take long.
        read: number of rows that were read.
        unusable: how many of these are not usable samples.
        first: the first sample, if there is one.
        why_not: why the rows were not read.
        guessed: whether the fields with question and answer were guessed from their names.
    """

    path: str
    columns: tuple[str, ...]
    used: tuple[str, ...]
    schema: str
    source: dict[str, Any]
    rows: int | None
    read: int
    unusable: int
    first: list[Message] | None
    why_not: str = ""
    guessed: bool = False

    @property
    def layout(self) -> str:
        """The layout with the names of its fields, "" if the rows were not read."""
        return f"{self.schema} ({', '.join(self.used)})" if self.schema else ""

    @property
    def unused(self) -> list[str]:
        """Fields that the pool does not read."""
        return [name for name in self.columns if name not in self.used]


def look_at_data(paths: Sequence[str], prompt: str | None = None, answer: str | None = None) -> list[Data]:
    """Read the first rows of all data; every layout becomes a separate source.

    Args:
        paths: files, folders or globs, or "hub:" and the name of a data set. Data in object storage and large JSON
            arrays are not read; object storage and a Hub that do not answer are no errors.
        prompt: name of the field with the question, for files that have it.
        answer: name of the field with the answer.

    Raises:
        UnknownLayoutError: when the fields have no known layout.
        InputError: when data cannot be read, none of the first rows is a usable sample, or two paths contain the same
            file.
        SettingsError: when only one of the two fields is given.
        StorageError: when there is nothing at a path.
    """
    if (prompt is None) != (answer is None):
        raise SettingsError(
            "only one of the fields with question and answer is given",
            allowed="both (--prompt-field and --answer-field), or neither",
        )
    named = None if prompt is None or answer is None else {"prompt": prompt, "completion": answer}
    _check_apart(paths)
    places = [place for path in paths for place in _by_layout(path, named)]
    if named is not None and not any("fields" in place for place in places):
        raise InputError(
            f"no data have both the fields {prompt!r} and {answer!r}",
            action="correct --prompt-field and --answer-field",
        )
    names = _names_of([str(place.get("path") or place["dataset"]) for place in places])
    found = [_look({"name": name} | place) for name, place in zip(names, places, strict=True)]
    return [replace(one, guessed=one.source.get("fields") not in (None, named)) for one in found]


def rows_of(data: Sequence[Data]) -> int | None:
    """Return the number of rows in all sources; None if one is unknown."""
    counted = [one.rows for one in data if one.rows is not None]
    return sum(counted) if len(counted) == len(data) else None


def described(data: Sequence[Data]) -> list[str]:
    """Describe each source in lines for a terminal."""
    return [line for one in data for line in _described(one, alone=len(data) == 1)]


def _described(data: Data, *, alone: bool) -> list[str]:
    before = "" if alone else f"{data.source['name']}, {clipped(data.path, SHOWN)}: "
    if not data.schema:
        return [f"{before}not read: {clipped(data.why_not, SHOWN)}"]
    rows = "many rows" if data.rows is None else f"{data.rows:,} rows"
    unused = f"; not used: {clipped(', '.join(data.unused), SHOWN)}" if data.unused else ""
    lines = [f"{before}{rows}; layout: {clipped(data.layout, SHOWN)}{unused}"]
    turns = (data.first or [])[: 4 if alone else 2]
    lines += [f"first sample, {turn['role']}: {clipped(turn['content'], SHOWN)}" for turn in turns]
    if data.guessed:
        lines.append("these two fields were guessed from their names; --prompt-field and --answer-field choose others")
    if data.unusable:
        lines.append(f"{data.unusable:,} of the first {data.read:,} rows are not usable samples; the pool will say why")
    return lines


def _check_apart(paths: Sequence[str]) -> None:
    """Raise an InputError if two paths contain the same file, because its samples would be read twice."""
    seen: dict[str, str] = {}
    for path in paths:
        try:
            files = [path] if path.startswith(HUB) or is_saved(path) else [str(file) for _, file in _files_at(path)]
        except StorageError as error:
            if not _is_away(path, error):
                raise
            continue  # `_look` says so
        for file in files if is_remote(path) else map(os.path.realpath, files):
            if file in seen:
                raise InputError(
                    f"{seen[file]} and {path} both contain {Path(file).name}", action="give each file only once"
                )
            seen[file] = path


def _is_away(path: str, error: StorageError) -> bool:
    """Whether `path` is in object storage that this machine cannot reach now, although pods may."""
    return is_remote(path) and not error.permanent


def _files_at(path: str) -> list[tuple[str, Any]]:
    try:
        with few_attempts():
            return files_at(path)
    except StorageError as error:
        if _HUB_NAME.fullmatch(path) and not Path(path).suffix:
            action = f"check the path; for a data set on the Hugging Face Hub, write {HUB}{path}"
            raise StorageError(error.problem, allowed=error.allowed, action=action) from None
        raise


def _by_layout(path: str, named: dict[str, str] | None) -> list[dict[str, Any]]:
    """Return the settings of the sources for `path`: one, unless its files have several layouts."""
    if path.startswith(HUB):
        return [{"dataset": path.removeprefix(HUB)}]
    if is_remote(path):
        return [{"path": path} | ({} if named is None else _named(named))]
    if is_saved(path):
        data = _pool_of({"name": SOURCE, "dataset": path})
        own = _fields_to_name(path, DatasetReader(data.sources[0], "").columns, data, named)
        return [{"path": path} | ({} if own is None else _named(own))]
    settings = _pool_of({"name": SOURCE, "path": path})
    groups: dict[tuple[Any, ...], list[str]] = {}
    by_fields: dict[tuple[Any, ...], dict[str, str]] = {}  # layouts whose fields must be named in the settings
    for file in (str(file) for _, file in files_at(path)):
        columns = _columns_of_file(file, settings)
        layout: tuple[Any, ...] = ()
        if (fields := _fields_to_name(file, columns, settings, named)) is not None:
            layout = ("named", *fields.values())
            by_fields[layout] = fields
        elif columns:
            found = _mapping(file, columns, settings)
            layout = (found.schema, *found.columns[:1])
        groups.setdefault(layout, []).append(file)
    empty = groups.pop((), []) if len(groups) > 1 else []  # files without rows fit any layout
    if len(groups) == 1:
        patterns = {layout: [path] for layout in groups}
    else:
        patterns = {layout: _patterns(path, files, empty) for layout, files in groups.items()}
    found_sources = [
        {"path": pattern} | (_named(by_fields[layout]) if layout in by_fields else {})
        for layout, some in patterns.items()
        for pattern in some
    ]
    if len(found_sources) > _MOST_SOURCES:
        raise InputError(
            f"{path} has files with {len(groups)} layouts, and no pattern separates them",
            action="put each layout into a separate folder, or give only the files of one layout",
        )
    return found_sources


def _fields_to_name(
    path: str, columns: list[str], settings: PoolSettings, named: dict[str, str] | None
) -> dict[str, str] | None:
    """Return the fields with question and answer: those `named`, or a usual pair; None if the pool knows the layout.

    Raises:
        UnknownLayoutError: when these fields cannot be determined.
    """
    if named is not None and set(named.values()) <= set(columns):
        return named
    if not columns:
        return None
    try:
        _mapping(path, columns, settings)
    except UnknownLayoutError:
        if (pair := _usual_pair(columns)) is None:
            raise
        return pair
    return None


def _patterns(path: str, files: list[str], empty: Sequence[str]) -> list[str]:
    """Return patterns that match only these files at `path`: a single one if possible, otherwise every file by itself.

    `empty` are files without rows, which a pattern may match too.
    """
    if len(files) == 1:
        return files
    folder, names = os.path.commonpath([os.path.dirname(file) for file in files]), sorted(map(os.path.basename, files))
    begin, end = _beginning(names), _beginning([name[::-1] for name in names])[::-1]
    suffix = "".join(Path(names[0]).suffixes[-1:])
    for pattern in (f"{folder}/{begin}*{end}", f"{folder}/*{suffix}", f"{folder}/**/*{suffix}", folder):
        try:
            if {str(file) for _, file in files_at(pattern)} - {*empty} == {*files}:
                return [pattern]
        except TamisError:
            continue
    return files


def _beginning(names: Sequence[str]) -> str:
    """Return the letters that all names start with."""
    return os.path.commonprefix(names)  # noqa: RUF071  (compares letters, not folders)


def _usual_pair(columns: Sequence[str]) -> dict[str, str] | None:
    """Return the fields with question and answer, if exactly one pair of usual names is among the columns."""
    called: dict[str, list[str]] = {}
    for column in columns:
        called.setdefault(column.strip().lower(), []).append(column)
    pairs = [
        {"prompt": prompt, "completion": answer}
        for names in _PAIRS
        for prompt in called.get(names[0], ())
        for answer in called.get(names[1], ())
    ]
    return pairs[0] if len(pairs) == 1 else None


def _named(fields: dict[str, str]) -> dict[str, Any]:
    return {"schema": "prompt_completion", "fields": fields}


def _names_of(places: Sequence[str]) -> list[str]:
    """Return a name for every source: that of its file or data set, with a number if two would be the same."""
    if len(places) == 1:
        return [SOURCE]
    names: list[str] = []
    for place in places:
        stem = re.split(r"[/\\]", place.rstrip("/\\"))[-1].partition(".")[0]
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-") or "data"
        numbered = (f"{name}-{number}" for number in count(2))
        names.append(name if name not in names else next(one for one in numbered if one not in names))
    return names


def _look(source: dict[str, Any]) -> Data:
    if "dataset" in source:
        return _look_at_hub(source)
    path, settings = source["path"], _pool_of(source)
    try:
        with few_attempts():
            found = look_into(settings.sources[0], settings)
            if found is None:  # in object storage, or too large to be loaded
                files_at(path)  # raises an error if nothing is there
                why_not = "in object storage, or too large"
                return Data(path, (), (), "", source, None, 0, 0, None, why_not)
    except StorageError as error:
        if not _is_away(path, error):
            raise
        return Data(path, (), (), "", source, None, 0, 0, None, error.problem)
    samples = first_samples(settings, 1)
    if not samples:
        raise _no_sample(path, found.rows, found.example)
    assert found.mapping is not None  # there is a sample
    columns = list(dict.fromkeys([*columns_of(path, settings), *found.names]))
    used = tuple(name for name in found.mapping.columns if not columns or name in columns)
    counted, schema = _counted(path, settings), found.mapping.schema
    return Data(
        path, tuple(columns), used, schema, source, counted, found.rows, found.rejected.total(), samples[0]
    )  # fmt: skip


def _look_at_hub(source: dict[str, Any]) -> Data:
    """Read the first rows of a data set on the Hub without downloading the rest. It is no error if the Hub is away."""
    place, parsed = f"{HUB}{source['dataset']}", _pool_of(source).sources[0]
    try:
        reader = opened_as_stream(parsed)
    except StorageError as error:
        return Data(place, (), (), "", source, None, 0, 0, None, error.problem)
    if reader.columns:
        try:
            mapping_of(parsed, reader.columns, place)
        except InputError as error:
            pair = _usual_pair(reader.columns) if "fields" not in source else None
            if pair is None:
                raise _unknown(error, reader.columns) from None
            source = source | _named(pair)
            parsed = _pool_of(source).sources[0]
    found = look_at(parsed, [(place, reader)])
    samples = list(islice(samples_in(parsed, [(place, reader)]), 1))
    if not samples or found.mapping is None:
        raise _no_sample(place, found.rows, found.example)
    used = tuple(name for name in found.mapping.columns if name in reader.columns)
    return Data(
        place, tuple(reader.columns), used, found.mapping.schema, source, reader.total, found.rows,
        found.rejected.total(), samples[0],
    )  # fmt: skip


def _no_sample(path: str, rows: int, example: str) -> InputError:
    return InputError(
        f"{path}: none of the first {rows:,} rows is a usable sample{'; the first: ' if example else ''}{example}",
        action="correct the data, or give the fields with question and answer (--prompt-field, --answer-field)",
    )


def _pool_of(source: dict[str, Any]) -> PoolSettings:
    return parse(PoolSettings, {"sources": [source]}, where="the data")


def _mapping(path: str, columns: list[str], settings: PoolSettings) -> Any:
    """Return how rows of a file with these columns become conversations.

    Raises:
        UnknownLayoutError: when the layout is not known.
    """
    try:
        return mapping_of(settings.sources[0], columns, path)
    except InputError as error:
        raise _unknown(error, columns) from None


def _unknown(error: InputError, columns: list[str]) -> UnknownLayoutError:
    return UnknownLayoutError(
        error.problem,
        allowed=error.allowed,
        action="give the fields with question and answer (--prompt-field, --answer-field)",
        columns=columns,
    )


def columns_of(path: str, settings: PoolSettings) -> list[str]:
    """Return the fields of the first local file at `path`; none for a folder that `datasets` saved."""
    return [] if is_saved(path) else _columns_of_file(str(files_at(path)[0][1]), settings)


def _columns_of_file(file: str, settings: PoolSettings) -> list[str]:
    return list(reader_of(Path(file), how_to_read(settings)).columns)


def _counted(path: str, settings: PoolSettings) -> int | None:
    """Return the number of rows at `path`; None if the files are large or cannot be counted."""
    try:
        size = sum(Path(str(file)).stat().st_size for _, file in files_at(path))
        return count_rows(path, settings) if size <= LARGE else None
    except TamisError:
        return None
