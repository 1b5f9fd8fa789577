"""alpagasus: the highest ratings, without curation (Chen et al., arXiv 2307.08701).

AlpaGasus keeps samples that are rated above a threshold. With a given size, as in the DS2 paper, score classes are
taken from the highest down, and the class that does not fit is sampled at random.

In DS2's experiments the samples from that last class came from the wrong rows: numbers drawn within the class were used
as rows of the pool. They are therefore a random part of the pool's first rows, whatever their rating.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tamis.selection.candidates import Candidates
from tamis.selection.ranking import highest
from tamis.selection.strategies.base import Strategy


@dataclass(frozen=True)
class AlpagasusAsRun(Strategy):
    """The rest comes from the pool's first rows, as many of them as the class that does not fit has members.

    A sample is never taken twice, although the code of the experiments could do so.
    """

    def pick(self, candidates: Candidates, ties: NDArray[np.uint64], size: int) -> NDArray[np.int64]:
        """See `Strategy.pick`."""
        scores = candidates.column("raw_scores")
        taken = np.zeros(len(candidates), bool)
        for score in np.unique(scores)[::-1]:
            members = scores == score
            left = size - int(taken.sum())
            if members.sum() <= left:
                taken |= members
                continue
            first = np.flatnonzero(~taken & (candidates.column("places") < members.sum()))
            taken[first[highest([], ties[first], min(left, len(first)))]] = True
            break
        return np.flatnonzero(taken)


STRATEGY = Strategy(
    "alpagasus",
    order=("raw_scores",),
    about="the rater's own score classes, highest first; random order within a class (seeded)",
    ds2_paper=AlpagasusAsRun("alpagasus", order=("raw_scores",), needs=("places",)),
)
