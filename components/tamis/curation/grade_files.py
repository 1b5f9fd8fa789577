"""Read single human grades from files and from the pool's metadata."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError, UnparsableError
from tamis.core.ids import Keys, pack, unpack
from tamis.core.own_ids import ids_by_field, some
from tamis.core.tabular import key_of, local_copy, number_of, read_columns
from tamis.curation.settings import GradesSettings

INFORMATIVE, RANDOM = "informative", "random"  # why a sample is on a sheet, in its column `why`
NOT_STATED, DOUBTFUL, DRAWN = -1, 0, 1  # how a sample was chosen
_ROWS = 10_000  # samples of the pool whose metadata are in memory at once
_BY_OWN_IDS = (
    "if the rows have your own ids, set `keep: [uid]` on the pool's source, grades.key to the file's column of ids, "
    "and grades.field to uid"
)
Find: TypeAlias = Callable[[str], str | None]  # from a user's own id of a sample to the pool's id
_WHY = {INFORMATIVE: DOUBTFUL, RANDOM: DRAWN}


@dataclass(frozen=True)
class Found:
    """m single grades.

    Attributes:
        places: where they were found: files, or a field of the pool.
        place: (m,) index into `places`.
        row: (m,) row in the file, from 0; -1 in the pool.
        keys: (m,) samples.
        values: (m,) grades on the settings' scale.
        graders: names of the graders; empty for unnamed ones.
        grader: (m,) index into `graders`.
        weights: (m,) weights, NaN if there is none.
        chosen: (m,) how the sample was chosen: `DRAWN`, `DOUBTFUL` or `NOT_STATED`.
        shown: (m,) the samples' ids as given, for error messages.
        empty: number of rows without a grade.
        unknown: number of grades whose ids no sample of the pool has; they are not among the m.
    """

    places: list[str]
    place: NDArray[np.int64]
    row: NDArray[np.int64]
    keys: Keys
    values: NDArray[np.float64]
    graders: list[str]
    grader: NDArray[np.int64]
    weights: NDArray[np.float64]
    chosen: NDArray[np.int8]
    shown: list[str]
    empty: int = 0
    unknown: int = 0

    def where(self, number: int) -> str:
        """The place of a grade, for error messages."""
        row, place = int(self.row[number]), self.places[self.place[number]]
        return place if row < 0 else f"{place}, row {row} (the first is 0)"

    def sample(self, number: int) -> str:
        """The sample of a grade, for error messages."""
        return self.shown[number]


def read_ids(
    path: str, scratch: Path, settings: GradesSettings | None = None, pool: Artifact | None = None
) -> set[str]:
    """The ids of the samples in a file of grades, whether graded or not.

    Args:
        path: the file.
        scratch: folder for downloaded files.
        settings: names the column with ids; `id` if not given.
        pool: the pool, which `settings.key` needs.

    Raises:
        InputError: when the file lacks the column, or does not have the format of its name.
        StorageError: when the file does not exist.
    """
    key = None if settings is None else settings.key
    columns, column = _columns(path, scratch, key, [])
    named = {name for value in columns[column] if (name := key_of(value)) is not None}
    if settings is None or column != key:
        return named
    own = own_ids_of(settings, pool)
    assert own is not None
    return {sample for name in named if (sample := own(name)) is not None}


def graded_in_pool(pool: Artifact, column: str) -> set[str]:
    """The ids of the samples with a value in this field of their metadata."""
    return {sample for sample, value in _fields(pool, column) if key_of(value) is not None}


def own_ids_of(settings: GradesSettings, pool: Artifact | None) -> Find | None:
    """A function from a user's own id to the pool's id; None if the grades have the pool's ids."""
    if settings.own_field is None:
        return None
    assert pool is not None
    ids, wanted = ids_by_field(pool, settings.own_field)
    found = {own: sample for own, sample in zip(wanted, ids, strict=True) if own is not None}
    return found.get


def any_id(own: str) -> str:
    """A substitute for a sample's id, for checks before there is a pool."""
    return hashlib.blake2b(own.encode(), digest_size=16).hexdigest()


def _columns(path: str, scratch: Path, key: str | None, others: list[str]) -> tuple[dict[str, list[Any]], str]:
    """A file's columns, including `id` or `key` and `others`, and which of the two identifies the samples."""
    local, optional = local_copy(path, scratch), ["grader", "weight", "why"]
    if key is not None:
        columns = read_columns(local, others or ["grade"], optional=[*{key: None, "id": None}, *optional], shown=path)
        column = "id" if key not in columns and "id" in columns else key
        if column in columns:
            return columns, column
        return read_columns(local, [key], shown=path), key  # raises the error about the missing column
    try:
        return read_columns(local, ["id", *others], optional=optional, shown=path), "id"
    except InputError as error:
        error.action = f"{error.action}; {_BY_OWN_IDS}" if "'id'" in error.problem else error.action
        raise


