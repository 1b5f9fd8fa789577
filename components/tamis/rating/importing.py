"""Importing ratings that exist already: rows of a file, matched to the pool's samples."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError
from tamis.core.own_ids import ids_by_field, refuse_repeats, some
from tamis.core.scales import Scale, in_lower_half, seem_on_another
from tamis.core.steps import Step
from tamis.core.tables import MISSING, POSSIBLE, RATINGS, PartsWriter
from tamis.core.tabular import integer_of, key_of, local_copy, number_of, read_columns
from tamis.rating.parsing import UnparsableError
from tamis.rating.records import Rating
from tamis.rating.settings import ImportSettings, RatingSettings
from tamis.rating.summary import Summary

log = logging.getLogger(__name__)
_BLOCK = 10_000  # rows written at a time
_BETWEEN = "\x1f"  # between a source's name and a row number in a key
# Classes are the paper's compression of ratings: all up to 4 became 0, all from 9 became 5 (section 4.1). They are kept
# as the ratings 4 to 9.
_SCALES, _SHIFT = {"1-10": Scale(), "classes": Scale(lowest=0, highest=5)}, 4
_NOTHING = "no rating in the file"
Keys = Sequence[str | None]


def import_ratings(step: Step[RatingSettings]) -> None:
    """Write one rating per sample of the pool, from the file that the settings name.

    Raises:
        InputError: when the file cannot be used: a column is missing, a key occurs twice, no row matches a sample, or
            more than `max_failure_share` of the matching rows have a score outside the scale.
        StorageError: when it is not there.
    """
    settings, pool = step.settings, step.input("pool")
    assert isinstance(settings.backend, ImportSettings)
    file = _File(settings.backend, step.scratch)
    keys, wanted = _MATCHERS[settings.backend.by](file, pool)
    refuse_repeats(keys, lambda row: f"{file.path}: row {row}", "each sample may have one row", _shown)
    places = pc.index_in(pa.array(wanted, pa.string()), value_set=pa.array(keys, pa.string()), skip_nulls=True)
    rows = pc.fill_null(places, -1).to_numpy()
    matched = int((rows >= 0).sum())
    if not matched:
        own = "; ids of your own: `keep: [id]` on the pool's source, then `by: metadata` and `key: id` here"
        raise InputError(
            f"{file.path}: no row matches a sample of the pool; its keys are like {some(keys, _shown)}, the "
            f"pool's like {some(wanted, _shown)}",
            action=f"check backend.by, backend.key and backend.source{own if settings.backend.by == 'id' else ''}",
        )
    shares = matched / len(keys), matched / len(wanted)
    if max(shares) < settings.backend.min_matched_share:
        raise InputError(
            f"{file.path}: {matched:,} of its {len(keys):,} rows match one of the pool's {len(wanted):,} samples; its "
            f"keys are like {some(keys, _shown)}, the pool's like {some(wanted, _shown)}",
            allowed=f"{settings.backend.min_matched_share:.0%} of the rows, or of the samples, at least "
            "(backend.min_matched_share)",
            action="check backend.by, backend.key and backend.source, or lower the limit",
        )
    summary, usable, bad, first_bad = Summary(), 0, 0, ""
    ids = pool.table(["id"])["id"].to_pylist()
    with PartsWriter(step.out, RATINGS) as parts:
        for start in range(0, len(ids), _BLOCK):
            block = []
            for sample, row in zip(ids[start : start + _BLOCK], rows[start : start + _BLOCK].tolist(), strict=True):
                rating = file.rating(sample, row)
                block.append(rating.row(settings.name))
                summary.add(rating)
                usable += rating.status == "ok"
                if rating.status not in ("ok", MISSING):
                    bad += 1
                    first_bad = first_bad or f"row {row}: {rating.error}"
            parts.write_rows(block)
    _refuse_another_scale(file, usable)
    if bad > settings.max_failure_share * matched:
        raise InputError(
            f"{file.path}: {bad} of {matched} ratings cannot be used; the first (rows count from 0) is in {first_bad}\n"
            f"{summary.table_of_errors()}",
            allowed=f"{'' if file.fractions else 'whole '}numbers from {file.scale}, or nothing where there is no "
            f"rating; {settings.max_failure_share:.1%} may be wrong (max_failure_share)",
            action="correct the file, name the right column, or set backend.scale: {lowest: …, highest: …}",
        )
    if not usable:
        raise InputError(
            f"{file.path}: none of the {matched:,} rows that match a sample has a rating in its column "
            f"'{settings.backend.overall}'",
            action="name the column with the ratings: backend.overall",
        )
    summary.log(settings.name)
    step.rows = parts.rows
    step.facts.update(summary.facts())
    step.facts |= {
        "scale": "classes" if settings.backend.scale == "classes" else str(file.scale),
        POSSIBLE: list(file.ratings),
        "rows_in_file": len(keys),
        "rows_in_pool": matched,
        "rows_without_key": sum(key is None for key in keys),
        "rows_not_in_pool": len(keys) - matched - sum(key is None for key in keys),
        "samples_without_row": len(ids) - matched,
    }
    for fact in ("rows_without_key", "rows_not_in_pool", "samples_without_row"):
        if step.facts[fact]:
            why = _not_kept(pool) if fact == "rows_not_in_pool" else ""
            log.warning("rater '%s': %s: %d%s", settings.name, fact.replace("_", " "), step.facts[fact], why)


def _not_kept(pool: Artifact) -> str:
    """What the pool did not keep of its sources: a rating of such a row finds no sample."""
    names = {"duplicates": "duplicates", "rejected": "rejected", "left_out": "left out by `where`"}
    names["not_drawn"] = "beyond a limit"
    counts = [(int(pool.manifest.facts.get(name, 0)), said) for name, said in names.items()]
    kept_out = ", ".join(f"{count:,} {said}" for count, said in counts if count)
    return f"; ratings of rows that the pool dropped count here: {kept_out}" if kept_out else ""


def _refuse_another_scale(file: _File, usable: int) -> None:
    """Ask, where no scale is set, if scores seem to be on another than 1 to 10; warn where much of one is not used."""
    if not usable:
        return
    column, declared = file.settings.overall, file.settings.scale
    within = f"{file.path}: the column '{column}' goes from {file.lowest:g} to {file.highest:g}"
    if declared is None and seem_on_another(file.lowest, file.highest, usable):
        raise InputError(
            f"{within}: these seem to be scores on another scale than 1 to 10",
            allowed='the scale, as in scale: {lowest: 1, highest: 5}; "1-10" if it is that one; classes for the '
            "paper's 0 to 5",
            action="set backend.scale",
        )
    if in_lower_half(file.highest, usable, file.scale):
        log.warning("%s, the scale from %s: is that the scale of these scores?", within, file.scale)


def count_ratings(settings: ImportSettings) -> int:
    """Rows of a local file of ratings that has every column which the settings name.

    Raises:
        InputError: when it has not, or cannot be read.
    """
    return _File(settings, Path()).rows


class _File:
    """The file's columns, row by row."""

    def __init__(self, settings: ImportSettings, scratch: Path) -> None:
        self.settings, self.path = settings, settings.path
        self.scale = settings.scale if isinstance(settings.scale, Scale) else _SCALES[settings.scale or "1-10"]
        self.fractions = isinstance(settings.scale, Scale)
        self._scores = {"overall": settings.overall}
        for name in ("rarity", "complexity", "informativeness"):
            if (column := getattr(settings, name)) is not None:
                self._scores[name] = column
        others = (settings.expected, _key_column(settings), settings.source_column)
        wanted = [*self._scores.values(), *(column for column in others if column is not None)]
        local = local_copy(self.path, scratch)
        self._columns = read_columns(local, list(dict.fromkeys(wanted)), shown=self.path)
        self.rows = len(self._columns[settings.overall])
        self.lowest, self.highest = math.inf, -math.inf  # of the overall scores seen, in or out of the scale
        self.whole = True  # whether those in the scale are whole numbers from its lowest

    @property
    def ratings(self) -> tuple[int, ...]:
        """The ratings of 1..10 that its scores can come to. Whole numbers alone are taken for a scale of such."""
        if self.settings.scale == "classes":
            return tuple(range(_SHIFT, _SHIFT + int(self.scale.highest) + 1))
        return (self.scale.in_steps_of(1.0) if self.whole else self.scale).ratings()

    def values(self, column: str) -> list[Any]:
        """One of the columns that the settings name."""
        return self._columns[column]

    def rating(self, sample: str, row: int) -> Rating:
        """The rating of a sample that has the row number `row`; -1 means that it has none."""
        if row < 0:
            return Rating(id=sample, status=MISSING, error=_NOTHING, attempts=0)
        try:
            scores = {name: self._score(column, row) for name, column in self._scores.items()}
            expected = None if self.settings.expected is None else self._expected(self.settings.expected, row)
        except UnparsableError as error:
            return Rating(id=sample, status="unparsable", error=error.problem, attempts=0)
        if scores["overall"] is None:
            return Rating(id=sample, status=MISSING, error=_NOTHING, attempts=0)
        return Rating(id=sample, status="ok", expected=expected, attempts=0, **scores)

    def _score(self, column: str, row: int) -> int | None:
        given = self._columns[column][row]
        value = number_of(column, given) if self.fractions else integer_of(column, given)
        if value is None:
            return None
        value = self.scale.as_meant(value)
        if column == self.settings.overall:
            self.lowest, self.highest = min(self.lowest, value), max(self.highest, value)
        self._check_range(column, value)
        self._check_step(column, value)
        if column == self.settings.overall and not float(value - self.scale.lowest).is_integer():
            self.whole = False
        if self.settings.scale == "classes":
            return int(value) + _SHIFT
        return self.scale.rating(value)

    def _expected(self, column: str, row: int) -> float | None:
        value = number_of(column, self._columns[column][row])
        if value is None:
            return None
        self._check_range(column, value)
        return self.scale.stretched(value)

    def _check_range(self, column: str, value: float) -> None:
        if not self.scale.lowest <= value <= self.scale.highest:
            raise UnparsableError(f"out of range: {column} is {value:g}, allowed {self.scale}")

    def _check_step(self, column: str, value: float) -> None:
        if not self.scale.has(value):
            raise UnparsableError(f"not on the scale: {column} is {value:g}, allowed {self.scale}")


