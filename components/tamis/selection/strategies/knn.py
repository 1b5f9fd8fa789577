"""knn: the samples farthest from their neighbours: largest mean cosine distance to the k nearest ones.

The paper's k is 10. This is the long-tail diversity score alone, without ratings.
"""

from __future__ import annotations

from tamis.selection.strategies.base import OverNeighbors, Strategy

STRATEGY = Strategy(
    "knn",
    order=("distances",),
    about="mean cosine distance to the `k` nearest neighbours, largest first",
    settings=OverNeighbors,
)
