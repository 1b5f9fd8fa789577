"""Long-tail diversity: how far a sample lies from its nearest neighbours (paper section 3.3)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Variant = Literal["paper", "reference"]
_BLOCK = 65_536


def diversity_scores(
    distances: NDArray[np.floating[Any]], count: int = 10, variant: Variant = "paper"
) -> NDArray[np.float32]:
    """Long-tail diversity score of each sample: 2 / (1 + exp(-d)) - 1, which is tanh(d / 2), of its mean distance d.

    Args:
        distances: (n, k) cosine distances to the neighbours, ascending, the sample itself excluded.
        count: neighbours in the mean; all k if there are fewer.
        variant: "paper": d is the mean over the `count` nearest other samples. "reference": as in the paper's code,
            which holds every sample twice, so that the ten nearest are the sample, its copy and the four nearest others
            twice; it rounds the score to 4 decimals.

    Returns:
        (n,) float32 in [0, 0.77].
    """
    scores = np.empty(len(distances), np.float32)
    for start in range(0, len(distances), _BLOCK):
        block = np.asarray(distances[start : start + _BLOCK], np.float64)
        if variant == "reference":
            scores[start : start + _BLOCK] = np.round(np.tanh(0.8 * block[:, :4].mean(1) / 2), 4)
        else:
            scores[start : start + _BLOCK] = np.tanh(block[:, :count].mean(1) / 2)
    return scores
