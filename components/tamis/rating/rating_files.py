"""A file of ratings that exist already: its columns, the scale of its scores, and whether they can be used."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tamis.core.errors import InputError, UnparsableError
from tamis.core.own_ids import refuse_repeats
from tamis.core.scales import Scale, in_lower_half, seem_on_another
from tamis.core.tables import MISSING
from tamis.core.tabular import integer_of, key_of, local_copy, number_of, read_columns
from tamis.rating.fitting import digests_of
from tamis.rating.records import Rating
from tamis.rating.settings import ImportedRater, ImportSettings

# Classes are the paper's compression of ratings: all up to 4 became 0, all from 9 became 5 (section 4.1). They are kept
# as the ratings 4 to 9.
_SCALES, _SHIFT = {"1-10": Scale(), "classes": Scale(lowest=0, highest=5)}, 4
_NOTHING = "no rating in the file"
_NO_SAMPLE = "0" * 32


class RatingsFile:
    """A file of ratings, row by row."""

    def __init__(self, settings: ImportSettings, scratch: Path, texts: Iterable[str] = ()) -> None:
        """Read the columns that the settings name and, of those in `texts` that the file has, digests of each text."""
        self.settings, self.path = settings, settings.path
        self.scale = settings.scale if isinstance(settings.scale, Scale) else _SCALES[settings.scale or "1-10"]
        self.fractions = isinstance(settings.scale, Scale)
        self._scores = {"overall": settings.overall}
        for name in ("rarity", "complexity", "informativeness"):
            if (column := getattr(settings, name)) is not None:
                self._scores[name] = column
        others = (settings.expected, key_column(settings), settings.source_column)
        wanted = [*self._scores.values(), *(column for column in others if column is not None)]
        local = local_copy(self.path, scratch)
        self._texts = [column for column in dict.fromkeys(texts) if column not in wanted]
        self._columns = read_columns(
            local,
            list(dict.fromkeys(wanted)),
            shown=self.path,
            optional=self._texts,
            kept_as=dict.fromkeys(self._texts, digests_of),
        )
        self._texts = [column for column in self._texts if column in self._columns]
        self.rows = len(self._columns[settings.overall])
        self.lowest, self.highest, self._on_scale = self._overall_of_all()
        self.whole = True  # whether those in the scale are whole numbers from its lowest
        self.usable = self.bad = 0  # ratings that were read so far
        self._first_bad = ""

    @property
    def ratings(self) -> tuple[int, ...]:
        """The ratings of 1..10 that its scores can come to. Whole numbers alone are taken for a scale of such."""
        if self.settings.scale == "classes":
            return tuple(range(_SHIFT, _SHIFT + int(self.scale.highest) + 1))
        return (self.scale.in_steps_of(1.0) if self.whole else self.scale).ratings()

    def _overall_of_all(self) -> tuple[float, float, int]:
        """The lowest and highest overall score of all rows, in or out of the scale, and how many are on it."""
        lowest, highest, on_scale = math.inf, -math.inf, 0
        for given in self._columns[self.settings.overall]:
            with suppress(UnparsableError):
                value = number_of(self.settings.overall, given)
                if value is not None and (self.fractions or value.is_integer()):
                    value = self.scale.as_meant(value)
                    lowest, highest = min(lowest, value), max(highest, value)
                    on_scale += self.scale.lowest <= value <= self.scale.highest and self.scale.has(value)
        return lowest, highest, on_scale

    def values(self, column: str) -> list[Any]:
        """One of the columns that the settings name."""
        return self._columns[column]

    def has_texts(self, column: str) -> bool:
        """Whether the texts of a column were read."""
        return column in self._texts

    def texts(self, column: str, row: int) -> bytes:
        """The digests of a column's texts in a row (`fitting.digests_of`); none of other columns."""
        return self._columns[column][row] if column in self._texts else b""

    def rating(self, sample: str, row: int) -> Rating:
        """The rating of a sample that has the row number `row`; -1 means that it has none."""
        rating = self._read(sample, row)
        self.usable += rating.status == "ok"
        if rating.status not in ("ok", MISSING):
            self.bad += 1
            self._first_bad = self._first_bad or f"row {row}: {rating.error}"
        return rating

    def _read(self, sample: str, row: int) -> Rating:
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

    def refuse_unusable(self, rows: int, most: float, errors: str = "") -> None:
        """Make sure that the ratings that were read can be used.

        Args:
            rows: how many of the file's rows were read.
            most: the share of them that may have a score outside the scale.
            errors: a table of the errors, for the message.

        Raises:
            InputError: when the scores seem to be on another scale, more than `most` are wrong, or there is none.
        """
        if self.usable:
            self._refuse_another_scale()
        if self.bad > most * rows:
            raise InputError(
                f"{self.path}: {self.bad} of {rows} ratings cannot be used; the first (rows count from 0) is in "
                f"{self._first_bad}{errors and chr(10)}{errors}",
                allowed=f"{'' if self.fractions else 'whole '}numbers from {self.scale}, or nothing where there is no "
                f"rating; {most:.1%} may be wrong (max_failure_share)",
                action="correct the file, name the right column, or set backend.scale: {lowest: …, highest: …}",
            )
        if not self.usable:
            raise InputError(
                f"{self.path}: none of the {rows:,} rows that were read has a rating in the column "
                f"'{self.settings.overall}'",
                action="name the column with the ratings: backend.overall",
            )

    @property
    def seen(self) -> str:
        """Which scores the column with the overall rating has, in words."""
        return f"the column '{self.settings.overall}' goes from {self.lowest:g} to {self.highest:g}"

    @property
    def lower_half_only(self) -> bool:
        """Whether many scores are all in the lower half of the scale, which another scale may be the reason for."""
        return bool(self.usable) and in_lower_half(self.highest, self._on_scale, self.scale)

    def _refuse_another_scale(self) -> None:
        if self.settings.scale is None and seem_on_another(self.lowest, self.highest, self._on_scale):
            raise InputError(
                f"{self.path}: {self.seen}: these seem to be scores on another scale than 1 to 10",
                allowed='the scale, as in scale: {lowest: 1, highest: 5}; "1-10" if it is that one; classes for the '
                "paper's 0 to 5",
                action="set backend.scale",
            )

    def _score(self, column: str, row: int) -> int | None:
        given = self._columns[column][row]
        value = number_of(column, given) if self.fractions else integer_of(column, given)
        if value is None:
            return None
        value = self.scale.as_meant(value)
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


