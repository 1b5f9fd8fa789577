"""Maps answers on the prompt's scale to 1 to 10, and warns when a rater uses only the lower half of its scale."""

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
    """The form of an answer with scores on `scale`; without a step, scores are whole numbers."""
    decimals, one = scale.decimals, 10**scale.decimals
    low, high = round(scale.lowest * one), round(scale.highest * one)
    return Form(KEYS, low, high, 1 if scale.step is None else round(scale.step * one), decimals)


def scores_in(text: str, scale: Scale) -> tuple[Scores, tuple[str, ...]]:
    """Read an answer with scores on `scale`: the scores mapped to 1..10, rounded, and the names of lenient readings.

    Raises:
        UnparsableError: with the reason.
    """
    form = form_of(scale)
    values, leniencies = form.read(text)
    return Scores(*(scale.rating(value / 10**form.decimals) for value in values)), leniencies


def expected_of(probabilities: Sequence[float] | None, scale: Scale) -> float | None:
    """The expected overall score, mapped to 1..10, from the probabilities of the scale's values.

    None if the probabilities are unknown, or the scale exceeds 10, because such values take several tokens. For a scale
    with decimals they are known only if one token distinguishes its values.
    """
    if probabilities is None or scale.highest > HIGHEST:
        return None
    form = form_of(scale)
    mean: float = (
        sum(score * share for score, share in zip(form.values, probabilities, strict=True)) / 10**form.decimals
    )
    # More than four decimals would be floating-point noise, which differs between batches.
    return round(min(max(scale.stretched(mean), LOWEST), HIGHEST), 4)


def question_lower_half(rater: str, histogram: Mapping[str, int], scale: Scale) -> None:
    """Warn when all of many overall ratings are in the lower half: the prompt may ask for another scale.

    Args:
        rater: name of the rater.
        histogram: number of samples by overall rating, 1 to 10.
        scale: the declared scale.
    """
    given = [int(score) for score, count in histogram.items() if count]
    if given and in_lower_half(max(given), sum(histogram.values()), Scale()):
        log.warning(
            "rater '%s': no rating is above %d of 10; check that its prompt asks for the declared scale, from %s",
            rater,
            max(given),
            scale,
        )