def _key_column(settings: ImportSettings) -> str | None:
    return settings.key or ("id" if settings.by == "id" else None)


def _by_id(file: _File, pool: Artifact) -> tuple[Keys, Keys]:
    column = _key_column(file.settings)
    assert column is not None
    return [key_of(value) for value in file.values(column)], pool.table(["id"])["id"].to_pylist()


def _by_row(file: _File, pool: Artifact) -> tuple[Keys, Keys]:
    settings = file.settings
    table = pool.table(["source", "origin"])
    sources = sorted(pc.unique(table["source"]).to_pylist())
    if settings.source is not None and settings.source not in sources:
        raise InputError(f"the pool has no source '{settings.source}'", allowed=", ".join(sources))
    if settings.source is None and settings.source_column is None and len(sources) > 1:
        raise InputError(
            f"the pool has {len(sources)} sources and the settings do not say which one {file.path} is about",
            allowed=f"backend.source: one of {', '.join(sources)}; or backend.source_column",
        )
    if settings.source_column is not None:
        named: Keys = [key_of(value) for value in file.values(settings.source_column)]
    else:
        named = [settings.source or sources[0]] * file.rows
    if settings.key is None:
        _refuse_too_few(file, Counter(named), table)
    numbers = _counted(named) if settings.key is None else _row_numbers(file, settings.key)
    pairs = zip(named, numbers, strict=True)
    keys = [None if source is None or row is None else f"{source}{_BETWEEN}{row}" for source, row in pairs]
    wanted = zip(table["source"].to_pylist(), table["origin"].to_pylist(), strict=True)
    return keys, [f"{source}{_BETWEEN}{row}" for source, row in wanted]


