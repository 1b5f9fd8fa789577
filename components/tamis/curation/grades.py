"""Human grades of some of the samples: read, checked, and brought into the order of the neighbour graph."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError, SettingsError
from tamis.core.ids import Keys, pack, positions, unpack
from tamis.core.llm.forms import UnparsableError
from tamis.core.own_ids import ids_by_field, some
from tamis.core.scales import Scale, in_lower_half, seem_on_another
from tamis.core.storage import fingerprint
from tamis.core.tabular import key_of, local_copy, number_of, read_columns
from tamis.curation.classes import UNRATED, to_classes
from tamis.curation.settings import GradesSettings

INFORMATIVE, RANDOM = "informative", "random"  # why a sample is on a sheet, in its column `why`
_ROWS = 10_000  # samples of the pool whose metadata are in memory at once
_DIGITS = 9  # of a stretched mean: 5.4999999999 is 5.5
_UNTOLD, _DOUBTFUL, _DRAWN = -1, 0, 1
_BY_OWN_IDS = (
    "where the rows have ids of your own: `keep: [uid]` on the pool's source, then grades.key: the file's column with "
    "them, and grades.field: uid"
)
_Find: TypeAlias = Callable[[str], str | None]  # the pool's id of a sample that somebody calls otherwise
_WHY = {INFORMATIVE: _DOUBTFUL, RANDOM: _DRAWN}


@dataclass(frozen=True)
class Grades:
    """Human grades in the graph's order.

    Attributes:
        classes: (n,) int8 class of the mean grade, -1 where there is none.
        weights: (n,) float64, how many samples each stands for: 1 / the probability with which it was drawn to be
            graded; NaN where there is no grade, or the sample was not drawn at random.
        weighted: whether anything is known of how the samples were chosen; without, all count as drawn at random.
        equal: samples of which it is known that they were drawn at random, but not with which probability: their
            `weights` are equal.
        unknown: grades of samples that the graph does not have.
        empty: rows of the files without a grade.
        agreement: what `agreement` says of the graders.
        warnings: doubts about the grades, in plain words.
    """

    classes: NDArray[np.int8]
    weights: NDArray[np.float64]
    weighted: bool
    equal: int
    unknown: int
    empty: int
    agreement: dict[str, Any]
    warnings: list[str] = field(default_factory=list)

    @property
    def graded(self) -> int:
        """Samples of the graph that have a grade."""
        return int((self.classes != UNRATED).sum())

    @property
    def chosen(self) -> dict[str, int]:
        """How many of these were drawn at random, were chosen otherwise, and are taken as drawn since nobody knows."""
        drawn = int(np.isfinite(self.weights).sum())
        if not self.weighted:
            return {"drawn_at_random": 0, "chosen_otherwise": 0, "taken_as_drawn": self.graded}
        return {"drawn_at_random": drawn, "chosen_otherwise": self.graded - drawn, "taken_as_drawn": 0}


@dataclass(frozen=True)
class _Found:
    """Single grades, as they were found; m of them.

    Attributes:
        places: where they were found: files, or one field of the pool.
        place: (m,) which of these.
        row: (m,) row in the file, from 0; -1 in the pool.
        keys: (m,) samples.
        values: (m,) on the settings' scale.
        graders: names of the graders, empty where none is named.
        grader: (m,) which of these.
        weights: (m,) NaN where there is none.
        chosen: (m,) how the sample was chosen: `_DRAWN`, `_DOUBTFUL` or `_UNTOLD`.
        shown: (m,) what the samples are called there, for errors.
        empty: rows without a grade.
        unknown: grades with ids of the user's own that no sample of the pool has; they are not among the m.
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
        """Where one of them was found, for errors."""
        row, place = int(self.row[number]), self.places[self.place[number]]
        return place if row < 0 else f"{place}, row {row} (the first is 0)"

    def sample(self, number: int) -> str:
        """The id of one of them."""
        return self.shown[number]


def fingerprints(settings: GradesSettings) -> dict[str, str]:
    """What a step depends on besides its inputs: each file of grades with a fingerprint of its content.

    Raises:
        StorageError: when a file is not there.
    """
    return {f"grades {number}": fingerprint(path) for number, path in enumerate(settings.paths, 1)}


