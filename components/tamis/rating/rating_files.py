"""A file with existing ratings: its columns, the scale of its scores, and whether they can be used."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tamis.core.errors import InputError, UnparsableError
from tamis.core.own_ids import refuse_repeats
from tamis.core.scales import Scale, in_lower_half, seem_on_another
from tamis.core.tables import MISSING, RATINGS, criteria_in
from tamis.core.tabular import integer_of, key_of, local_copy, number_of, read_columns
from tamis.rating.fitting import digests_of
from tamis.rating.records import Rating
from tamis.rating.settings import ImportedRater, ImportSettings

# The paper compresses ratings to classes: 4 and below is 0, 9 and above is 5 (section 4.1). They are stored as the
# ratings 4 to 9.
_SCALES, _SHIFT = {"1-10": Scale(), "classes": Scale(lowest=0, highest=5)}, 4
_NOTHING = "no rating in the file"
_NO_SAMPLE = "0" * 32


class ImportedRating(Rating):
    """A rating from a file, with the criteria that the settings can name."""

    rarity: int | None = None
    complexity: int | None = None
    informativeness: int | None = None


class RatingsFile:
    """A file of ratings, row by row."""

    def __init__(self, settings: ImportSettings, scratch: Path, texts: Iterable[str] = ()) -> None:
        """Read the columns in the settings, and digests of the texts in those of the columns `texts` that exist."""
        self.settings, self.path = settings, settings.path
        self.scale = settings.scale if isinstance(settings.scale, Scale) else _SCALES[settings.scale or "1-10"]
        self.fractions = isinstance(settings.scale, Scale)
        self._scores = {"overall": settings.overall}
        for name in criteria_in(RATINGS):
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
        self.whole = True  # whether all scores on the scale are whole steps above its lowest
        self.usable = self.bad = 0  # of the ratings that were read so far
        self._first_bad = ""

    @property
    def ratings(self) -> tuple[int, ...]:
        """The ratings in 1..10 that scores can map to. If all scores are whole, the scale has whole numbers only."""
        if self.settings.scale == "classes":
            return tuple(range(_SHIFT, _SHIFT + int(self.scale.highest) + 1))
        return (self.scale.in_steps_of(1.0) if self.whole else self.scale).ratings()

    def _overall_of_all(self) -> tuple[float, float, int]:
        """The lowest and highest overall score of all rows, on the scale or not, and how many are on it."""
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
        """The values of a column that the settings name."""
        return self._columns[column]

    def has_texts(self, column: str) -> bool:
        """Whether the texts of a column were read."""
        return column in self._texts

    def texts(self, column: str, row: int) -> bytes:
        """The digests of the texts in one cell (`fitting.digests_of`); empty for columns without texts."""
        return self._columns[column][row] if column in self._texts else b""

    def rating(self, sample: str, row: int) -> Rating:
        """The rating of a sample in the row `row`; -1 means that the sample has no row."""
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
        return ImportedRating(id=sample, status="ok", expected=expected, attempts=0, **scores)

    def refuse_unusable(self, rows: int, most: float, errors: str = "") -> None:
        """Check that the ratings that were read can be used.

        Args:
            rows: number of rows that were read.
            most: the largest share of them that may have a score outside the scale.
            errors: a table of the errors, for the message.

        Raises:
            InputError: when the scores seem to be on another scale, more than `most` are wrong, or there are none.
        """
        if self.usable:
            self._refuse_another_scale()
        if self.bad > most * rows:
            raise InputError(
                f"{self.path}: {self.bad} of {rows} ratings cannot be used; the first (rows start at 0) is in "
                f"{self._first_bad}{errors and chr(10)}{errors}",
                allowed=f"{'' if self.fractions else 'whole '}numbers from {self.scale}, or an empty cell if there "
                f"is no rating; {most:.1%} of the rows may be wrong (max_failure_share)",
                action="correct the file, name another column, or set backend.scale: {lowest: …, highest: …}",
            )
        if not self.usable:
            raise InputError(
                f"{self.path}: none of the {rows:,} rows has a rating in the column '{self.settings.overall}'",
                action="set backend.overall to the column with the ratings",
            )

    @property
    def seen(self) -> str:
        """The range of the overall ratings, in words."""
        return f"the column '{self.settings.overall}' has values from {self.lowest:g} to {self.highest:g}"

    @property
    def lower_half_only(self) -> bool:
        """Whether there are many scores, all in the lower half of the scale: the scale may be wrong."""
        return bool(self.usable) and in_lower_half(self.highest, self._on_scale, self.scale)

    def _refuse_another_scale(self) -> None:
        if self.settings.scale is None and seem_on_another(self.lowest, self.highest, self._on_scale):
            raise InputError(
                f"{self.path}: {self.seen}, which does not look like the scale 1 to 10",
                allowed='{lowest: 1, highest: 5} or another range; "1-10"; or classes, the 0 to 5 of the '
                "paper's files",
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
    """The column that identifies the sample of a row; None if the order of the rows does."""
    return settings.key or ("id" if settings.by == "id" else None)


def checked_file(settings: ImportedRater, *, all_in_pool: bool = True) -> RatingsFile:
    """Read a whole local file of ratings and check it, without a pool.

    If some rows may not be in the pool (`all_in_pool` is false), any share of them may be wrong.

    Raises:
        InputError: when it cannot be read, lacks a column, has a key twice, or its ratings cannot be used
            (`RatingsFile.refuse_unusable`).
    """
    file = RatingsFile(settings.backend, Path())
    if settings.backend.by != "row" and (column := key_column(settings.backend)) is not None:
        refuse_repeated_rows(file, [key_of(value) for value in file.values(column)])
    for row in range(file.rows):
        file.rating(_NO_SAMPLE, row)
    file.refuse_unusable(file.rows, settings.max_failure_share if all_in_pool else 1.0)
    return file


def refuse_repeated_rows(file: RatingsFile, keys: Sequence[str | None], shown: Callable[[str], str] = str) -> None:
    """Raise an InputError when two rows of the file have the same key; `shown` makes a key readable."""
    refuse_repeats(keys, lambda row: f"{file.path}: row {row}", "each sample may have only one row", shown)
