"""Curation in rounds of draws: `paper` mode, and `reference` mode, which doubles every sample like the paper's code.

Each round draws a sub-sample without replacement. A sample's neighbours in it are those members of its list in the
whole graph that were drawn, in order. One graph thus serves all rounds.

Consensus rounds count the ratings (own, first, second), from which T and p are estimated (`hoc`). Then each vote round
compares every drawn sample's rating with those of its nearest neighbours (SimiFeat ranking). In each rated class, the
share of ratings that is wrong according to T is flagged, those that agree least with their neighbours first. Flags and
suggested scores are votes.

`reference` reproduces a mistake on purpose. The paper's code holds every sample twice, so that a sample's nearest
neighbour is often its own copy with its own rating, and it keeps the last T instead of the best.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tamis.core.progress import Progress
from tamis.curation import hoc, transition
from tamis.curation.classes import UNRATED, within_reach
from tamis.curation.consensus import Consensus
from tamis.curation.diagnosis import checks, outcome
from tamis.curation.flagging import flag
from tamis.curation.inputs import check_arrays
from tamis.curation.jsonable import as_json
from tamis.curation.neighborhoods import BLOCK, Floats, Ints, Neighborhoods
from tamis.curation.result import Curated, decide

_LARGEST_DRAW, _SHARE = 50_000, 0.9
_VOTERS = 10  # the sample itself and its nine nearest
_FEWEST, _MOST = 0.05, 0.95  # share of a class that is flagged if T says that none is wrong, or all are


def curate(
    scores: Ints,
    indices: Ints,
    distances: Floats,
    *,
    classes: int = 6,
    confidence: float = 0.5,
    doubled: bool = False,
    consensus_rounds: int = 50,
    vote_rounds: int = 51,
    seed: int = 0,
    reachable: NDArray[np.bool_] | None = None,
) -> Curated:
    """Find and correct the errors of one rater as the paper describes, or as its code does.

    Args:
        scores: (n,) score classes 0..classes-1, -1 if there is no rating; such samples are not used.
        indices: (n, k) integers, each sample's nearest neighbours, nearest first, itself excluded.
        distances: (n, k) cosine distances to them, ascending.
        classes: number K of score classes.
        confidence: a flagged score is corrected if its suggestion has at least this confidence (paper: 0.5).
        doubled: hold every sample twice, as the paper's code does.
        consensus_rounds: draws for T and p.
        vote_rounds: draws for flags and suggestions.
        seed: of all draws.
        reachable: (K,) classes for which the scale has ratings; None: all.

    Returns:
        Curated scores. `confidence` is the paper's, not a probability: the share of rounds that flagged the sample,
        times the share of those that suggested the class, both smoothed. `error_probability` is the first of these.

    Raises:
        InputError: when shapes do not match, a score is out of range, or nothing is rated.
    """
    scores = check_arrays(scores, indices, distances, classes)[:, 0]
    view = Neighborhoods(scores, indices, distances, None)
    rng = np.random.default_rng(seed)
    draws = _Draws(view, doubled)
    rounds = consensus_rounds + vote_rounds
    with Progress("curation: rounds", rounds, unit="rounds") as progress:
        counted = _count(draws, classes, consensus_rounds, rng, progress)
        T, p, loss = hoc.solve(counted, rng, keep_best=not doubled)
        observed = np.bincount(scores[view.rows], minlength=classes) / len(view.rows)
        votes = _vote(draws, _noise_rates(T, p, observed), classes, vote_rounds, rng, progress)
    flag_share = (votes.flags + 1) / (votes.visits + 2)
    others = votes.suggestions.copy()
    others[view.rows, scores[view.rows]] = -1
    suggested = others.argmax(1).astype(np.int8)
    support = (others.max(1) + 1) / (votes.suggestions.sum(1) + classes)
    flagged, suggestion = flag(scores, suggested, flag_share, 1 - flag_share)
    # A rating that is not flagged is kept; its confidence is the share of rounds that did not flag it.
    sure = np.where(flagged, support * flag_share, 1 - flag_share).astype(np.float32)
    unrated = scores == UNRATED
    sure[unrated] = np.nan
    error = np.where(unrated, np.nan, flag_share).astype(np.float32)
    result = decide(scores, flagged, suggestion, sure, error, threshold=confidence)

    by_likelihood = transition.from_triples(counted.c3, seed=seed)
    reachable = np.ones(classes, bool) if reachable is None else reachable
    T = within_reach(T, reachable)
    found = checks(view, T, p, renamed=False, reachable=reachable)
    found["warnings"] += _warnings(draws, votes, classes, confidence, vote_rounds)
    result.diagnosis = as_json(
        {
            "mode": "reference" if doubled else "paper",
            "confidence": confidence,
            "k": _VOTERS,
            "T": T,
            "p": p,
            "loss": loss,
            "T_by_likelihood": within_reach(by_likelihood.T, reachable),
            "log_likelihood": by_likelihood.log_likelihood,
        }
        | found
        | outcome(result, classes)
    )
    return result


def _warnings(draws: _Draws, votes: _Votes, classes: int, confidence: float, vote_rounds: int) -> list[str]:
    """Warnings about too few rounds or too few neighbours."""
    warnings = []
    if draws.short > 0.01:
        warnings.append(
            f"for {draws.short:.0%} of the drawn samples, fewer than {_VOTERS - 1} of their neighbours were drawn too: "
            "find more neighbours (neighbors.k)"
        )
    # Even if all rounds that drew a sample agree, the smoothing may keep its confidence below the threshold.
    visits = votes.visits[draws.rows]
    out_of_reach = float(((visits + 1) ** 2 / ((visits + 2) * (visits + classes)) < confidence).mean())
    if out_of_reach > 0.01:
        warnings.append(
            f"{out_of_reach:.0%} of the ratings cannot be corrected: {vote_rounds} rounds draw a rating "
            f"{visits.mean():.1f} times on average, too rarely for the confidence {confidence:g}; lower "
            "curation.confidence, or use mode: exact"
        )
    return warnings


class _Draws:
    """Draws sub-samples and finds the neighbours inside them."""

    def __init__(self, view: Neighborhoods, doubled: bool) -> None:
        self.view = view
        self.rows = view.rows
        self._copies = 2 if doubled else 1
        population = len(self.rows) * self._copies
        self._size = max(min(_LARGEST_DRAW, int(_SHARE * population)), min(3, population))
        self._missing = self._asked = 0

    @property
    def short(self) -> float:
        """Share of drawn samples whose list held too few drawn neighbours for the votes."""
        return self._missing / max(self._asked, 1)

    def draw(self, rng: np.random.Generator) -> NDArray[np.int8]:
        """(n,) how often each sample is in a new draw: 0 or 1, or up to 2 when samples are doubled."""
        drawn = rng.choice(len(self.rows) * self._copies, self._size, replace=False)
        counts = np.zeros(len(self.view), np.int8)
        np.add.at(counts, self.rows[drawn % len(self.rows)], 1)
        return counts

    def nearest(self, counts: NDArray[np.int8], rows: Ints, wanted: int) -> tuple[NDArray[np.int32], Floats]:
        """The `wanted` nearest other drawn samples of `rows`, with distances; -1 and infinity if there are fewer.

        A sample that was drawn twice is its own nearest neighbour, at distance 0.
        """
        samples, far = self.view.lists(rows)
        times = np.where(samples >= 0, counts[samples], 0)
        samples = np.hstack([rows[:, None].astype(np.int32), samples])
        far = np.hstack([np.zeros((len(rows), 1), np.float32), far])
        reached = np.cumsum(np.hstack([counts[rows][:, None] - 1, times]), axis=1, dtype=np.int32)
        found = np.full((len(rows), wanted), -1, np.int32)
        distance = np.full((len(rows), wanted), np.inf, np.float32)
        for place in range(wanted):
            column = (reached > place).argmax(1)[:, None]
            there = reached[:, -1] > place
            found[there, place] = np.take_along_axis(samples, column, 1)[there, 0]
            distance[there, place] = np.take_along_axis(far, column, 1)[there, 0]
        self._asked += len(rows)
        self._missing += int((found[:, -1] < 0).sum())
        return found, distance


def _count(draws: _Draws, classes: int, rounds: int, rng: np.random.Generator, progress: Progress) -> Consensus:
    """Consensus frequencies, averaged over `rounds` draws."""
    c3 = np.zeros(classes**3)
    for _ in range(rounds):
        counts = draws.draw(rng)
        seen = np.zeros(classes**3)
        for rows in draws.view.blocks(np.flatnonzero(counts)):
            found, _ = draws.nearest(counts, rows, 2)
            known = found[:, 1] >= 0
            own, first, second = (draws.view.scores[x[known]].astype(np.intp) for x in (rows, found[:, 0], found[:, 1]))
            seen += np.bincount((own * classes + first) * classes + second, counts[rows[known]], classes**3)
        c3 += seen / max(seen.sum(), 1) / rounds
        progress.advance()
    cube = c3.reshape(classes, classes, classes)
    return Consensus(cube.sum((1, 2)), cube.sum(2), cube, 1.0)


def _noise_rates(T: NDArray[np.float64], p: NDArray[np.float64], observed: NDArray[np.float64]) -> NDArray[np.float64]:
    """(K,) share of each rated class to flag: 1 - P(true = j | rated = j), limited to `_FEWEST` and `_MOST`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        right = np.where(observed > 0, np.diag(T) * p / observed, 1)
    return np.select([right >= 1, right <= 0], [_FEWEST, _MOST], 1 - right)