def read_grades(
    settings: GradesSettings,
    ids: Keys,
    *,
    lowest: int,
    highest: int,
    scratch: Path,
    pool: Artifact | None = None,
) -> Grades:
    """The grades of the samples `ids` (n,).

    A sample's grade is the mean of its graders'. It is stretched from the settings' scale to 1..10 and becomes a class
    as a rating does (`classes.to_classes`: rounded half up, from `lowest` to `highest`).

    Args:
        settings: where the grades are, and on what scale.
        ids: the graph's samples.
        lowest: ratings up to this are class 0.
        highest: ratings from this on are the top class.
        scratch: folder for files that are downloaded.
        pool: the pool, which `settings.column` and `settings.key` need.

    Raises:
        SettingsError: when `settings.column` or `settings.key` is set and there is no `pool`.
        InputError: when a grade is no number or outside the scale, no scale is set and the grades seem to be on another
            than 1 to 10, a weight is below 1, a grader graded a sample
            twice, no sample has a grade, or the graph has none of those that have one.
        StorageError: when a file cannot be read.
    """
    if settings.pool_field is not None and pool is None:
        name = "field" if settings.column is None else "column"
        raise SettingsError(
            f"grades.{name} is '{settings.pool_field}', a field of the pool, and no pool was given",
            action="give the pool too, or the grades as a file with the pool's ids: grades.path",
        )
    if settings.column is None:
        found = _in_files(settings, scratch, _own_ids(settings, pool))
    else:
        assert pool is not None
        found = _in_pool(pool, settings.column)
    source = ", ".join(found.places)
    scale, warnings = _checked(found, settings)
    samples, places = np.unique(found.keys, return_inverse=True)
    _refuse_repeats(found, places)
    rows = positions(samples, ids)
    known = rows >= 0
    unknown = int((~known)[places].sum()) + found.unknown
    if unknown and known.any():
        warnings.append(f"{source}: {unknown} grades are of samples that the neighbour graph does not have")
    if not known.any():
        raise InputError(
            f"{source}: none of the {len(samples)} samples with a grade is in the neighbour graph; the first is "
            f"{found.sample(0)}",
            allowed="ids of the pool's column `id`",
            action="give the grades of this pool's samples",
        )
    grades = scale.stretched(found.values)
    means = np.bincount(places, weights=grades) / np.bincount(places)
    aligned, weights = np.full(len(ids), np.nan), np.full(len(ids), np.nan)
    aligned[rows[known]] = means[known]
    weights[rows[known]] = _least(found.weights, places)[known]
    drawn = np.zeros(len(ids), bool)
    drawn[rows[known]] = np.bincount(places, found.chosen == _DRAWN)[known] > 0
    equal = drawn & np.isnan(weights)
    told = bool(np.isfinite(weights).any() or (found.chosen != _UNTOLD).any())
    weights[equal] = max(1.0, len(ids) / max(int((drawn | np.isfinite(weights)).sum()), 1))
    classes = partial(_classes, lowest=lowest, highest=highest)
    return Grades(
        classes=classes(aligned),
        weights=weights,
        weighted=told,
        equal=int(equal.sum()),
        unknown=unknown,
        empty=found.empty,
        agreement=agreement(places, found.grader, grades, classes(grades)),
        warnings=warnings,
    )


def check_files(settings: GradesSettings, scratch: Path) -> int:
    """Read the files of grades as a run does, as far as that goes without a pool.

    Columns, the form of ids, the scale and repeated grades are looked at; of `settings.key`, not whether the pool has
    such ids.

    Returns:
        How many grades there are.

    Raises:
        InputError: as `read_grades`.
        StorageError: when a file cannot be read.
    """
    found = _in_files(settings, scratch, None if settings.key is None else _any_id)
    _checked(found, settings)
    _refuse_repeats(found, np.unique(found.keys, return_inverse=True)[1])
    return len(found.keys)