def key_column(settings: ImportSettings) -> str | None:
    """The column that says which sample a row rates; None where their order does."""
    return settings.key or ("id" if settings.by == "id" else None)


def checked_file(settings: ImportedRater, *, all_in_pool: bool = True) -> RatingsFile:
    """A local file of ratings, all of which were read and can be used, whatever the pool.

    Where not all of its rows need be in the pool, any share of them may be wrong.

    Raises:
        InputError: when it cannot be read, lacks a column that the settings name, has a key twice, or its ratings
            cannot be used (`RatingsFile.refuse_unusable`).
    """
    file = RatingsFile(settings.backend, Path())
    if settings.backend.by != "row" and (column := key_column(settings.backend)) is not None:
        refuse_repeated_rows(file, [key_of(value) for value in file.values(column)])
    for row in range(file.rows):
        file.rating(_NO_SAMPLE, row)
    file.refuse_unusable(file.rows, settings.max_failure_share if all_in_pool else 1.0)
    return file


def refuse_repeated_rows(file: RatingsFile, keys: Sequence[str | None], shown: Callable[[str], str] = str) -> None:
    """Raises InputError when two of the file's rows have the same of `keys`; `shown` makes one readable."""
    refuse_repeats(keys, lambda row: f"{file.path}: row {row}", "each sample may have one row", shown)
