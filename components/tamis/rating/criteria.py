"""The criteria of a prompt: the form of the answer, the columns of the scores, and the overall rating."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod
from typing import Any

import pyarrow as pa

from tamis.core.scales import HIGHEST, LOWEST, Scale
from tamis.llm.faults import storable
from tamis.llm.forms import Form
from tamis.llm.numbers import FreeText, Numbers

ONE_TO_TEN = Scale()
_MOST_COMBINED = 20_000  # combinations of scores whose means are computed one by one


@dataclass(frozen=True)
class Criterion:
    """One score in an answer.

    Attributes:
        key: its key in the answer.
        scale: the scale of the answer.
        weight: its share of the overall rating; 0 if it is no part of it.
        column: the column that holds it; None if it is held as the overall rating only.
    """

    key: str
    scale: Scale
    weight: float
    column: str | None


@dataclass(frozen=True)
class Read:
    """The content of an answer.

    Attributes:
        scores: the values of the columns.
        overall: the overall rating, 1..10.
        rationale: the text before the scores; None if there is none.
        leniencies: names of lenient readings.
    """

    scores: dict[str, float]
    overall: int
    rationale: str | None
    leniencies: tuple[str, ...]


@dataclass(frozen=True)
class Criteria:
    """The scores of a prompt.

    Attributes:
        criteria: the scores, in the order of the answer.
        rationale: the text that comes before them.
        mapped: whether the columns hold scores mapped to 1..10 and rounded; otherwise, scores as they were given.
    """

    criteria: tuple[Criterion, ...]
    rationale: FreeText | None = None
    mapped: bool = False

    @cached_property
    def form(self) -> Form:
        """The form of an answer."""
        keys = tuple(one.key for one in self.criteria)
        told = tuple(place for place, one in enumerate(self.criteria) if one.weight)
        return Form(keys, tuple(numbers_of(one.scale) for one in self.criteria), told, self.rationale)

    @property
    def fields(self) -> list[pa.Field]:
        """The columns of the scores."""
        return [
            pa.field(one.column, pa.int8() if self._whole(one) else pa.float64())
            for one in self.criteria
            if one.column is not None
        ]

    def _whole(self, one: Criterion) -> bool:
        return self.mapped or not numbers_of(one.scale).decimals

    @property
    def scale(self) -> Scale:
        """The scale of the overall rating as the rater gave it; 1 to 10 for a mean of different scales."""
        scales = {str(one.scale): one.scale for one in self._scored}
        return next(iter(scales.values())) if len(scales) == 1 else ONE_TO_TEN

    @property
    def possible(self) -> list[int]:
        """The ratings 1..10 that the overall rating can have."""
        if len(self._scored) == 1:
            return list(self._scored[0].scale.in_steps_of(1.0).ratings())
        numbers = [numbers_of(one.scale) for one in self._scored]
        if prod(len(number.values) for number in numbers) > _MOST_COMBINED:
            return list(ONE_TO_TEN.ratings())
        scores = [[value / 10**number.decimals for value in number.values] for number in numbers]
        return sorted({self._overall(one) for one in product(*scores)})

    @property
    def facts(self) -> dict[str, Any]:
        """The criteria with a column, for a manifest: the key of each, its scale and its weight."""
        return {
            one.column: {"key": one.key, "scale": str(one.scale), "weight": round(one.weight, 6)}
            for one in self.criteria
            if one.column is not None
        }

    def read(self, text: str) -> Read:
        """Read an answer.

        Raises:
            UnparsableError: with the reason.
        """
        reading = self.form.read(text)
        scores: dict[str, float] = {}
        scored = []
        for one, numbers, value in zip(self.criteria, self.form.numbers, reading.values, strict=True):
            given = value / 10**numbers.decimals
            if one.column is not None:
                scores[one.column] = one.scale.rating(given) if self.mapped else given if numbers.decimals else value
            if one.weight:
                scored.append(given)
        rationale = None if reading.text is None else storable(reading.text)
        return Read(scores, self._overall(scored), rationale, reading.leniencies)

    def expected(self, probabilities: Sequence[Sequence[float]] | None) -> float | None:
        """The expected overall rating, 1..10, from the probabilities of the values of each score that is a part of it.

        None if the probabilities are unknown, or a scale exceeds 10, because such values take several tokens. For a
        scale with decimals they are known only if one token distinguishes its values.
        """
        if probabilities is None or any(one.scale.highest > HIGHEST for one in self._scored):
            return None
        means = []
        for one, shares in zip(self._scored, probabilities, strict=True):
            numbers = numbers_of(one.scale)
            values = zip(numbers.values, shares, strict=True)
            means.append(sum(value * share for value, share in values) / 10**numbers.decimals)
        # More than four decimals would be floating-point noise, which differs between batches.
        return round(min(max(self._mean(means), LOWEST), HIGHEST), 4)

    @cached_property
    def _scored(self) -> tuple[Criterion, ...]:
        return tuple(one for one in self.criteria if one.weight)

    def _mean(self, scores: Sequence[float]) -> float:
        """The weighted mean of the scores that make the overall rating, each mapped to 1..10."""
        if len(scores) == 1:
            return self._scored[0].scale.stretched(scores[0])
        parts = (one.weight * one.scale.stretched(score) for one, score in zip(self._scored, scores, strict=True))
        return sum(parts) / sum(one.weight for one in self._scored)

    def _overall(self, scores: Sequence[float]) -> int:
        return ONE_TO_TEN.rating(self._mean(scores))


def numbers_of(scale: Scale) -> Numbers:
    """The numbers on a scale; without a step, scores are whole numbers."""
    decimals, one = scale.decimals, 10**scale.decimals
    low, high = round(scale.lowest * one), round(scale.highest * one)
    return Numbers(low, high, 1 if scale.step is None else round(scale.step * one), decimals)


def column_of(key: str) -> str:
    """The column of a criterion: its key in lower case, with underscores between words."""
    return re.sub(r"\W+", "_", key.strip().casefold()).strip("_")
