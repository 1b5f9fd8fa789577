"""The part of a rater's diagnosis that all modes share, as plain JSON values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.curation.classes import UNRATED
from tamis.curation.naming import identifiability
from tamis.curation.neighborhoods import Neighborhoods
from tamis.curation.result import Curated
from tamis.curation.sharing import agreement_by_rank, pair_counts, sharing_by_rank
from tamis.curation.transition import Matrix

_FAR_RANK, _KEPT = 5, 0.9


def checks(view: Neighborhoods, T: Matrix, p: Matrix, *, renamed: bool, reachable: NDArray[np.bool_]) -> dict[str, Any]:
    """Observed prior, clusterability by neighbour rank, identifiability of T, and warnings.

    Args:
        view: graph and ratings, with classes 0..K-1.
        T: (K, K) named transition matrix.
        p: (K,) prior.
        renamed: whether naming changed the order of the classes.
        reachable: (K,) classes for which the scale has ratings.
    """
    observed = np.bincount(view.scores[view.rows], minlength=len(p)) / len(view.rows)
    pairs = pair_counts(view, len(p))
    absent = np.flatnonzero(observed == 0).tolist()
    doubts = identifiability(T, p, len(view.rows), renamed, absent, np.flatnonzero(~reachable).tolist())
    agreement, chance = agreement_by_rank(pairs), float((observed**2).sum())
    warnings = list(doubts.warnings)
    kept = kept_agreement(agreement, chance, len(view.rows))
    if kept is not None and kept < _KEPT:
        warnings.append(
            f"the agreement with the {_FAR_RANK}th neighbour's rating, beyond chance, is only {kept:.0%} of that with "
            "the first: even near samples differ in their true scores, so errors may be overestimated; look at "
            "examples, or raise curation.confidence"
        )
    return {
        "observed_prior": observed,
        "reachable": reachable,
        "clusterability": {
            "agreement_by_rank": agreement,
            "agreement_by_chance": chance,
            "kept_agreement": kept,
            "sharing_by_rank": sharing_by_rank(pairs, T, p, observed),
        },
        "identifiability": {
            "renamed": doubts.renamed,
            "dominant": doubts.dominant,
            "samples": doubts.samples,
            "smallest_singular_value": doubts.smallest_singular_value,
        },
        "warnings": warnings,
    }


def kept_agreement(agreement: Matrix, chance: float, samples: int) -> float | None:
    """Agreement beyond chance at the fifth rank, as a share of that at the first; 1 if neighbours share true scores.

    None if there are too few ranks, or too few samples to distinguish it from 1.
    """
    if len(agreement) < _FAR_RANK or not np.isfinite(agreement[:_FAR_RANK]).all():
        return None
    first, far = agreement[0] - chance, agreement[_FAR_RANK - 1] - chance
    if first - far < 2 / np.sqrt(samples):  # two standard errors of the difference, at most
        return None
    return float(far / first)


def outcome(result: Curated, classes: int) -> dict[str, Any]:
    """Counts of samples and the confusion of raw with curated scores."""
    return {"counts": counts_of(result, classes), "confusion": confusion_of(result, classes)}


def counts_of(result: Curated, classes: int) -> dict[str, Any]:
    """Numbers of samples: rated, unrated, flagged, corrected, filled, and by class before and after."""
    rated = result.raw != UNRATED
    return {
        "rated": int(rated.sum()),
        "unrated": int((~rated).sum()),
        "flagged": int(result.flagged.sum()),
        "corrected": int((rated & (result.score != result.raw)).sum()),
        "filled": int((~rated & (result.score != UNRATED)).sum()),
        "raw_by_class": np.bincount(result.raw[rated], minlength=classes).tolist(),
        "curated_by_class": np.bincount(result.score[result.score != UNRATED], minlength=classes).tolist(),
    }


def confusion_of(result: Curated, classes: int) -> list[list[int]]:
    """(K, K) counts of rated samples: raw score in rows, curated score in columns."""
    rated = result.raw != UNRATED
    keys = result.raw[rated].astype(np.intp) * classes + result.score[rated]
    counts: list[list[int]] = np.bincount(keys, minlength=classes**2).reshape(classes, classes).tolist()
    return counts
