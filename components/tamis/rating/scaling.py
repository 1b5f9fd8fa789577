"""Answers on a scale of the prompt's own, brought to 1 to 10; and a question where a rater uses the lower half only."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

from tamis.core.llm.forms import Form
from tamis.core.scales import HIGHEST, LOWEST, Scale
from tamis.rating.parsing import KEYS, Scores

log = logging.getLogger(__name__)
_MANY = 30  # ratings, of which some should be high


@lru_cache
def form_of(scale: Scale) -> Form:
    """The form of an answer with scores on `scale`, whose ends are whole numbers."""
    return Form(KEYS, int(scale.lowest), int(scale.highest))


def scores_in(text: str, scale: Scale) -> tuple[Scores, tuple[str, ...]]:
    """The scores in an answer that gives them on `scale`, stretched to 1..10 and rounded; what was forgiven, by name.

    Raises:
        UnparsableError: with the reason.
    """
    values, leniencies = form_of(scale).read(text)
    return Scores(*(math.floor(scale.stretched(float(value)) + 0.5) for value in values)), leniencies


def expected_of(probabilities: Sequence[float] | None, scale: Scale) -> float | None:
    """The mean overall score, stretched to 1..10, by the probabilities of the scale's values.

    None where they are not known, or the values have more than one digit, which engines give as several tokens.
    """
    if probabilities is None or scale.highest > HIGHEST:
        return None
    mean = sum(score * share for score, share in enumerate(probabilities, int(scale.lowest)))
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
    if sum(histogram.values()) >= _MANY and max(given) < (LOWEST + HIGHEST) / 2:
        log.warning(
            "rater '%s': no sample has more than %d of 10, on the declared scale from %s: is that the scale that its "
            "prompt asks for?",
            rater,
            max(given),
            scale,
        )
