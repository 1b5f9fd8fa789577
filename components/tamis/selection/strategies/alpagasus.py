"""alpagasus: the highest ratings, without curation (Chen et al., arXiv 2307.08701).

AlpaGasus keeps what is rated above a threshold. With a size given, as in the DS2 paper, score classes are taken from
the highest down and the class that does not fit is sampled at random. The DS2 code drew that remainder from the first
rows of the pool, whatever their rating; here it comes from the class itself.
"""

from __future__ import annotations

from tamis.selection.strategies.base import Strategy

STRATEGY = Strategy("alpagasus", order=("raw_scores",))
