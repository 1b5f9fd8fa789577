"""Answers on a scale of the prompt's own, brought to 1 to 10; and a question where a rater uses the lower half only."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache

from tamis.core.scales import HIGHEST, LOWEST, Scale, in_lower_half
from tamis.llm.forms import Form
from tamis.rating.parsing import KEYS, Scores

log = logging.getLogger(__name__)


@lru_cache
def form_of(scale: Scale) -> Form:
    """The form of an answer with scores on `scale`; without a step they are whole numbers."""
    decimals, one = scale.decimals, 10**scale.decimals
    low, high = round(scale.lowest * one), round(scale.highest * one)
    return Form(KEYS, low, high, 1 if scale.step is None else round(scale.step * one), decimals)


def scores_in(text: str, scale: Scale) -> tuple[Scores, tuple[str, ...]]:
    """The scores in an answer that gives them on `scale`, stretched to 1..10 and rounded; what was forgiven, by name.

    Raises:
        UnparsableError: with the reason.
    """
    form = form_of(scale)
    values, leniencies = form.read(text)
    return Scores(*(scale.rating(value / 10**form.decimals) for value in values)), leniencies


def expected_of(probabilities: Sequence[float] | None, scale: Scale) -> float | None:
    """The mean overall score, stretched to 1..10, by the probabilities of the scale's values.

    None where they are not known, or the values go beyond 10, which engines give as several tokens. Of a scale with
    decimals they are known only where one token tells its values apart.
    """
    if probabilities is None or scale.highest > HIGHEST:
        return None
    form = form_of(scale)
    mean: float = (
        sum(score * share for score, share in zip(form.values, probabilities, strict=True)) / 10**form.decimals
    )
    # Beyond four decimals lies the noise of floating point, which differs between batches.
    return round(min(max(scale.stretched(mean), LOWEST), HIGHEST), 4)


def question_lower_half(rater: str, histogram: Mapping[str, int], scale: Scale) -> None:
    """Warn where many overall ratings are all in the lower half: the prompt may ask for another scale.

    Args:
        rater: its name.
        histogram: how many samples have each overall rating, 1 to 10.
        scale: the scale that is declared.
    """
    given = [int(score) for score, count in histogram.items() if count]
    if given and in_lower_half(max(given), sum(histogram.values()), Scale()):
        log.warning(
            "rater '%s': no sample has more than %d of 10, on the declared scale from %s: is that the scale that its "
            "prompt asks for?",
            rater,
            max(given),
            scale,
        )
