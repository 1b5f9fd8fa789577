"""Scales that ratings and grades are on, and the one that Tamis keeps them on: 1 to 10."""

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
_MANY = 30  # scores, of which some should be high
_SMALL_SCALES = ((5, 5), (7, _MANY))  # a top that other scales have, and how many scores within it make one ask
_MOST_NAMED = 11  # scores of a scale that are named one by one
_DIGITS = 9  # of a stretched score that count
_NOISE = 1e-4  # of a step: further off is no noise
_CLASSES = 5  # the top of the paper's scale from 0
Numbers = TypeVar("Numbers", float, "NDArray[np.float64]")


class Scale(Settings):
    """The scale that scores are on. It is stretched to 1..10 by a straight line."""

    lowest: float = Field(float(LOWEST), description="the worst score that can be given")
    highest: float = Field(float(HIGHEST), description="the best score that can be given")
    step: float | None = Field(
        None,
        gt=0,
        description="distance between two scores that can be given, 0.1 say; not given: nothing is said of it",
    )

    @model_validator(mode="after")
    def _check(self) -> Scale:
        if self.highest <= self.lowest:
            raise ValueError(f"highest ({self.highest:g}) must be above lowest ({self.lowest:g})")
        if self.step is not None and (_exact(self.highest) - _exact(self.lowest)) % _exact(self.step):
            raise ValueError(f"steps of {self.step:g} from {self.lowest:g} do not lead to {self.highest:g}")
        return self

    @property
    def decimals(self) -> int:
        """Digits behind the point that its scores are written with, as far as ends and step show."""
        numbers = [_exact(number) for number in (self.lowest, self.highest, self.step) if number is not None]
        return max(max(0, -int(number.normalize().as_tuple().exponent)) for number in numbers)

    def as_meant(self, value: float) -> float:
        """`value`, or the score of the scale that it is but for the noise of floating point: 0.2 in 32 bits is 0.2."""
        if self.step is None:
            return value
        steps = (value - self.lowest) / self.step
        if abs(steps - round(steps)) > _NOISE:
            return value
        return float(_exact(self.lowest) + round(steps) * _exact(self.step))

    def has(self, value: float) -> bool:
        """Whether a score can be given on it: between its ends, and a whole number of steps from them."""
        value = self.as_meant(value)
        if not self.lowest <= value <= self.highest:
            return False
        return self.step is None or not (_exact(value) - _exact(self.lowest)) % _exact(self.step)

    def ratings(self) -> tuple[int, ...]:
        """The ratings of 1..10 that its scores come to; all of them, where nothing is said of its steps."""
        if self.step is None:
            return tuple(range(LOWEST, HIGHEST + 1))
        steps = int((_exact(self.highest) - _exact(self.lowest)) / _exact(self.step))
        scores = (float(_exact(self.lowest) + number * _exact(self.step)) for number in range(steps + 1))
        return tuple(sorted({self.rating(score) for score in scores}))

    def in_steps_of(self, step: float) -> Scale:
        """The same scale with this step, where none is set and it leads from end to end."""
        if self.step is not None or (_exact(self.highest) - _exact(self.lowest)) % _exact(step):
            return self
        return Scale(lowest=self.lowest, highest=self.highest, step=step)

    def rating(self, value: float) -> int:
        """The rating of 1..10 that a score comes to: stretched, and rounded half up."""
        # What is half but for the last digits of floating point is half.
        return math.floor(round(self.stretched(float(value)), _DIGITS) + 0.5)

    def stretched(self, values: Numbers) -> Numbers:
        """Scores on this scale, brought to 1..10."""
        return LOWEST + (values - self.lowest) * (HIGHEST - LOWEST) / (self.highest - self.lowest)

    def __str__(self) -> str:
        return f"{self.lowest:g} to {self.highest:g}" + (f" by {self.step:g}" if self.step is not None else "")


def _exact(number: float) -> Decimal:
    """The number as it is written: 0.1 is a tenth."""
    return Decimal(repr(float(number)))


def scale_of(text: str) -> Scale | None:
    """The scale whose text this is; None where it is none."""
    ends, _, step = text.partition(" by ")
    lowest, _, highest = ends.partition(" to ")
    try:
        return Scale(lowest=float(lowest), highest=float(highest), step=float(step) if step else None)
    except ValueError:
        return None


def classes_in_words(scale: Scale, possible: Sequence[int] | None, lowest: int, highest: int) -> str:
    """Which scores of a scale come to which score class, as in "1 and 2 are class 0, 5 is class 5".

    All scores are named where they are few, else the ends of the scale. Classes that none comes to are named last.

    Args:
        scale: on which the scores were given.
        possible: the ratings of 1..10 that they can come to; None where that is not known.
        lowest: ratings up to this are class 0.
        highest: ratings from this on are the top class.
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
    """Whether scores seem to be on another scale than 1 to 10, which nobody declared.

    Args:
        lowest: of the scores.
        highest: of the scores.
        number: of scores.
    """
    if lowest < 0 or not number:
        return False
    classes = lowest == 0 and highest <= _CLASSES
    return classes or any(highest <= top and number >= enough for top, enough in _SMALL_SCALES)


def in_lower_half(highest: float, number: int, scale: Scale) -> bool:
    """Whether `number` scores, none above `highest`, are so many that one in the upper half of `scale` is missed."""
    return number >= _MANY and highest < (scale.lowest + scale.highest) / 2
