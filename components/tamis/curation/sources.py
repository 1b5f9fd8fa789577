"""Each source of the pool with a transition matrix of its own: a rater may err otherwise on code than on chats."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from tamis.curation.classes import UNRATED
from tamis.curation.diagnosis import as_json, counts_of, outcome
from tamis.curation.exact import NOTHING_SAID
from tamis.curation.neighborhoods import Floats, Ints
from tamis.curation.result import Curated

Curate = Callable[[NDArray[np.int8], Ints, Floats], Curated]
_FAR = 2.0  # cosine distance of what takes the place of another source's samples


def curate(
    curate_one: Curate,
    scores: NDArray[np.int8],
    indices: Ints,
    distances: Floats,
    sources: Mapping[str, NDArray[np.intp]],
    *,
    classes: int,
    smallest: int,
) -> Curated:
    """Curate every source by itself; what is too small, or says nothing by itself, by what all samples say together.

    Args:
        curate_one: curates scores (n,), indices and distances (n, k) of some samples.
        scores, indices, distances: of all samples.
        sources: samples of each source.
        classes: number K of score classes.
        smallest: rated samples from which a source is curated by itself.

    Returns:
        The result of all samples; its diagnosis is that of all, with the counts of what was done and, under "sources",
        what was found of each source by itself.
    """
    result = curate_one(scores, indices, distances)
    warnings = result.diagnosis["warnings"]
    apart = {}
    for name, rows in sources.items():
        if (scores[rows] != UNRATED).sum() < smallest or len(rows) == len(scores):
            continue
        alone = curate_one(*_alone(scores, indices, distances, rows))
        found = alone.diagnosis
        if found["explained"]:
            _put(result, alone, rows)
            warnings += [f"source {name}: {warning}" for warning in found["warnings"]]
        else:
            warnings.append(
                f"source {name}: by themselves its neighbours say next to nothing about its ratings; it was curated "
                "by what all samples say together"
            )
        apart[name] = {
            "difference": float(np.abs(np.array(found["T"]) - result.diagnosis["T"]).mean()),
            "counts": counts_of(result.of(rows), classes),
            **{key: found[key] for key in ("T", "p", "k", "explained")},
        }
    own = [name for name, found in apart.items() if found["explained"]]
    if own and NOTHING_SAID in warnings:
        warnings[warnings.index(NOTHING_SAID)] = (
            "neighbours say next to nothing about the ratings of all samples together: only the sources that say more "
            f"by themselves were corrected ({', '.join(own)})"
        )
    result.diagnosis |= as_json(outcome(result, classes) | {"sources": apart})
    return result


def _put(result: Curated, alone: Curated, rows: NDArray[np.intp]) -> None:
    """Write what was found of the samples `rows` alone over what was found of them among all."""
    for field in ("score", "flagged", "suggested", "confidence", "error_probability", "evidence", "mean", "posterior"):
        values, theirs = getattr(result, field), getattr(alone, field)
        if values is not None and theirs is not None:
            values[rows] = theirs[: len(rows)]


def _alone(
    scores: NDArray[np.int8], indices: Ints, distances: Floats, rows: NDArray[np.intp]
) -> tuple[NDArray[np.int8], Ints, Floats]:
    """The graph of some samples: one more sample, without a rating, takes the place of all others, far away."""
    places = np.full(len(scores), len(rows), np.int32)
    places[rows] = np.arange(len(rows))
    near = places[indices[rows]]
    far = np.where(near == len(rows), np.float32(_FAR), distances[rows])
    order = np.argsort(far, axis=1, kind="stable")
    near, far = np.take_along_axis(near, order, 1), np.take_along_axis(far, order, 1)
    return (
        np.append(scores[rows], np.int8(UNRATED)),
        np.vstack([near, np.zeros((1, near.shape[1]), np.int32)]),
        np.vstack([far, np.full((1, far.shape[1]), _FAR, np.float32)]),
    )
