"""ds2: curated scores, then diversity (the paper's method, section 4.3).

Score classes are taken from the highest down while they fit; of the one that does not fit, the samples with the highest
long-tail diversity scores among all its members.
"""

from __future__ import annotations

from tamis.selection.strategies.base import Strategy

STRATEGY = Strategy("ds2", order=("scores", "diversity"))
