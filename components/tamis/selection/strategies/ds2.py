"""ds2: curated scores, then diversity (the paper's method, section 4.3).

Score classes are taken from the highest down while they fit. From the class that does not fit, the samples with the
highest long-tail diversity are taken.

`BY_MEAN` ranks by the posterior mean of the true class instead, so that a certain 4 comes before one that may be a 2.
It chooses from the same samples: those with a curated score.
"""

from __future__ import annotations

from tamis.selection.strategies.base import Strategy

BY_MEAN = Strategy("ds2", order=("means", "diversity"), needs=("scores",))
STRATEGY = Strategy(
    "ds2",
    order=("scores", "diversity"),
    about="curated score classes, highest first; most diverse first within a class. With `rank_by: mean`: posterior "
    "means, highest first",
    by_mean=BY_MEAN,
)
