"""The paper's prompt, as it ships: its keys, its form and answers in it."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from tamis.core.scales import Scale
from tamis.rating import records
from tamis.rating.criteria import Criteria, Criterion
from tamis.rating.prompts import load_prompt

PROMPT = load_prompt("ds2-v1")
CRITERIA, FORM = PROMPT.scores, PROMPT.form
KEYS = FORM.keys
RECORDS, Rating = records.records_of(CRITERIA), records.model_of(CRITERIA)
rating_of = partial(records.rating_of, criteria=CRITERIA)


class Scores(NamedTuple):
    """The four scores of one sample, each 1..10, in the order of `KEYS`."""

    rarity: int
    complexity: int
    informativeness: int
    overall: int


def write(scores: Scores) -> str:
    """The answer with `scores`, in the form that a rater is asked for."""
    return FORM.write(scores)


def scores_in(text: str) -> tuple[Scores, tuple[str, ...]]:
    """The scores in an answer, and the names of lenient readings."""
    reading = FORM.read(text)
    return Scores(*reading.values), reading.leniencies


def on(scale: Scale) -> Criteria:
    """The paper's criteria on another scale."""
    return Criteria(tuple(Criterion(c.key, scale, c.weight, c.column) for c in CRITERIA.criteria), mapped=True)
