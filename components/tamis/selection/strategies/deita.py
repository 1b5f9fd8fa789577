"""deita: the best samples that are not similar to each other (Liu et al., arXiv 2312.15685).

Published: sorted by complexity times quality (`tamis score` with `measure.kind: deita`), best first. A sample is
skipped if its cosine similarity to one that is already picked exceeds a limit, 0.9 by default.

In DS2's experiments: sorted by the rater's score classes. A sample is kept if its mean distance to the ten farthest
picked ones is below 0.5, which keeps similar samples; see `similarity.within_reach`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tamis.core.errors import InputError
from tamis.selection.candidates import Candidates
from tamis.selection.ranking import ranked
from tamis.selection.similarity import Embeddings, dissimilar, within_reach
from tamis.selection.strategies.base import Strategy, WithVectors


class DeitaSettings(WithVectors):
    """Settings of the published filter."""

    max_similarity: float = Field(
        0.9, gt=-1, le=1, description="largest cosine similarity that two picked samples may have"
    )


@dataclass(frozen=True)
class Deita(Strategy):
    """The published filter."""

    def pick(self, candidates: Candidates, ties: NDArray[np.uint64], size: int) -> NDArray[np.int64]:
        """See `Strategy.pick`."""
        order, embeddings, rows = _best_first(self, candidates, ties)
        return order[dissimilar(embeddings, rows, size, self.options.max_similarity)]


@dataclass(frozen=True)
class DeitaAsRun(Strategy):
    """The filter of DS2's experiments."""

    def pick(self, candidates: Candidates, ties: NDArray[np.uint64], size: int) -> NDArray[np.int64]:
        """See `Strategy.pick`."""
        order, embeddings, rows = _best_first(self, candidates, ties)
        return order[within_reach(embeddings, rows, size, k=10, limit=0.5)]


def _best_first(
    strategy: Strategy, candidates: Candidates, ties: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], Embeddings, NDArray[np.int64]]:
    """The candidates in order, the vectors, and the row of each candidate's vector."""
    if candidates.embeddings is None:
        raise InputError("the candidates have no embeddings", action="load them, or choose another strategy")
    order = ranked([candidates.column(name) for name in strategy.order], ties)
    return order, candidates.embeddings, candidates.column("embedded")[order]


STRATEGY = Deita(
    "deita",
    order=("model_scores",),
    needs=("embedded",),
    about="complexity times quality, highest first; samples whose cosine similarity to a picked one exceeds "
    "`max_similarity` are skipped",
    scores="deita",
    settings=DeitaSettings,
    ds2_paper=DeitaAsRun("deita", order=("raw_scores",), needs=("embedded",), settings=WithVectors),
)
