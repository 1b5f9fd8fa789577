"""The rule of flagging, the same in every mode."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.curation.classes import UNRATED


def flag(
    raw: NDArray[np.int8],
    other: NDArray[np.integer[Any]],
    for_other: NDArray[np.floating[Any]],
    for_raw: NDArray[np.floating[Any]],
) -> tuple[NDArray[np.bool_], NDArray[np.int8]]:
    """A rating is flagged when more speaks for another class than for the rating; what is equal or unknown stands.

    Args:
        raw: (n,) score classes as rated, -1 where there is no rating; such samples are not flagged.
        other: (n,) the class that most speaks for.
        for_other: (n,) how much speaks for it: a probability, or a share of votes; NaN where nothing is known.
        for_raw: (n,) how much speaks for the rating, in the same measure.

    Returns:
        Which samples are flagged, (n,) bool; and the class that is suggested for each, (n,) int8: `other` where it is
        flagged, else the rating.
    """
    with np.errstate(invalid="ignore"):
        flagged = (raw != UNRATED) & (other != raw) & (for_other > for_raw)
    return flagged, np.where(flagged, other, raw).astype(np.int8)
