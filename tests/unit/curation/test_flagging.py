"""The rule of flagging."""

from __future__ import annotations

import numpy as np
import pytest

from tamis.curation.flagging import flag


@pytest.mark.parametrize(
    ("raw", "other", "for_other", "for_raw", "flagged", "suggested"),
    [
        (2, 4, 0.6, 0.3, True, 4),
        (2, 4, 0.3, 0.6, False, 2),
        (2, 4, 0.5, 0.5, False, 2),
        (2, 2, 0.9, 0.1, False, 2),
        (2, 4, np.nan, np.nan, False, 2),
        (-1, 4, 0.9, 0.0, False, -1),
    ],
    ids=["more for another", "more for the rating", "equal", "the same class", "nothing known", "no rating"],
)
def test_a_rating_is_flagged_when_more_speaks_for_another_class(
    raw: int, other: int, for_other: float, for_raw: float, flagged: bool, suggested: int
) -> None:
    seen = flag(np.array([raw], np.int8), np.array([other]), np.array([for_other]), np.array([for_raw]))
    assert (seen[0].tolist(), seen[1].tolist()) == ([flagged], [suggested])
    assert seen[1].dtype == np.int8
