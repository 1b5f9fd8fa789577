"""Scales of ratings and grades, and their mapping to 1..10, the scale that Tamis uses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, TypeVar

from pydantic import Field, model_validator

from tamis.core.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LOWEST, HIGHEST = 1, 10
_MANY = 30  # scores among which some high ones are expected
_SMALL_SCALES = ((5, 5), (7, _MANY))  # highest scores of common scales, and how many scores make them suspicious
_MOST_NAMED = 11  # largest number of scores that a text lists one by one
_DIGITS = 9  # significant digits of a mapped score
_NOISE = 1e-4  # share of a step; a larger difference is not floating-point noise
_CLASSES = 5  # the highest class on the paper's scale from 0
Numbers = TypeVar("Numbers", float, "NDArray[np.float64]")


class Scale(Settings):
    """The scale of scores. It is mapped linearly to 1..10."""

    lowest: float = Field(float(LOWEST), description="the worst possible score")
    highest: float = Field(float(HIGHEST), description="the best possible score")
    step: float | None = Field(
        None,
        gt=0,
        description="difference between adjacent possible scores, such as 0.1; null: unknown",
    )

    @model_validator(mode="after")
    def _check(self) -> Scale:
        if self.highest <= self.lowest:
            raise ValueError(f"highest ({self.highest:g}) must be above lowest ({self.lowest:g})")
        if self.step is not None and (_exact(self.highest) - _exact(self.lowest)) % _exact(self.step):
            raise ValueError(f"steps of {self.step:g} from {self.lowest:g} do not reach {self.highest:g}")
        return self

    @property
    def decimals(self) -> int:
        """Number of decimals of its scores, judging by the ends and the step."""
        numbers = [_exact(number) for number in (self.lowest, self.highest, self.step) if number is not None]
        return max(max(0, -int(number.normalize().as_tuple().exponent)) for number in numbers)

    def as_meant(self, value: float) -> float:
        """`value` without floating-point noise: the nearest score of the scale if it is close enough."""
        if self.step is None:
            return value
        steps = (value - self.lowest) / self.step
        if abs(steps - round(steps)) > _NOISE:
            return value
        return float(_exact(self.lowest) + round(steps) * _exact(self.step))

    def has(self, value: float) -> bool:
        """Whether the scale has this score: between its ends, and a whole number of steps from them."""
        value = self.as_meant(value)
        if not self.lowest <= value <= self.highest:
            return False
        return self.step is None or not (_exact(value) - _exact(self.lowest)) % _exact(self.step)

    def ratings(self) -> tuple[int, ...]:
        """The ratings 1..10 to which its scores are mapped; all of them if the step is unknown."""
        if self.step is None:
            return tuple(range(LOWEST, HIGHEST + 1))
        steps = int((_exact(self.highest) - _exact(self.lowest)) / _exact(self.step))
        scores = (float(_exact(self.lowest) + number * _exact(self.step)) for number in range(steps + 1))
        return tuple(sorted({self.rating(score) for score in scores}))

    def in_steps_of(self, step: float) -> Scale:
        """The same scale with this step, if it has no step yet and the step fits between its ends."""
        if self.step is not None or (_exact(self.highest) - _exact(self.lowest)) % _exact(step):
            return self
        return Scale(lowest=self.lowest, highest=self.highest, step=step)

    def rating(self, value: float) -> int:
        """The rating 1..10 to which a score is mapped, rounded half up."""
        # The inner rounding makes values such as 4.499999999999 count as a half.
        return math.floor(round(self.stretched(float(value)), _DIGITS) + 0.5)

    def stretched(self, values: Numbers) -> Numbers:
        """Scores on this scale, mapped to 1..10 without rounding."""
        return LOWEST + (values - self.lowest) * (HIGHEST - LOWEST) / (self.highest - self.lowest)

    def __str__(self) -> str:
        return f"{self.lowest:g} to {self.highest:g}" + (f" by {self.step:g}" if self.step is not None else "")


def _exact(number: float) -> Decimal:
    """The number as it is written: 0.1 is exactly a tenth."""
    return Decimal(repr(float(number)))


def scale_of(text: str) -> Scale | None:
    """The scale with this text, as `str` gives it; None if the text is not that of a scale."""
    ends, _, step = text.partition(" by ")
    lowest, _, highest = ends.partition(" to ")
    try:
        return Scale(lowest=float(lowest), highest=float(highest), step=float(step) if step else None)
    except ValueError:
        return None


def classes_in_words(scale: Scale, possible: Sequence[int] | None, lowest: int, highest: int) -> str:
    """Which scores of a scale are in which score class, as in "1 and 2 are class 0, 5 is class 5".

    The text lists all scores if there are few, otherwise only the ends of the scale. Classes without a score are named
    last.

    Args:
        scale: the scale of the scores.
        possible: the ratings 1..10 to which they can be mapped; None if unknown.
        lowest: ratings up to this are class 0.
        highest: ratings from this on are in the highest class.
    """

    def class_of(rating: int) -> int:
        return min(max(rating, lowest), highest) - lowest

    stepped = scale
    if possible is not None and scale.in_steps_of(1.0).ratings() == tuple(possible):
        stepped = scale.in_steps_of(1.0)
    scores = [scale.lowest, scale.highest]
    if stepped.step is not None:
        between = round((scale.highest - scale.lowest) / stepped.step)
        if between < _MOST_NAMED:
            scores = [float(_exact(scale.lowest) + number * _exact(stepped.step)) for number in range(between + 1)]
    named: dict[int, list[str]] = {}
    for score in scores:
        named.setdefault(class_of(scale.rating(score)), []).append(f"{score:g}")
    said = ", ".join(f"{_and(those)} {'are' if len(those) > 1 else 'is'} class {one}" for one, those in named.items())
    if possible is None:
        return said
    found = {class_of(rating) for rating in possible}
    never = [str(one) for one in range(highest - lowest + 1) if one not in found]
    return f"{said}; {'classes' if len(never) > 1 else 'class'} {_and(never)} cannot occur" if never else said


def _and(words: Sequence[str]) -> str:
    *head, last = words
    return f"{', '.join(head)} and {last}" if head else last


def seem_on_another(lowest: float, highest: float, number: int) -> bool:
    """Whether scores seem to be on a scale other than 1 to 10, if no scale is declared.

    Args:
        lowest: the lowest score.
        highest: the highest score.
        number: number of scores.
    """
    if lowest < 0 or not number:
        return False
    classes = lowest == 0 and highest <= _CLASSES
    return classes or any(highest <= top and number >= enough for top, enough in _SMALL_SCALES)


def in_lower_half(highest: float, number: int, scale: Scale) -> bool:
    """Whether all of `number` scores are in the lower half of `scale` although there are many; `highest` is the top."""
    return number >= _MANY and highest < (scale.lowest + scale.highest) / 2
