"""knn: the samples that lie farthest from their neighbours: highest mean cosine distance to the k nearest ones.

The paper's k is 10. This is the long-tail diversity score alone, without any rating.
"""

from __future__ import annotations

from tamis.selection.strategies.base import OverNeighbors, Strategy

STRATEGY = Strategy(
    "knn",
    order=("distances",),
    about="mean cosine distance to the `k` nearest neighbours, farthest first",
    settings=OverNeighbors,
)
