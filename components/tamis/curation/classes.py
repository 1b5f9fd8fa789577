"""Score classes: ratings from 1 to 10 compressed to 0..5 (paper section 4.1)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

UNRATED = -1


def to_classes(ratings: NDArray[Any], *, lowest: int = 4, highest: int = 9) -> NDArray[np.int8]:
    """Score class of each rating: min(max(rating, lowest), highest) - lowest.

    Args:
        ratings: (n,) numbers; fractions are rounded half up; NaN where there is no rating.
        lowest: ratings up to this are class 0.
        highest: ratings from this on are the top class, highest - lowest.

    Returns:
        (n,) int8 classes, `UNRATED` (-1) where the rating is NaN.
    """
    values = np.asarray(ratings, np.float64)
    known = ~np.isnan(values)
    classes = np.full(len(values), UNRATED, np.int8)
    classes[known] = np.clip(np.floor(values[known] + 0.5), lowest, highest) - lowest
    return classes
