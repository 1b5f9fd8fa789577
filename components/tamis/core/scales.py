"""Scales that ratings and grades are on, and the one that Tamis keeps them on: 1 to 10."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from pydantic import Field, model_validator

from tamis.core.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LOWEST, HIGHEST = 1, 10
_MANY = 30  # scores, of which some should be high
_SMALL_SCALES = ((5, 5), (7, _MANY))  # a top that other scales have, and how many scores within it make one ask
_CLASSES = 5  # the top of the paper's scale from 0
Numbers = TypeVar("Numbers", float, "NDArray[np.float64]")


class Scale(Settings):
    """The scale that scores are on. It is stretched to 1..10 by a straight line."""

    lowest: float = Field(float(LOWEST), allow_inf_nan=False, description="the worst score that can be given")
    highest: float = Field(float(HIGHEST), allow_inf_nan=False, description="the best score that can be given")

    @model_validator(mode="after")
    def _check(self) -> Scale:
        if self.highest <= self.lowest:
            raise ValueError(f"highest ({self.highest:g}) must be above lowest ({self.lowest:g})")
        return self

    def stretched(self, values: Numbers) -> Numbers:
        """Scores on this scale, brought to 1..10."""
        return LOWEST + (values - self.lowest) * (HIGHEST - LOWEST) / (self.highest - self.lowest)

    def __str__(self) -> str:
        return f"{self.lowest:g} to {self.highest:g}"


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
