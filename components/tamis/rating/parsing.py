"""The four scores of a rater's answer, and how they are written."""

from __future__ import annotations

from typing import NamedTuple

from tamis.core.errors import UnparsableError
from tamis.llm.forms import Form

__all__ = ["FORM", "HIGH", "KEYS", "LOW", "Scores", "UnparsableError", "write"]
KEYS = ("Rarity", "Complexity", "Informativeness", "Overall rating")
LOW, HIGH = 1, 10
FORM = Form(KEYS, LOW, HIGH)


class Scores(NamedTuple):
    """The four scores of one sample, each 1..10, in the order of `KEYS`."""

    rarity: int
    complexity: int
    informativeness: int
    overall: int


def write(scores: Scores) -> str:
    """The answer with `scores`, in the form that a rater is asked for."""
    return FORM.write(scores)