@dataclass(frozen=True)
class _Votes:
    visits: NDArray[np.int32]  # (n,) rounds in which the sample was drawn
    flags: NDArray[np.int32]  # (n,) of them, rounds in which it was flagged
    suggestions: NDArray[np.int32]  # (n, K) of those, rounds that suggested each class


def _vote(
    draws: _Draws,
    rates: NDArray[np.float64],
    classes: int,
    rounds: int,
    rng: np.random.Generator,
    progress: Progress,
) -> _Votes:
    n, view = len(draws.view), draws.view
    votes = _Votes(np.zeros(n, np.int32), np.zeros(n, np.int32), np.zeros((n, classes), np.int32))
    for _ in range(rounds):
        counts = draws.draw(rng)
        drawn = np.flatnonzero(counts)
        agreement = np.empty(len(drawn))
        suggestion = np.empty(len(drawn), np.int8)
        for start in range(0, len(drawn), BLOCK):
            block = slice(start, start + BLOCK)
            agreement[block], suggestion[block] = _compare(draws, counts, drawn[block], classes)
        votes.visits[drawn] += 1
        own = view.scores[drawn]
        for c in range(classes):
            members = np.flatnonzero(own == c)
            if not len(members):
                continue
            limit = np.percentile(np.repeat(agreement[members], counts[drawn[members]]), 100 * rates[c])
            out = members[agreement[members] < limit]
            votes.flags[drawn[out]] += 1
            votes.suggestions[drawn[out], suggestion[out]] += 1
        progress.advance()
    return votes


def _compare(
    draws: _Draws, counts: NDArray[np.int8], rows: Ints, classes: int
) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """The agreement of each sample's rating with its nearest drawn neighbours, and the class that they favour."""
    found, far = draws.nearest(counts, rows, _VOTERS - 1)
    known = found >= 0
    weights = np.where(known, 1 - np.where(known, far, 0), 0).astype(np.float64)
    # The sample votes too, at the distance extrapolated from its first two neighbours.
    first, second = (np.where(known[:, place], far[:, place], 0) for place in (0, 1))
    own = draws.view.scores[rows].astype(np.intp)
    tally = np.zeros((len(rows), classes))
    tally[np.arange(len(rows)), own] = 1 - (2 * first - second)
    for place in range(found.shape[1]):
        here = np.flatnonzero(known[:, place])
        tally[here, draws.view.scores[found[here, place]]] += weights[here, place]
    length = np.linalg.norm(tally, axis=1)
    agreement = tally[np.arange(len(rows)), own] / np.maximum(length, 1e-12)
    return agreement, tally.argmax(1).astype(np.int8)
