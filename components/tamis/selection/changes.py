"""The probability that a rating changes a subset, for samples without a rating, from their posteriors.

For the strategy ds2. It works on arrays, so it can be used without artifacts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.core.ids import tie_breaks
from tamis.selection.candidates import Candidates
from tamis.selection.choose import choose, groups_of, masks_of, number_of
from tamis.selection.ranking import highest
from tamis.selection.strategies.base import Strategy

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Place:
    """A sample's place in the order: highest score first, then highest diversity, then lowest tie number."""

    score: float
    diversity: float
    tie: int

    def preceded_by(self, score: int, diversity: Floats, ties: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which of b samples of this score, with (b,) diversities and ties, come before this place: (b,)."""
        if score != self.score:
            return np.full(len(diversity), score > self.score)
        result: NDArray[np.bool_] = (diversity > self.diversity) | ((diversity == self.diversity) & (ties < self.tie))
        return result


@dataclass(frozen=True)
class Cut:
    """Where a subset ends in one of the groups that are picked from separately.

    Attributes:
        last: the last sample that is picked; None if none is.
        following: the first sample that is not picked; None if all eligible samples are picked.
    """

    last: Place | None
    following: Place | None


@dataclass(frozen=True)
class Subset:
    """A subset and where it ends.

    Attributes:
        picked: (n,) bool, the candidates in it.
        groups: for each group its candidates, (n,) bool, and its cut.
        ties: (n,) numbers that break ties.
    """

    picked: NDArray[np.bool_]
    groups: list[tuple[NDArray[np.bool_], Cut]]
    ties: NDArray[np.uint64]

    @property
    def size(self) -> int:
        """Number of samples in the subset."""
        return int(self.picked.sum())


def subset_of(
    strategy: Strategy,
    candidates: Candidates,
    size: int | float,
    *,
    seed: int,
    barred: Mapping[str, NDArray[np.bool_]],
    min_score: int | None = None,
    quotas: Mapping[str, int | float] | None = None,
) -> Subset:
    """The subset that `choose` returns for the same arguments, and where it ends.

    Raises:
        InputError: as `choose` does.
    """
    choice = choose(strategy, candidates, size, seed=seed, barred=barred, min_score=min_score, quotas=quotas)
    ties = tie_breaks(candidates.ids, seed, salt=strategy.name)
    picked = np.zeros(len(candidates), bool)
    picked[choice.rows] = True
    left = ~picked
    for mask in masks_of(strategy, candidates, barred, min_score).values():
        left &= ~mask
    keys = [candidates.column(name) for name in strategy.order]

    def place(row: int) -> Place:
        score, diversity = (float(key[row]) for key in keys)
        return Place(score, diversity, int(ties[row]))

    groups = []
    for _, members, _ in groups_of(candidates, quotas or {}, number_of(size, len(candidates))):
        inside = choice.rows[members[choice.rows]]  # in their order
        outside = np.flatnonzero(left & members)
        first = outside[highest([key[outside] for key in keys], ties[outside], min(1, len(outside)))]
        groups.append((members, Cut(*(place(rows[-1]) if len(rows) else None for rows in (inside, first)))))
    return Subset(picked, groups, ties)


def change_probability(
    posterior: Floats,
    picked: NDArray[np.bool_],
    diversity: Floats,
    ties: NDArray[np.uint64],
    cut: Cut,
    *,
    min_score: int | None = None,
) -> NDArray[np.float64]:
    """The probability that each of b samples of one group enters or leaves the subset if its true class becomes known.

    A sample with a known class has that class as its score. A picked sample leaves if it would then rank behind the
    first sample that is not picked. Any other sample enters if it would rank before the last picked one. Within a
    class, diversity decides. Each sample is considered alone, with all others unchanged.

    Args:
        posterior: (b, K) probabilities of the true score classes 0..K-1.
        picked: (b,) whether they are in the subset.
        diversity: (b,) their diversity.
        ties: (b,) their numbers that break ties.
        cut: where the subset ends in their group.
        min_score: samples of lower classes are never picked.

    Returns:
        (b,) probabilities, 0..1.
    """
    changes = np.zeros(len(posterior))
    for score in range(posterior.shape[1]):
        if min_score is not None and score < min_score:
            inside = np.zeros(len(posterior), bool)
        else:
            stays = True if cut.following is None else cut.following.preceded_by(score, diversity, ties)
            enters = False if cut.last is None else cut.last.preceded_by(score, diversity, ties)
            inside = np.where(picked, stays, enters)
        changes += np.where(inside != picked, posterior[:, score], 0)
    return np.clip(changes, 0, 1)


@dataclass(frozen=True)
class Next:
    """Samples to rate, and the effect of their ratings on a subset.

    Attributes:
        rows: (k,) rows of the samples, the most probable change first.
        now: upper bound of the expected share of the subset that would change if all true classes were known.
        after: the same bound once these samples are rated, if their ratings are right.
        enough: how many samples, in this order, meet the target; None if even all that can be rated do not.
    """

    rows: NDArray[np.int64]
    now: float
    after: float
    enough: int | None


def next_to_rate(
    probability: Floats,
    can_be_rated: NDArray[np.bool_],
    ties: NDArray[np.uint64],
    *,
    size: int,
    target: float,
    most: int | None = None,
) -> Next:
    """The samples whose rating is most likely to change a subset.

    The sum of the probabilities estimates how many samples enter or leave. It tends to be too high, because each
    sample that enters pushes one out and each that leaves lets one in. Ties can make it too low.

    Args:
        probability: (n,) that a sample enters or leaves (`change_probability`); 0 for samples with a rating.
        can_be_rated: (n,) whether it can be rated.
        ties: (n,) numbers that break ties.
        size: samples in the subset.
        target: share of the subset that may still change, 0..1.
        most: number of samples; None for the smallest number that meets the target, or all if none does. Samples that
            cannot change the subset are never included.
    """
    total = float(probability.sum())
    rows = np.flatnonzero(can_be_rated & (probability > 0))
    order = rows[np.lexsort((ties[rows], -probability[rows]))]
    left = (total - np.concatenate([[0.0], np.cumsum(probability[order])])) / size
    met = np.flatnonzero(left <= target + 1e-12)
    enough = int(met[0]) if len(met) else None
    wanted = enough if most is None else most
    count = len(order) if wanted is None else min(len(order), wanted)
    return Next(order[:count], min(1.0, total / size), float(np.clip(left[count], 0, 1)), enough)
