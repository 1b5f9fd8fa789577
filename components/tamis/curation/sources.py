"""A separate transition matrix for each source of the pool, since a rater may err differently on code than on chats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tamis.curation.arrays import Arrays, CurateOne
from tamis.curation.classes import UNRATED
from tamis.curation.diagnosis import counts_of, outcome
from tamis.curation.guards import NOT_NEARER
from tamis.curation.held_out import HeldOut
from tamis.curation.jsonable import as_json
from tamis.curation.result import Curated

_OF_SAMPLES = ("score", "flagged", "suggested", "confidence", "error_probability", "raw_error", "mean", "posterior")


def curate(
    curate_one: CurateOne,
    arrays: Arrays,
    sources: Mapping[str, NDArray[np.intp]],
    *,
    classes: int,
    smallest: int,
) -> Curated:
    """Curate every source separately; sources that are too small or too uninformative use the result of all samples.

    Args:
        curate_one: curates some samples.
        arrays: all samples.
        sources: samples of each source.
        classes: number K of score classes.
        smallest: least number of rated samples for which a source is curated separately.

    Returns:
        The result of all samples. Its diagnosis is that of all samples together, with updated counts and, under
        "sources", the findings about each source.
    """
    result = curate_one(arrays)
    warnings, reasons = result.diagnosis["warnings"], result.diagnosis["reasons"]
    graded = _graded(result)
    apart = {}
    for name, rows in sources.items():
        if (arrays.ratings[rows] != UNRATED).any(1).sum() < smallest or len(rows) == len(arrays):
            continue
        alone = curate_one(arrays.alone(rows))
        found = alone.diagnosis
        if found["explained"]:
            _put(result, alone, rows)
            if graded is not None:
                _put_graded(graded, alone.held_out, rows)
            warnings += [f"source {name}: {warning}" for warning in found["warnings"]]
        else:
            warnings.append(
                f"source {name}: its own data cannot show the rater's errors ({'; '.join(found['reasons'])}); it was "
                "curated with the model of all samples"
            )
        apart[name] = {
            "difference": float(np.abs(np.array(found["T"]) - result.diagnosis["T"]).mean()),
            "counts": counts_of(result.of(rows), classes),
            **{key: found[key] for key in ("T", "p", "k", "explained", "own_share")},
        }
    own = [name for name, found in apart.items() if found["explained"]]
    stays = [*reasons, *(warning for warning in warnings if warning == NOT_NEARER)]
    if own and stays:
        kept = [warning for warning in warnings if warning not in stays]
        kept.insert(0, f"only sources whose own data show errors were corrected ({', '.join(own)}): {stays[0]}")
        warnings[:] = kept
    if own and graded is not None:
        assert arrays.grades is not None
        assert result.posterior is not None
        result.held_out = graded
        result.diagnosis["held_out"] = graded.measured(
            arrays.grades, arrays.grade_weights, result.raw, result.score, result.posterior
        )
    result.diagnosis |= as_json(outcome(result, classes) | {"sources": apart})
    return result


def _graded(result: Curated) -> HeldOut | None:
    """A copy of the results for graded samples without their grades, before sources are curated separately."""
    if result.held_out is None:
        return None
    return replace(result.held_out, score=result.held_out.score.copy(), posterior=result.held_out.posterior.copy())


def _put_graded(graded: HeldOut, alone: HeldOut | None, rows: NDArray[np.intp]) -> None:
    if alone is None:
        return
    places = np.searchsorted(graded.graded, rows[alone.graded])
    graded.score[places], graded.posterior[places] = alone.score, alone.posterior


def _put(result: Curated, alone: Curated, rows: NDArray[np.intp]) -> None:
    """Replace the results of the samples `rows` by those of their separate curation."""
    for field in _OF_SAMPLES:
        values, theirs = getattr(result, field), getattr(alone, field)
        if values is not None and theirs is not None:
            values[rows] = theirs[: len(rows)]
