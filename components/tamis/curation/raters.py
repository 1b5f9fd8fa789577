"""Several raters together: their agreement, an independent check of each T, and one combined score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tamis.curation.classes import UNRATED
from tamis.curation.diagnosis import as_json, outcome
from tamis.curation.mixture import PSEUDO, log_sum
from tamis.curation.naming import name_classes
from tamis.curation.result import Curated, decide
from tamis.curation.transition import Matrix

COMBINED = "combined"
_FEWEST_RATERS = 3  # fewer do not determine their matrices
_BLOCK = 1 << 16  # samples whose posteriors are in memory at a time
_DIFFERENT = 0.1  # mean difference of two estimates of T above which the user is told


def agreement(one: NDArray[np.int8], other: NDArray[np.int8]) -> dict[str, float | int | None]:
    """How far two raters agree on the samples that both rated: share equal, share within one class, correlation."""
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

    It uses no neighbours, so it checks the estimates that rest on them; it takes the raters' errors as independent.

    Args:
        scores: (n, R) score classes, -1 where there is no rating; R of 3 or more.
        classes: number K of score classes.
        iterations: most EM steps.

    Returns:
        T (R, K, K) rows true, p (K,), and whether it settled within `iterations`.
    """
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
        evidence = log_sum(joint)
        likelihood = float(weights @ evidence)
        posterior = np.exp(joint - evidence).T
        if likelihood - before < 1e-10 * abs(likelihood):
            settled = True
            break
        before = likelihood
    order = name_classes(T.mean(0), p)
    return T[:, order], p[order], settled


def compare(results: Mapping[str, Curated], classes: int) -> None:
    """Add to each rater's diagnosis its agreement with the others and, from three raters on, the check of its T."""
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
        difference = float(np.abs(matrix - np.array(diagnosis["T"])).mean())
        diagnosis["check_by_raters"] = as_json({"T": matrix, "p": p, "difference": difference, "settled": settled})
        if difference > _DIFFERENT:
            diagnosis["warnings"].append(
                f"T from the neighbours differs by {difference:.2f} on average from T by the raters' agreement: the "
                "raters share errors, or near samples do not share their true scores"
            )


def combine(results: Mapping[str, Curated], classes: int, *, threshold: float, fill_missing: bool = False) -> Curated:
    """One score from all raters: the posterior given every rater's ratings of each sample and of its neighbours.

    Each rater counts by its own T; given the true score the raters are taken as independent. The raw score is the mean
    of the raters' classes, rounded half up, which is what one would use without curation.

    Args:
        results: each rater's result, with its evidence.
        classes: number K of score classes.
        threshold: confidence from which a flagged score is corrected.
        fill_missing: whether samples that no rater rated get the suggested class.
    """
    raws = np.stack([result.raw for result in results.values()])
    rated = raws != UNRATED
    number = rated.sum(0, dtype=np.int16)
    mean = np.where(rated, raws, 0).sum(0, dtype=np.int16) / np.maximum(number, 1)
    raw = np.where(number > 0, np.floor(mean + 0.5), UNRATED).astype(np.int8)
    informed, heard, known = {}, *np.zeros((2, len(raw)), bool)
    for name, result in results.items():
        told = np.isfinite(_evidence_of(result)[:, 0])
        if told.any():
            informed[name] = result
            heard |= told & (result.raw != UNRATED)
            known |= told & ((result.raw != UNRATED) | (result.suggested != UNRATED))
    if not informed:
        heard = number > 0
    evidence = [_evidence_of(result) for result in informed.values()]
    p = np.mean([result.diagnosis["p"] for result in (informed or results).values()], axis=0) + 1e-6
    for _ in range(50):
        mass = sum(posterior[:, heard[rows]].sum(1) for rows, posterior in _posteriors(evidence, p, len(raw)))
        p = mass / max(1, heard.sum()) + 1e-12
    right, top = np.zeros((2, len(raw)))
    suggested, counts = np.empty_like(raw), np.full((classes, classes), PSEUDO)
    for rows, posterior in _posteriors(evidence, p, len(raw)):
        mine, here = raw[rows], heard[rows]
        right[rows] = np.where(here, posterior[np.maximum(mine, 0), np.arange(len(mine))], 0)
        top[rows], suggested[rows] = posterior.max(0), posterior.argmax(0)
        counts += posterior[:, here] @ np.eye(classes)[mine[here]]
    flagged = heard & (top > right)
    # A rating that only raters of whom nothing is known gave stays as it is.
    stands = (number > 0) & ((top <= right) | ~heard)
    suggested[stands] = raw[stands]
    suggested[~known & (number == 0)] = UNRATED
    sure = np.where(known & ((number == 0) | heard), top, np.nan).astype(np.float32)
    error = np.where(heard, 1 - right, np.nan).astype(np.float32)
    left_out = [
        f"nothing is taken from {name}: its ratings and neighbours say next to nothing"
        for name in results.keys() - informed
    ]
    if not informed:
        flagged[:], suggested, sure[:], error[:] = False, raw.copy(), np.nan, np.nan
    result = decide(raw, flagged, suggested, sure, error, threshold=threshold, fill_missing=fill_missing)
    observed = np.bincount(raw[number > 0], minlength=classes) / max(1, int((number > 0).sum()))
    result.diagnosis = as_json(
        {
            "mode": "exact",
            "confidence": threshold,
            "raters": list(results),
            "T": counts / counts.sum(1, keepdims=True),
            "p": p / p.sum(),
            "observed_prior": observed,
            "explained": bool(informed),
            "warnings": sorted(left_out),
        }
        | outcome(result, classes)
    )
    return result


def _evidence_of(result: Curated) -> NDArray[np.float32]:
    if result.evidence is None:
        raise ValueError("combine needs results that kept their evidence")
    return result.evidence


def _posteriors(
    evidence: Sequence[NDArray[np.float32]], p: NDArray[np.float64], n: int
) -> Iterator[tuple[slice, Matrix]]:
    """Block by block: which of the `n` samples, and their (K, m) posterior from all raters' evidence under `p`."""
    prior = np.log(p / p.sum())[:, None]
    for start in range(0, n, _BLOCK):
        rows = slice(start, min(start + _BLOCK, n))
        joint = np.repeat(prior, rows.stop - start, axis=1)
        for one in evidence:
            joint += np.nan_to_num(one[rows].T)
        yield rows, np.exp(joint - log_sum(joint))
