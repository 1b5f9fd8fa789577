"""Comparison of several raters: their agreement, and an independent check of each T."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tamis.curation.classes import UNRATED, within_reach
from tamis.curation.jsonable import as_json
from tamis.curation.naming import name_classes
from tamis.curation.result import Curated
from tamis.curation.transition import Matrix

_FEWEST_RATERS = 3  # fewer do not determine their matrices
_DIFFERENT = 0.1  # mean difference of two estimates of T above which there is a warning


def agreement(one: NDArray[np.int8], other: NDArray[np.int8]) -> dict[str, float | int | None]:
    """The agreement of two raters on samples that both rated: share equal, share within one class, correlation."""
    both = (one != UNRATED) & (other != UNRATED)
    a, b = one[both].astype(np.float64), other[both].astype(np.float64)
    if not len(a):
        return {"samples": 0, "exact": None, "within_one": None, "correlation": None}
    varied = a.std() > 0 and b.std() > 0
    return {
        "samples": len(a),
        "exact": float((a == b).mean()),
        "within_one": float((np.abs(a - b) <= 1).mean()),
        "correlation": float(np.corrcoef(a, b)[0, 1]) if varied else None,
    }


def dawid_skene(
    scores: NDArray[np.int8], classes: int, *, iterations: int = 1000
) -> tuple[NDArray[np.float64], Matrix, bool]:
    """Each rater's T from the raters' ratings of the same samples alone (Dawid and Skene 1979), by EM.

    It does not use neighbours, so it checks the estimates that do; it assumes that the raters' errors are independent.

    Args:
        scores: (n, R) score classes, -1 if there is no rating; R of 3 or more.
        classes: number K of score classes.
        iterations: most EM steps.

    Returns:
        T (R, K, K) rows true, p (K,), and whether it converged within `iterations`.
    """
    from scipy.special import logsumexp

    patterns, often = np.unique(scores, axis=0, return_counts=True)
    weights = often / often.sum()
    given = np.stack([np.eye(classes + 1)[patterns[:, r]][:, :classes] for r in range(patterns.shape[1])])
    posterior = (given.sum(0) + 0.1) / (given.sum(0) + 0.1).sum(1, keepdims=True)  # begin with the raters' votes
    before = -np.inf
    settled = False
    for _ in range(iterations):
        expected = posterior * weights[:, None]
        T = np.einsum("mi,rmc->ric", expected, given) + 1e-9
        T /= T.sum(2, keepdims=True)
        p = expected.sum(0) / expected.sum()
        joint = np.einsum("rmc,ric->im", given, np.log(T)) + np.log(p + 1e-300)[:, None]
        evidence = logsumexp(joint, axis=0)
        likelihood = float(weights @ evidence)
        posterior = np.exp(joint - evidence).T
        if likelihood - before < 1e-10 * abs(likelihood):
            settled = True
            break
        before = likelihood
    order = name_classes(T.mean(0), p)
    return T[:, order], p[order], settled


def compare(results: Mapping[str, Curated], classes: int) -> None:
    """Add to each rater's diagnosis its agreement with the others and, with three raters or more, the check of T."""
    names = list(results)
    for name in names:
        results[name].diagnosis["agreement"] = as_json(
            {
                other: {
                    "raw": agreement(results[name].raw, results[other].raw),
                    "curated": agreement(results[name].score, results[other].score),
                }
                for other in names
                if other != name
            }
        )
    if len(names) < _FEWEST_RATERS:
        return
    scores = np.stack([results[name].raw for name in names], axis=1)
    several = (scores != UNRATED).sum(1) > 1
    if not several.any():
        return
    T, p, settled = dawid_skene(scores[several], classes)
    for name, matrix in zip(names, T, strict=True):
        diagnosis = results[name].diagnosis
        can = np.array(diagnosis["reachable"])
        matrix = within_reach(matrix, can)
        # Ratings say almost nothing about true classes that the scale lacks, so their rows are not compared.
        difference = float(np.abs(matrix - np.array(diagnosis["T"]))[np.ix_(can, can)].mean())
        diagnosis["check_by_raters"] = as_json({"T": matrix, "p": p, "difference": difference, "settled": settled})
        if difference > _DIFFERENT:
            diagnosis["warnings"].append(
                f"T differs by {difference:.2f} on average from a T that is estimated from the raters' agreement "
                "alone: the raters share errors, or this rater's ratings do not determine its T"
            )
