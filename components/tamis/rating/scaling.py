"""Warns when a rater uses only the lower half of its scale."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from tamis.core.scales import Scale, in_lower_half

log = logging.getLogger(__name__)


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
