"""The rule for flagging ratings, the same in every mode."""

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
    """Flag ratings with less support than another class; with equal or unknown support, a rating is not flagged.

    Args:
        raw: (n,) score classes as rated, -1 if there is no rating; such samples are not flagged.
        other: (n,) the class with the most support.
        for_other: (n,) its support: a probability, or a share of votes; NaN if unknown.
        for_raw: (n,) the support of the rating, in the same measure.

    Returns:
        Which samples are flagged, (n,) bool; and the suggested class of each, (n,) int8: `other` for flagged samples,
        otherwise the rating.
    """
    with np.errstate(invalid="ignore"):
        flagged = (raw != UNRATED) & (other != raw) & (for_other > for_raw)
    return flagged, np.where(flagged, other, raw).astype(np.int8)
