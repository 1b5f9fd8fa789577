"""Scales that ratings and grades are on, and the one that Tamis keeps them on: 1 to 10."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from pydantic import Field, model_validator

from tamis.core.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LOWEST, HIGHEST = 1, 10
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