def read_ids(
    path: str, scratch: Path, settings: GradesSettings | None = None, pool: Artifact | None = None
) -> set[str]:
    """The ids of the samples that a file of grades names, graded or not.

    Args:
        path: the file.
        scratch: folder for files that are downloaded.
        settings: by which column they are found; by `id` if not given.
        pool: the pool, which `settings.key` needs.

    Raises:
        InputError: when the file has no such column, or cannot be read as what its name says.
        StorageError: when it is not there.
    """
    key = None if settings is None else settings.key
    columns, column = _columns(path, scratch, key, [])
    named = {name for value in columns[column] if (name := key_of(value)) is not None}
    if settings is None or column != key:
        return named
    own = _own_ids(settings, pool)
    assert own is not None
    return {sample for name in named if (sample := own(name)) is not None}


def graded_in_pool(pool: Artifact, column: str) -> set[str]:
    """The ids of the samples that have something in this field of their metadata."""
    return {sample for sample, value in _fields(pool, column) if key_of(value) is not None}


def agreement(
    samples: NDArray[np.integer[Any]],
    graders: NDArray[np.integer[Any]],
    grades: NDArray[np.float64],
    classes: NDArray[np.int8],
) -> dict[str, Any]:
    """How far graders agree on the samples that several of them graded.

    Args:
        samples: (m,) codes 0.. of the samples of m grades.
        graders: (m,) codes of who gave them.
        grades: (m,) the grades.
        classes: (m,) the class of each.

    Returns:
        JSON values: numbers of `graders`, `samples`, `samples_with_several` and `pairs` (of grades of one sample);
        the share of pairs in the same class (`equal_class`) and at most one class apart (`within_one`); and
        `krippendorff_alpha` of the grades with the interval metric, 1 - observed / expected disagreement (Krippendorff,
        "Computing Krippendorff's Alpha-Reliability", 2011): 1 is full agreement, 0 what chance gives. The last three
        are None where no sample has several grades, alpha also where all grades are equal.
    """
    counts = np.bincount(samples)
    several = counts[samples] >= 2
    result: dict[str, Any] = {
        "graders": len(np.unique(graders)),
        "samples": int((counts > 0).sum()),
        "samples_with_several": int((counts >= 2).sum()),
        "pairs": int((counts * (counts - 1) // 2).sum()),
        "equal_class": None,
        "within_one": None,
        "krippendorff_alpha": None,
    }
    if not several.any():
        return result
    places = np.unique(samples[several], return_inverse=True)[1]
    sizes = np.bincount(places)
    tally = np.zeros((len(sizes), int(classes.max()) + 1), np.int64)
    np.add.at(tally, (places, classes[several]), 1)
    result["equal_class"] = float((tally * (tally - 1) // 2).sum() / result["pairs"])
    near = (tally[:, 1:] * tally[:, :-1]).sum() / result["pairs"]
    result["within_one"] = result["equal_class"] + float(near)
    values = grades[several] - grades[several].mean()
    # The sum of (a - b)^2 over ordered pairs of m values is 2 (m sum a^2 - (sum a)^2).
    sums, squares = np.bincount(places, weights=values), np.bincount(places, weights=values**2)
    observed = (2 * (sizes * squares - sums**2) / (sizes - 1)).sum() / len(values)
    expected = 2 * (len(values) * (values**2).sum() - values.sum() ** 2) / (len(values) * (len(values) - 1))
    if expected > 1e-12:
        result["krippendorff_alpha"] = float(1 - observed / expected)
    return result


def _own_ids(settings: GradesSettings, pool: Artifact | None) -> _Find | None:
    """Finds the pool's id of an id of the user's own; None where grades come with the pool's ids."""
    if settings.own_field is None:
        return None
    assert pool is not None
    ids, wanted = ids_by_field(pool, settings.own_field)
    found = {own: sample for own, sample in zip(wanted, ids, strict=True) if own is not None}
    return found.get


def _any_id(own: str) -> str:
    """A stand-in for the id of a sample, where there is no pool yet."""
    return hashlib.blake2b(own.encode(), digest_size=16).hexdigest()


def _columns(path: str, scratch: Path, key: str | None, others: list[str]) -> tuple[dict[str, list[Any]], str]:
    """A file's columns, `id` or `key` and `others` among them, and by which of the two its rows find their samples."""
    local, optional = local_copy(path, scratch), ["grader", "weight", "why"]
    if key is not None:
        columns = read_columns(local, others or ["grade"], optional=[*{key: None, "id": None}, *optional], shown=path)
        column = "id" if key not in columns and "id" in columns else key
        if column in columns:
            return columns, column
        return read_columns(local, [key], shown=path), key  # says that it is not there
    try:
        return read_columns(local, ["id", *others], optional=optional, shown=path), "id"
    except InputError as error:
        error.action = f"{error.action}; {_BY_OWN_IDS}" if "'id'" in error.problem else error.action
        raise


def _in_files(settings: GradesSettings, scratch: Path, own: _Find | None) -> _Found:
    paths = settings.paths
    names: dict[str, int] = {}
    keys, shown, numbers, empty, unknown, strange = [np.empty(0, "S16")], list[str](), [], 0, 0, list[str]()
    graded_samples: list[str | None] = []
    chosen = _Chosen()
    for place, path in enumerate(paths):
        columns, column = _columns(path, scratch, settings.key, ["grade"])
        find = own if column == settings.key else None
        nothing = [None] * len(columns["grade"])
        optional = [columns.get(name, nothing) for name in ("grader", "weight", "why")]
        rows = zip(columns[column], columns["grade"], *optional, strict=True)
        graded = []
        for row, (named, value, grader, weighed, why) in enumerate(rows):
            where = f"{path}, row {row} (the first is 0)"
            grade, weight = _number("grade", value, named, where), _number("weight", weighed, named, where)
            if weight is not None and weight < 1:
                raise InputError(
                    f"{where}: the sample {named} has the weight {weight:g}",
                    allowed="1 or more: 1 / the probability with which it was drawn; or nothing",
                    action="leave this column as `tamis grade next` wrote it",
                )
            name = key_of(named)
            if find is not None and name is None and grade is not None:
                raise InputError(f"{where}: there is a grade, and nothing in the column '{column}'")
            sample = name if find is None or name is None else find(name)
            if find is not None and sample is None:
                unknown, empty = unknown + (grade is not None), empty + (grade is None)
                strange += [name] if name is not None and grade is not None else []
                continue
            chosen.note(sample, weight, why)
            if grade is None:
                empty += 1
                continue
            graded.append(sample)
            shown.append(str(name))
            code = names.setdefault(key_of(grader) or "", len(names))
            numbers.append((place, row, code, grade))
        keys.append(_packed(graded, path))
        graded_samples += graded
    if unknown and not graded_samples:
        raise InputError(
            f"{', '.join(paths)}: no grade is of a sample of the pool; its ids are like {some(strange)}",
            allowed=f"what the pool has kept in its field '{settings.own_field}'",
            action="correct grades.key and grades.field, or give the grades of this pool's samples",
        )
    table = np.array(numbers, np.float64).reshape(-1, 4).T
    place_of, row_of, grader_of = table[:3].astype(np.int64)
    weights, why_of = chosen.of(graded_samples)
    return _Found(
        *(list(paths), place_of, row_of, np.concatenate(keys), table[3], list(names), grader_of, weights, why_of),
        shown=shown,
        empty=empty,
        unknown=unknown,
    )


def _packed(ids: list[str | None], path: str) -> Keys:
    try:
        return pack(pa.array(ids, pa.string()), where=f"{path}: ids of the rows with a grade")
    except InputError as error:
        error.action = _BY_OWN_IDS
        raise


class _Chosen:
    """How samples were chosen, by all rows of all files: a sheet of `tamis grade next` knows it, filled in or not."""

    def __init__(self) -> None:
        self._weights: dict[str | None, float] = {}
        self._why: dict[str | None, int] = {}

    def note(self, sample: str | None, weight: float | None, why: Any) -> None:
        """What a row says of a sample. A least weight stays, and so does having been drawn at random."""
        if weight is not None:
            self._weights[sample] = min(weight, self._weights.get(sample, weight))
        told = _DRAWN if weight is not None else _WHY.get(str(why).strip().lower(), _UNTOLD)
        self._why[sample] = max(told, self._why.get(sample, _UNTOLD))

    def of(self, samples: list[str | None]) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
        """(m,) weights, NaN where there is none, and (m,) how each of the samples was chosen."""
        weights = np.array([self._weights.get(sample, np.nan) for sample in samples], np.float64)
        return weights, np.array([self._why[sample] for sample in samples], np.int8)


def _in_pool(pool: Artifact, column: str) -> _Found:
    where = f"the pool's field '{column}'"
    samples, grades = [], array("d")
    for sample, value in _fields(pool, column):
        if (grade := _number(column, value, sample, where)) is not None:
            samples.append(bytes.fromhex(sample))
            grades.append(grade)
    nothing = np.zeros(len(grades), np.int64)
    return _Found(
        [where],
        nothing,
        nothing - 1,
        np.array(samples, "S16"),
        np.array(grades),
        [""],
        nothing,
        np.full(len(grades), np.nan),
        np.full(len(grades), _UNTOLD, np.int8),
        unpack(np.array(samples, "S16")).to_pylist(),
    )


def _fields(pool: Artifact, name: str) -> Iterator[tuple[str, Any]]:
    """Each sample's id and what it has in this field, None where it lacks it.

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
            allowed="a number, with a point before its fraction, or nothing",
            action="correct the file",
        ) from None


def _checked(found: _Found, settings: GradesSettings) -> tuple[Scale, list[str]]:
    """The scale that the grades are on, and doubts about it.

    Raises:
        InputError: when there is no grade, or one is off the scale.
    """
    source = ", ".join(found.places)
    if not len(found.keys):
        raise InputError(f"{source}: no sample has a grade", action="fill in the grades, or leave out curation.grades")
    scale = settings.scale or Scale()
    _refuse_outside(found, scale)
    return scale, _question_scale(found, settings.scale, source)


def _question_scale(found: _Found, declared: Scale | None, source: str) -> list[str]:
    """A warning, where the grades use the lower half of their scale only.

    Raises:
        InputError: when no scale is declared and they seem to be on another than 1 to 10.
    """
    lowest, highest, number = float(found.values.min()), float(found.values.max()), len(found.values)
    within = f"{source}: the {number} grades go from {lowest:g} to {highest:g}"
    if declared is None and seem_on_another(lowest, highest, number):
        raise InputError(
            f"{within}: these seem to be grades on another scale than 1 to 10",
            allowed="the scale, as in scale: {lowest: 1, highest: 5}; {lowest: 1, highest: 10} if it is that one",
            action="set grades.scale",
        )
    scale = declared or Scale()
    if in_lower_half(highest, number, scale):
        return [f"{within}, the scale from {scale}: is that the scale of these grades?"]
    return []


def _refuse_outside(found: _Found, scale: Scale) -> None:
    bad = np.flatnonzero([not scale.has(value) for value in found.values.tolist()])
    if len(bad):
        first = int(bad[0])
        raise InputError(
            f"{found.where(first)}: the sample {found.sample(first)} has the grade {found.values[first]:g}; "
            f"{len(bad)} of {len(found.values)} grades are outside the scale",
            allowed=f"{scale}, or nothing where there is no grade",
            action="correct the grades, or set grades.scale to the scale that they are on",
        )


def _refuse_repeats(found: _Found, samples: NDArray[np.intp]) -> None:
    pairs = samples.astype(np.int64) * len(found.graders) + found.grader
    first, counts = np.unique(pairs, return_index=True, return_counts=True)[1:]
    if (counts > 1).any():
        one, two = np.flatnonzero(pairs == pairs[first[counts > 1].min()])[:2].tolist()
        name = found.graders[found.grader[one]]
        who = f"the grader '{name}'" if name else "one grader (the column 'grader' says nothing)"
        raise InputError(
            f"{who} graded the sample {found.sample(one)} more than once: {found.values[one]:g} in {found.where(one)}, "
            f"{found.values[two]:g} in {found.where(two)}; this is so of {int((counts > 1).sum())} samples",
            allowed="one grade of each grader for a sample",
            action="keep one row of each, or name the graders apart in the column 'grader'",
        )


def _least(weights: NDArray[np.float64], places: NDArray[np.intp]) -> NDArray[np.float64]:
    """The least weight that came with the grades of each sample; NaN where none did."""
    least = np.full(int(places.max()) + 1, np.inf)
    np.fmin.at(least, places, weights)
    return np.where(np.isfinite(least), least, np.nan)


def _classes(grades: NDArray[np.float64], *, lowest: int, highest: int) -> NDArray[np.int8]:
    return to_classes(np.round(grades, _DIGITS), lowest=lowest, highest=highest)