def _refuse_too_few(file: _File, rows: Mapping[str | None, int], pool: pa.Table) -> None:
    """A file that has a row for each row of a source has as many: a shorter one was cut, or is another's."""
    last = pool.group_by("source").aggregate([("origin", "max")])
    for source, origin in zip(last["source"].to_pylist(), last["origin_max"].to_pylist(), strict=True):
        if source in rows and origin >= rows[source]:
            raise InputError(
                f"{file.path} has {rows[source]:,} rows for the source '{source}', of which the pool has the row "
                f"{origin:,} (counted from 0)",
                allowed="a row for each row of the source, in its order",
                action="give the whole file, or backend.key: a column with the rows' numbers",
            )


def _counted(sources: Keys) -> Iterator[int]:
    """The row number of each row within its source."""
    seen: dict[str | None, int] = {}
    for source in sources:
        seen[source] = seen.get(source, -1) + 1
        yield seen[source]


def _row_numbers(file: _File, column: str) -> list[int | None]:
    numbers = []
    for row, value in enumerate(file.values(column)):
        try:
            numbers.append(integer_of(column, value))
        except UnparsableError as error:
            raise InputError(
                f"{file.path}: row {row}: {error.problem}", allowed="row numbers in the pool's source, from 0"
            ) from None
    return numbers


def _by_metadata(file: _File, pool: Artifact) -> tuple[Keys, Keys]:
    settings = file.settings
    assert settings.key is not None
    wanted = ids_by_field(pool, settings.field or settings.key)[1]
    return [key_of(value) for value in file.values(settings.key)], wanted


_MATCHERS: dict[str, Callable[[_File, Artifact], tuple[Keys, Keys]]] = {
    "id": _by_id,
    "row": _by_row,
    "metadata": _by_metadata,
}


def _shown(key: str) -> str:
    return key.replace(_BETWEEN, ", row ")