def in_files(settings: GradesSettings, scratch: Path, own: Find | None) -> Found:
    """The grades in all files of the settings; `own` finds the samples of rows with the user's own ids.

    Raises:
        InputError: when a file lacks a column, an id or a number cannot be read, a weight is below 1, or `own` finds
            none of the samples.
        StorageError: when a file cannot be read.
    """
    names: dict[str, int] = {}
    keys, numbers = [np.empty(0, "S16")], list[tuple[int, int, int, float]]()
    samples, shown, strange = list[str | None](), list[str](), list[str]()
    empty, chosen = 0, _Chosen()
    for place, path in enumerate(settings.paths):
        columns, column = _columns(path, scratch, settings.key, ["grade"])
        find, first = own if column == settings.key else None, len(samples)
        for row, (named, value, grader, weighed, why) in enumerate(_cells(columns, column)):
            where = f"{path}, row {row} (the first is 0)"
            grade, weight = _grade_and_weight(value, weighed, named, where)
            empty += grade is None
            name = key_of(named)
            if find is not None and name is None and grade is not None:
                raise InputError(f"{where}: there is a grade, but the column '{column}' is empty")
            sample = name if find is None or name is None else find(name)
            if find is not None and sample is None:
                strange += [str(name)] if grade is not None else []
                continue
            chosen.note(sample, weight, why)
            if grade is not None:
                samples.append(sample)
                shown.append(str(name))
                numbers.append((place, row, names.setdefault(key_of(grader) or "", len(names)), grade))
        keys.append(_packed(samples[first:], path))
    if strange and not samples:
        raise InputError(
            f"{', '.join(settings.paths)}: no id belongs to a sample of the pool, for example {some(strange)}",
            allowed=f"values of the pool's field '{settings.own_field}'",
            action="correct grades.key and grades.field, or use grades of this pool's samples",
        )
    table = np.array(numbers, np.float64).reshape(-1, 4).T
    place_of, row_of, grader_of = table[:3].astype(np.int64)
    weights, why_of = chosen.of(samples)
    return Found(
        *(list(settings.paths), place_of, row_of, np.concatenate(keys), table[3], list(names), grader_of, weights),
        why_of,
        shown=shown,
        empty=empty,
        unknown=len(strange),
    )


def _cells(columns: dict[str, list[Any]], column: str) -> Iterator[tuple[Any, ...]]:
    """Row by row the cells of `column`, grade, grader, weight and why; None for columns that the file lacks."""
    nothing = [None] * len(columns["grade"])
    optional = [columns.get(name, nothing) for name in ("grader", "weight", "why")]
    return zip(columns[column], columns["grade"], *optional, strict=True)


def _grade_and_weight(grade: Any, weight: Any, sample: Any, where: str) -> tuple[float | None, float | None]:
    """A row's grade and weight as numbers, None for empty cells.

    Raises:
        InputError: when one is not a number, or the weight is below 1.
    """
    found, weighed = _number("grade", grade, sample, where), _number("weight", weight, sample, where)
    if weighed is not None and weighed < 1:
        raise InputError(
            f"{where}: the sample {sample} has the weight {weighed:g}",
            allowed="1 or more: 1 / the probability that the sample was drawn; or empty",
            action="restore the column `weight` as `tamis grade next` wrote it",
        )
    return found, weighed


def _packed(ids: list[str | None], path: str) -> Keys:
    try:
        return pack(pa.array(ids, pa.string()), where=f"{path}: ids of the rows with a grade")
    except InputError as error:
        error.action = _BY_OWN_IDS
        raise


class _Chosen:
    """How samples were chosen, from all rows of all files, also those of sheets without grades."""

    def __init__(self) -> None:
        self._weights: dict[str | None, float] = {}
        self._why: dict[str | None, int] = {}

    def note(self, sample: str | None, weight: float | None, why: Any) -> None:
        """Note what a row says about a sample. The lowest weight counts, and a random draw overrides other reasons."""
        if weight is not None:
            self._weights[sample] = min(weight, self._weights.get(sample, weight))
        chosen = DRAWN if weight is not None else _WHY.get(str(why).strip().lower(), NOT_STATED)
        self._why[sample] = max(chosen, self._why.get(sample, NOT_STATED))

    def of(self, samples: list[str | None]) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
        """(m,) weights, NaN if there is none, and (m,) how each sample was chosen."""
        weights = np.array([self._weights.get(sample, np.nan) for sample in samples], np.float64)
        return weights, np.array([self._why[sample] for sample in samples], np.int8)


def in_pool(pool: Artifact, column: str) -> Found:
    """The grades in a field of the pool's metadata.

    Raises:
        InputError: when no sample has the field, or a grade is not a number.
    """
    where = f"the pool's field '{column}'"
    samples, grades = [], array("d")
    for sample, value in _fields(pool, column):
        if (grade := _number(column, value, sample, where)) is not None:
            samples.append(bytes.fromhex(sample))
            grades.append(grade)
    nothing = np.zeros(len(grades), np.int64)
    return Found(
        [where],
        nothing,
        nothing - 1,
        np.array(samples, "S16"),
        np.array(grades),
        [""],
        nothing,
        np.full(len(grades), np.nan),
        np.full(len(grades), NOT_STATED, np.int8),
        unpack(np.array(samples, "S16")).to_pylist(),
    )


def _fields(pool: Artifact, name: str) -> Iterator[tuple[str, Any]]:
    """Each sample's id and its value of this field, None if it lacks the field.

    Raises:
        InputError: when no sample has the field.
    """
    names: set[str] = set()
    for batch in pool.batches(["id", "metadata"], rows=_ROWS):
        for sample, text in zip(batch["id"].to_pylist(), batch["metadata"].to_pylist(), strict=True):
            kept = json.loads(text) if text else {}
            names.update(kept)
            yield sample, kept.get(name)
    if name not in names:
        raise InputError(
            f"grades.column is '{name}', but no sample of the pool has that field in its metadata",
            allowed=", ".join(sorted(names)) or "nothing: the pool keeps no metadata",
            action="correct the name, or add the field to `keep` of the pool's source",
        )


def _number(name: str, value: Any, sample: Any, where: str) -> float | None:
    try:
        return number_of(name, value)
    except UnparsableError as error:
        raise InputError(
            f"{where}: the sample {sample}: {error.problem}",
            allowed="a number with a decimal point, or empty",
            action="correct the file",
        ) from None
