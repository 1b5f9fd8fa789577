"""The diagnosis of `exact` mode: the findings, their uncertainty, what they depend on, and what would help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.core.ranks import correlation, ranked
from tamis.curation import joint, transition
from tamis.curation.bins import symbols_of
from tamis.curation.calibration import FEW_GRADES
from tamis.curation.choice import chosen
from tamis.curation.classes import UNRATED, reachable_mean, within_reach
from tamis.curation.consensus import consensus
from tamis.curation.diagnosis import checks, outcome
from tamis.curation.fitting import Fitted
from tamis.curation.joint import Point
from tamis.curation.jsonable import as_json
from tamis.curation.known import Known
from tamis.curation.rater_model import Matrix
from tamis.curation.regression import Regression
from tamis.curation.result import Curated

ADD_A_RATER = "add a rater of another family, and set curation.combine"
_LEVEL, _DRAWS = 0.95, 400  # of intervals
_LOOKED_AT = 5_000  # most samples used to estimate the sensitivity


@dataclass(frozen=True)
class Findings:
    """The model's findings; `model.curate` makes them.

    Attributes:
        known: the input.
        fitted: the joint model.
        regression: the regression on the embedding.
        reasons: why nothing was corrected.
        assume: the assumption, as in the settings.
        notes: further decisions, as sentences.
        held_out: estimates from held-out grades.
        reachable: (R, K) classes for which each rater's scale has ratings.
    """

    known: Known
    fitted: Fitted
    regression: Regression | None
    reasons: list[str]
    assume: str
    notes: list[str]
    held_out: dict[str, Any] | None
    reachable: NDArray[np.bool_]


def diagnosis_of(found: Findings, result: Curated, classes: int) -> dict[str, Any]:
    """The diagnosis as JSON values; the README lists its fields."""
    raters, explained = found.known.raters, not found.reasons
    kept = found.fitted.kept
    matrices = [np.sum([point.weight * point.T[r] for point in kept], axis=0) for r in range(raters)]
    present = np.bincount(found.known.view.scores[found.known.view.rows], minlength=classes) > 0
    rows, z = found.fitted.rows, found.fitted.z
    posterior = joint.posterior(found.fitted.kept, z, found.known.ratings[rows], found.known.grades[rows])
    T = np.array(matrices[0]) if raters == 1 else _confusion(posterior, found.known.view.scores[rows], classes)
    p = posterior.mean(0)
    p = np.where(p < 1e-6, 0.0, p)
    p /= p.sum()
    for absent in np.flatnonzero(~present & (p == 0)):  # nothing is known about it: assume that it is rated correctly
        T[absent] = np.eye(classes)[absent]
    together = reachable_mean(list(found.reachable))
    T = within_reach(T, together)
    matrices = [within_reach(matrix, one) for matrix, one in zip(matrices, found.reachable, strict=True)]
    checked = checks(found.known.view, T, p, renamed=False, reachable=together)
    warnings = [*found.reasons, *found.notes, *checked.pop("warnings")]
    plain = consensus(found.known.view, classes)
    triples = transition.from_triples(plain.c3) if plain.covered else None
    near = found.known.near
    parts: dict[str, Any] = {
        "mode": "exact",
        "assume": found.assume,
        "explained": explained,
        "reasons": found.reasons,
        "advice": _advice(found, explained),
        "own_share": found.fitted.own_share(near.prior),
        "own_share_interval": _interval(found.fitted.kept, near.prior),
        "shared_errors": None if raters == 1 else _shared(found.fitted.kept, p),
        "sensitivity": _sensitivity(found, classes),
        "k": near.k,
        "weights": {
            "neighbors": near.weight,
            "regression": None if near.centers is None else near.regression_weight,
            "probabilities": found.fitted.calibration.power,
        },
        "regression": _regression(found.regression),
        "predictive_log_likelihood": near.predictive,
        "margin_log_likelihood": float((near.margin * np.log(np.maximum(near.margin, 1e-12))).sum()),
        "gain": near.gain,
        "gain_standard_error": near.gain_error,
        "iterations": near.iterations,
        "T": T,
        "p": p,
        "T_of_neighborhoods": sum(point.weight * point.G for point in found.fitted.kept),
        "T_by_consensus": None if triples is None else within_reach(triples.T, together),
        "p_by_consensus": None if triples is None else triples.p,
        "copies_left_out": int((found.known.view.scores != UNRATED).sum()) - len(found.known.view.rows),
        "predicted": _predicted(found),
        "graded": len(found.known.graded),
        "held_out": found.held_out,
    }
    if raters == 1:
        parts["intervals"] = _intervals(found.fitted.kept, together)
    else:
        parts["T_by_rater"] = matrices
        parts["T_shared"] = sum(point.weight * point.S for point in found.fitted.kept)
    if explained:
        parts["T_curated"] = _confusion(posterior, result.score[rows], classes)
    return as_json(parts | checked | {"warnings": warnings} | outcome(result, classes))  # type: ignore[no-any-return]


def _regression(found: Regression | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {"explained_variance": found.explained_variance, "penalty": found.penalty, "effects": found.effects}


def _confusion(posterior: Matrix, scores: NDArray[np.int8], classes: int) -> Matrix:
    """(K, K) distribution of scores for each true class, by the posterior: true classes in rows."""
    known = scores != UNRATED
    counts = posterior[known].T @ np.eye(classes)[scores[known]] + 1e-6 * np.eye(classes)
    shares: Matrix = counts / counts.sum(1, keepdims=True)
    return shares


def _interval(points: Sequence[Point], prior: Matrix) -> list[float]:
    """The range with 95 % of the weight; each grid point represents half a step to either side."""
    ordered = sorted((point.own_share_of(prior), point.weight) for point in points)
    shares, weights = np.array([share for share, _ in ordered]), np.cumsum([weight for _, weight in ordered])
    low = shares[np.searchsorted(weights, (1 - _LEVEL) / 2)]
    high = shares[min(int(np.searchsorted(weights, (1 + _LEVEL) / 2)), len(shares) - 1)]
    return [max(0.0, float(low) - 0.05), min(1.0, float(high) + 0.05)]


def _shared(points: Sequence[Point], p: Matrix) -> float:
    return sum(point.weight * float(p @ (1 - np.diag(point.S))) for point in points)


def _sensitivity(found: Findings, classes: int) -> list[dict[str, Any]]:
    """The results at each share of samples with a class of their own."""
    rated = np.flatnonzero(found.known.view.scores[found.fitted.rows] != UNRATED)
    some = rated[np.linspace(0, len(rated) - 1, min(len(rated), _LOOKED_AT)).astype(np.intp)]
    rows = found.fitted.rows[some]
    patterns, places = symbols_of(found.known.ratings[rows])
    raw = found.known.view.scores[rows].astype(np.intp)
    every = float((found.known.view.scores != UNRATED).sum()) / len(rows)
    here, steps = np.arange(len(rows)), np.arange(classes)
    distance = np.abs(np.subtract.outer(steps, steps)).astype(np.float64)
    table = []
    for share in sorted({point.own_share for point in found.fitted.points}):
        alike = [point for point in found.fitted.points if point.own_share == share]
        weight = sum(point.weight for point in alike)
        best = max(alike, key=lambda point: point.evidence)
        seen = best.posterior(found.fitted.z[some], patterns, places, np.ones((1, classes)))
        score = chosen(seen, raw.astype(np.int8)).astype(np.intp)
        far = seen @ distance
        table.append(
            {
                "own_share": share,
                "plausibility": weight,
                "corrected": round(float((score != raw).sum()) * every),
                "expected_right_raw": float(seen[here, raw].mean()),
                "expected_right": float(seen[here, score].mean()),
                "expected_error_raw": float(far[here, raw].mean()),
                "expected_error": float(far[here, score].mean()),
            }
        )
    return table


def _predicted(found: Findings) -> dict[str, Any]:
    """How well the surroundings alone predict the held-out ratings of rated samples."""
    own = found.known.view.scores[found.fitted.rows]
    rated = own != UNRATED
    expected = found.fitted.z[rated] @ found.known.near.own @ np.arange(len(found.known.near.prior))
    seen = own[rated].astype(np.float64)
    varied = len(seen) > 2 and np.ptp(seen) > 0 and np.ptp(expected) > 1e-9
    return {
        "rated": int((found.known.view.scores != UNRATED).sum()),
        "unrated": int((found.known.view.scores == UNRATED).sum()),
        "held_out_correlation": correlation(ranked(expected), ranked(seen)) if varied else None,
        "held_out_error": float(np.abs(expected - seen).mean()) if len(seen) else None,
    }


def _intervals(points: Sequence[Point], reachable: NDArray[np.bool_]) -> dict[str, Any]:
    """95 % intervals of T under the model; wider if several grid points have weight."""
    rng = np.random.default_rng(0)
    draws = []
    for point in points:
        number = max(2, round(_DRAWS * point.weight))
        gammas = rng.standard_gamma(np.maximum(point.T_counts[0], 1e-3), (number, *point.T_counts[0].shape))
        gammas = np.where(reachable, gammas, 0.0)  # a Dirichlet of the ratings that can be given
        draws.append(gammas / gammas.sum(2, keepdims=True))
    low, high = np.quantile(np.concatenate(draws), [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2], axis=0)
    return {"level": _LEVEL, "draws": sum(len(some) for some in draws), "T": [low, high]}


def _advice(found: Findings, explained: bool) -> list[str]:
    """What would decide open questions."""
    raters, graded = found.known.raters, len(found.known.graded)
    advice = []
    if graded < FEW_GRADES and (raters == 1 or not explained):
        advice.append(
            "grade 100 samples: `tamis grade next RUN --size 100` chooses them, and `curation.grades` reads the grades"
        )
    if raters == 1:
        advice.append(ADD_A_RATER)
    elif graded < FEW_GRADES:
        advice.append(
            "grade 100 samples (`tamis grade next RUN --size 100`): only grades show errors that all raters share"
        )
    if not found.known.informative:
        advice.append("try another embedding model, or rate more samples")
    return list(dict.fromkeys(advice))
