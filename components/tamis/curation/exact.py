"""Curation in `exact` mode: every statistic from the whole graph, no draws, the same result every time.

Usable by itself, on arrays:

    from tamis.curation.exact import curate
    result = curate(scores, indices, distances, classes=6)
    result.score, result.flagged, result.diagnosis["T"]
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

from tamis.core.errors import InputError
from tamis.curation import mixture, transition
from tamis.curation.classes import UNRATED
from tamis.curation.consensus import consensus
from tamis.curation.diagnosis import as_json, checks, outcome
from tamis.curation.mixture import Bins, Mixture
from tamis.curation.neighborhoods import Floats, Ints, Neighborhoods, copy_groups
from tamis.curation.result import Curated, decide
from tamis.curation.transition import Matrix

COPY_DISTANCE = 1e-5
_START_NEIGHBORS = 5  # patterns of so many neighbours give the EM its start
_CHOICES = (5, 10, 20, 32, 50, 100)  # numbers of neighbours that "auto" compares
_LEVEL, _REFIT_STEPS = 0.95, 40  # of bootstrap intervals
_ROUGH_SAMPLES, _ROUGH = 3_000, 1e-5  # fits that only lead to the last one stop earlier
_CHOICE_SAMPLES = 10_000  # rated samples on which it compares them
NOTHING_SAID = (
    "neighbours say next to nothing about the ratings, so no rating was flagged or corrected: either near samples do "
    "not share their true scores in this embedding, or the ratings do not follow the texts, or there are too few of "
    "them"
)


def curate(
    scores: Ints,
    indices: Ints,
    distances: Floats,
    *,
    classes: int = 6,
    neighbors: int | Literal["auto"] = "auto",
    confidence: float = 0.0,
    fill_missing: bool = False,
    copy_distance: float | None = COPY_DISTANCE,
    fit_samples: int = 50_000,
    ordinal: float = 0.0,
    bootstrap: int = 0,
    seed: int = 0,
    keep_evidence: bool = False,
) -> Curated:
    """Find and correct the errors of one rater (section 3 of the paper, arXiv 2410.10877).

    T[i, j] = P(rated j | true i) is definition 3.1; that near samples share their true score, definition 3.2, is not
    taken for granted but measured. The model is in `tamis.curation.mixture`; the README beside it has a whole example.

    Args:
        scores: (n,) score classes 0..classes-1, -1 where there is no rating.
        indices: (n, k) integers, each sample's nearest neighbours, nearest first, itself excluded.
        distances: (n, k) cosine distances to them, ascending.
        classes: number K of score classes.
        neighbors: neighbours used of each sample; "auto" takes the number under which they best predict ratings that
            they have not seen.
        confidence: a flagged score is corrected when its suggestion is at least so probable, 0..1. 0 always takes the
            most probable class, which is right most often.
        fill_missing: whether samples without a rating get the class that their neighbours suggest.
        copy_distance: samples this close are copies of one another: no neighbours, and one of them enters the
            statistics; None treats copies as any neighbours.
        fit_samples: most samples that the model is fitted to; the posterior is computed for all.
        ordinal: expected ratings added to each row of T, spread over near classes: holds up T where ratings are few.
        bootstrap: resamples for 95 % intervals of T and p; 0 for none.
        seed: of the random starts of the EM, and of resamples.
        keep_evidence: whether the result keeps each sample's evidence, as several raters' combination needs.

    Returns:
        Curated scores (n,) with what was found for each sample, and the diagnosis: plain JSON values, "T" (K, K) with
        true classes in rows and rated ones in columns, "p" (K,), "warnings" and what the README lists. Where neighbours
        say next to nothing about the ratings, nothing is flagged: `diagnosis["explained"]` is false, and probabilities
        are NaN.

    Raises:
        InputError: when shapes disagree, a score is out of range, or nothing is rated.
    """
    scores = check_arrays(scores, indices, distances, classes)
    groups = None if copy_distance is None else copy_groups(indices, distances, copy_distance)
    seen = np.bincount(scores[scores != UNRATED], minlength=classes)
    present = np.flatnonzero(seen)
    compact = np.full(classes + 1, UNRATED, np.int8)  # its last place is for UNRATED
    compact[present] = np.arange(len(present))
    view = Neighborhoods(compact[scores], indices, distances, groups)
    model, start = _fit(view, len(present), neighbors, fit_samples, ordinal, seed)

    found = _posteriors(view, model, present, classes, confidence, keep_evidence)
    margin = float(xlogy(model.q, model.q).sum())  # a class that only copies left out have is no evidence
    explained = len(present) == 1 or model.predictive >= margin + _chance_gain(margin, view, len(present))
    if not explained:
        # Without neighbours that know the truth, T is not identified and a correction is a guess: ratings stay.
        found.flagged[:], found.suggested, found.sure[:], found.error[:] = False, scores.copy(), np.nan, np.nan
    if found.evidence is not None and (not explained or len(present) == 1):  # one rating for all says nothing of any
        found.evidence[:] = np.nan
    result = decide(
        scores,
        found.flagged,
        found.suggested,
        found.sure,
        found.error,
        threshold=confidence,
        fill_missing=fill_missing,
    )
    result.evidence = found.evidence
    T = mixture.transition_of(found.counts + mixture.PSEUDO)
    p = found.counts.sum(1) / found.counts.sum()
    after = (found.after + mixture.PSEUDO) / (found.after + mixture.PSEUDO).sum(1, keepdims=True)
    result.diagnosis = as_json(
        {"mode": "exact", "confidence": confidence, "explained": explained}
        | ({"T_curated": _expand(after, present, classes)} if explained else {})
        | _diagnosis(view, model, start, T, p, present, classes, margin, explained)
        | _intervals(view, model, T, p, fit_samples, ordinal, bootstrap, seed, present, classes)
        | outcome(result, classes)
    )
    return result


@dataclass
class _Posteriors:
    """What the model says of n samples, and of the P classes that occur.

    Attributes:
        flagged: (n,) bool, another class is more probable than the rating.
        suggested: (n,) int8, the most probable class; -1 where nothing is known.
        sure: (n,) float32, its probability.
        error: (n,) float32, probability that the rating is wrong.
        evidence: (n, classes) float32, where it is kept; see `Curated`.
        counts: (P, P) expected samples of each true class (rows) with each rating.
        after: (P, P) the same with the scores that curation gives.
    """

    flagged: NDArray[np.bool_]
    suggested: NDArray[np.int8]
    sure: NDArray[np.float32]
    error: NDArray[np.float32]
    evidence: NDArray[np.float32] | None
    counts: Matrix
    after: Matrix


def _posteriors(
    view: Neighborhoods,
    model: Mixture,
    present: NDArray[np.intp],
    classes: int,
    confidence: float,
    keep_evidence: bool,
) -> _Posteriors:
    n, P = len(view), len(present)
    found = _Posteriors(
        flagged=np.zeros(n, bool),
        suggested=np.full(n, UNRATED, np.int8),
        sure=np.full(n, np.nan, np.float32),
        error=np.full(n, np.nan, np.float32),
        evidence=np.zeros((n, classes), np.float32) if keep_evidence else None,
        counts=np.zeros((P, P)),
        after=np.zeros((P, P)),
    )
    # To a rater that never gives a class, a sample of that class looks like one of the nearest class that it gives.
    nearest = np.abs(np.arange(classes)[:, None] - present).argmin(1)
    enters = np.zeros(n, bool)
    enters[view.rows] = True
    for rows, evidence, informed in model.evidence(view, np.arange(n)):
        joint = evidence + np.log(model.p)[:, None]
        posterior = np.exp(joint - mixture.log_sum(joint))
        own = view.scores[rows]
        rated = own != UNRATED
        right = np.where(rated, posterior[own, np.arange(len(rows))], 0)
        top = posterior.max(0)
        found.flagged[rows] = rated & (top > right)
        best = np.where(rated & (top <= right), own, posterior.argmax(0))
        known = rated | informed
        found.suggested[rows[known]] = present[best[known]]
        found.sure[rows[known]] = top[known]
        found.error[rows[rated]] = 1 - right[rated]
        used = enters[rows]
        found.counts += posterior[:, used] @ np.eye(P)[own[used]]
        chosen = np.where((top > right) & (top >= confidence), best, own)
        found.after += posterior[:, used] @ np.eye(P)[chosen[used]]
        if found.evidence is not None:
            found.evidence[rows] = evidence[nearest].T
    return found


def check_arrays(scores: Ints, indices: Ints, distances: Floats, classes: int) -> NDArray[np.int8]:
    """The scores as int8, after a look at everything.

    Raises:
        InputError: when shapes disagree, a score is out of range, or nothing is rated.
    """
    n = len(scores)
    if indices.ndim != 2 or indices.shape != distances.shape or len(indices) != n or indices.shape[1] < 2:
        raise InputError(
            f"{n} scores, indices of shape {indices.shape} and distances of shape {distances.shape} do not fit",
            allowed="shapes (n,), (n, k) and (n, k) with k of 2 or more",
        )
    if np.asarray(scores).dtype.kind not in "iu":
        raise InputError(f"the scores are {np.asarray(scores).dtype}", allowed="integers, -1 where there is no rating")
    wrong = np.flatnonzero((np.asarray(scores) < UNRATED) | (np.asarray(scores) >= classes))
    if len(wrong):
        raise InputError(
            f"the score of sample {int(wrong[0])} is {scores[wrong[0]]}; {len(wrong)} scores are out of range",
            allowed=f"0..{classes - 1}, or -1 for a sample without a rating",
        )
    if not (np.asarray(scores) != UNRATED).any():
        raise InputError("no sample has a rating", action="rate the pool first; look at the ratings' status and error")
    return np.asarray(scores, np.int8)


def _fit(
    view: Neighborhoods, classes: int, neighbors: int | Literal["auto"], fit_samples: int, ordinal: float, seed: int
) -> tuple[Mixture, transition.Estimate]:
    """The fitted model, and the simpler estimate that it started from."""
    most = view.k if neighbors == "auto" else min(neighbors, view.k)
    bins = Bins(view, view.sample(fit_samples), most)
    start = transition.from_neighbors(view, classes, min(_START_NEIGHBORS, most), seed=seed)
    pseudo = mixture.PSEUDO + ordinal * banded(classes)
    # Most steps are made on few samples; more of them then only polish.
    rough = view.sample(min(_ROUGH_SAMPLES, fit_samples))
    fit = partial(mixture.fit, view, pseudo=pseudo)
    best = fit(rough, mixture.start_from(view, bins, start.T, start.p, most), tolerance=_ROUGH)
    if neighbors == "auto":
        few = view.sample(min(_CHOICE_SAMPLES, fit_samples))
        best = trial = fit(few, best, tolerance=_ROUGH)
        for k in sorted((k for k in _CHOICES if k < most), reverse=True):
            # The parts of the model mean the same for every number of neighbours, so each fit starts from the last.
            trial = fit(few, replace(trial, k=k), tolerance=_ROUGH)
            best = max(best, trial, key=lambda model: model.predictive)
    return fit(view.sample(fit_samples), best), start


def _intervals(
    view: Neighborhoods,
    model: Mixture,
    T: Matrix,
    p: Matrix,
    fit_samples: int,
    ordinal: float,
    resamples: int,
    seed: int,
    present: NDArray[np.intp],
    classes: int,
) -> dict[str, Any]:
    """Bootstrap intervals: samples are drawn again with their whole neighbourhoods, and the model is fitted again.

    On real ratings the likelihood is so flat that a fit hardly ever ends: more steps move it on, whatever the samples.
    So a resample's fit is compared with one of as many steps on the samples themselves, and only their difference
    counts.
    """
    if not resamples:
        return {}
    rng = np.random.default_rng(seed)
    rows = view.sample(fit_samples)
    pseudo = mixture.PSEUDO + ordinal * banded(model.classes)
    again = partial(mixture.fit, view, start=model, pseudo=pseudo, iterations=_REFIT_STEPS, tolerance=0)
    same = again(rows)
    drawn = [again(np.sort(rng.choice(rows, len(rows)))) for _ in range(resamples)]
    borders = [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2]
    low_T, high_T = np.clip(T + np.quantile([each.T - same.T for each in drawn], borders, axis=0), 0, 1)
    low_p, high_p = np.clip(p + np.quantile([each.p - same.p for each in drawn], borders, axis=0), 0, 1)
    return {
        "intervals": {
            "level": _LEVEL,
            "resamples": resamples,
            "T": [_expand(low_T, present, classes), _expand(high_T, present, classes)],
            "p": [_spread(low_p, present, classes), _spread(high_p, present, classes)],
        }
    }


def banded(classes: int) -> Matrix:
    """(K, K) matrix whose rows sum to 1 and fall by half with each step from the diagonal: near scores are confused."""
    steps = np.abs(np.subtract.outer(np.arange(classes), np.arange(classes)))
    rows = 0.5**steps
    shares: Matrix = rows / rows.sum(1, keepdims=True)
    return shares


def _diagnosis(
    view: Neighborhoods,
    model: Mixture,
    start: transition.Estimate,
    T: Matrix,
    p: Matrix,
    present: NDArray[np.intp],
    classes: int,
    margin: float,
    explained: bool,
) -> dict[str, Any]:
    plain = consensus(view, len(present))
    triples = transition.from_triples(plain.c3) if plain.covered else start
    full = Neighborhoods.like(view, np.append(present, UNRATED).astype(np.int8)[view.scores])
    full_T, full_p = _expand(T, present, classes), _spread(p, present, classes)
    found = checks(full, full_T, full_p, renamed=model.renamed or start.renamed)
    if not explained:
        found["warnings"].append(NOTHING_SAID)
    return {
        "k": model.k,
        "neighbor_weight": model.weight,
        "T": full_T,
        "p": full_p,
        "log_likelihood": model.log_likelihood,
        "predictive_log_likelihood": model.predictive,
        "margin_log_likelihood": margin,
        "iterations": model.iterations,
        "T_of_sharing_neighbors": _expand(model.N, present, classes),
        "T_by_consensus": _expand(triples.T, present, classes),
        "p_by_consensus": _spread(triples.p, present, classes),
        "copies_left_out": int((view.scores != UNRATED).sum()) - len(view.rows),
    } | found


def _chance_gain(margin: float, view: Neighborhoods, classes: int) -> float:
    """What a model of T's size gains on ratings that follow nothing, in log-likelihood per rating, about."""
    return 0.01 * abs(margin) + 2 * classes**2 / len(view.rows)


def _expand(matrix: Matrix, present: NDArray[np.intp], classes: int) -> Matrix:
    """A matrix over the classes that occur as one over all; a class that does not occur is rated as itself."""
    full = np.eye(classes)
    full[present, present] = 0
    full[np.ix_(present, present)] = matrix
    return full


def _spread(vector: Matrix, present: NDArray[np.intp], classes: int) -> Matrix:
    full = np.zeros(classes)
    full[present] = vector
    return full
