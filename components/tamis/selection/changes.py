"""How probable it is that a rating changes a subset: for samples without one, from what curation thinks of them.

Made for the strategy ds2. On arrays only, so that it can be used without artifacts.
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
    """A sample's place in the order: by score, then by diversity, the highest first, then by tie, the lowest first."""

    score: float
    diversity: float
    tie: int

    def beaten_by(self, score: int, diversity: Floats, ties: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which of b samples of this score, with (b,) diversities and ties, come before this place: (b,)."""
        if score != self.score:
            return np.full(len(diversity), score > self.score)
        result: NDArray[np.bool_] = (diversity > self.diversity) | ((diversity == self.diversity) & (ties < self.tie))
        return result


@dataclass(frozen=True)
class Cut:
    """Where a subset ends, in a group of samples that is picked from on its own.

    Attributes:
        last: the last sample that is picked; None where none is.
        following: the first that is not; None where all are picked that may be.
    """

    last: Place | None
    following: Place | None


@dataclass(frozen=True)
class Subset:
    """A subset and where it ends.

    Attributes:
        picked: (n,) bool, the candidates that are in it.
        groups: for each group its candidates, (n,) bool, and its cut.
        ties: (n,) numbers that decide among equals.
    """

    picked: NDArray[np.bool_]
    groups: list[tuple[NDArray[np.bool_], Cut]]
    ties: NDArray[np.uint64]

    @property
    def size(self) -> int:
        """Number of samples in it."""
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
    """The subset that `choose` makes of the same arguments, and where it ends.

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
    """How probable it is that b samples of one group would change sides if their true classes were known: (b,), 0..1.

    A sample with a known class has that class as its score. One that is picked leaves where it would then come behind
    the first that is not picked; another enters where it would come before the last that is. In the class at the cut,
    diversity decides. Each sample is looked at by itself, with all others as they are.

    Args:
        posterior: (b, K) probabilities of the true score classes 0..K-1.
        picked: (b,) whether they are in the subset.
        diversity: (b,) their diversity.
        ties: (b,) their numbers that decide among equals.
        cut: where the subset ends in their group.
        min_score: samples of lower classes are never picked.
    """
    changes = np.zeros(len(posterior))
    for score in range(posterior.shape[1]):
        if min_score is not None and score < min_score:
            inside = np.zeros(len(posterior), bool)
        else:
            stays = True if cut.following is None else cut.following.beaten_by(score, diversity, ties)
            enters = False if cut.last is None else cut.last.beaten_by(score, diversity, ties)
            inside = np.where(picked, stays, enters)
        changes += np.where(inside != picked, posterior[:, score], 0)
    return np.clip(changes, 0, 1)


@dataclass(frozen=True)
class Next:
    """Samples to rate, and what that does for a subset.

    Attributes:
        rows: (k,) of the samples, the most probable change first.
        now: expected share of the subset that would change if all true classes were known, at most.
        after: the same once these samples are rated and their ratings taken as true.
        enough: how many of all that can be rated, in this order, meet the target; None where even all do not.
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

    The sum of the probabilities is about the number of samples that will change sides, rather more than less: what
    enters pushes out as many, and what leaves lets as many in. Ties can make it less.

    Args:
        probability: (n,) that a sample changes sides (`change_probability`); 0 where it has a rating.
        can_be_rated: (n,) whether it can be rated.
        ties: (n,) numbers that decide among equals.
        size: samples in the subset.
        target: share of the subset that may still change, 0..1.
        most: how many samples; None for as few as meet the target, or else all. Never one that changes nothing.
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
