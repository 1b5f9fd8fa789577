"""The numbers that one key of an answer may have, and the text that may come before them."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True)
class Numbers:
    """The possible values of one key.

    Attributes:
        low, high: lowest and highest number, in units of the last decimal: with one decimal, 10 is 1.0.
        step: distance between two numbers, in the same units.
        decimals: digits after the decimal point.
    """

    low: int
    high: int
    step: int = 1
    decimals: int = 0

    @property
    def values(self) -> range:
        """The possible values, in units of the last decimal."""
        return range(self.low, self.high + 1, self.step)

    def said(self, value: int) -> str:
        """A value as it is written in an answer, with all decimals: 1.0."""
        return str(Decimal(value).scaleb(-self.decimals))

    @property
    def schema(self) -> dict[str, object]:
        """The JSON schema of a value."""
        if self.decimals:
            return {"type": "number", "enum": [float(self.said(value)) for value in self.values]}
        return {"type": "integer", "enum": list(self.values)}


@dataclass(frozen=True)
class FreeText:
    """A text in the answer, before its numbers.

    Attributes:
        key: its key in the JSON object.
        tokens: most tokens that a model may spend on it.
        characters: most characters that are kept; a longer text is cut, which is counted as a leniency.
    """

    key: str
    tokens: int
    characters: int
