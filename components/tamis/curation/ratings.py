"""Ratings artifacts, checked and brought into the order of the neighbour graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError
from tamis.curation.classes import to_classes
from tamis.curation.raters import COMBINED
from tamis.curation.settings import CurationSettings


@dataclass(frozen=True)
class Ratings:
    """One rater's scores in the graph's order.

    Attributes:
        rater: the rater's name.
        scores: (n,) int8 score classes, -1 where there is no rating.
        unknown: ratings of samples that the graph does not have.
    """

    rater: str
    scores: NDArray[np.int8]
    unknown: int


def read_ratings(artifact: Artifact, ids: pa.Array, settings: CurationSettings) -> Ratings:
    """The scores of one ratings artifact for the samples `ids`.

    Raises:
        InputError: when an id is rated twice, a rating is outside 1..10, or the wanted value is in no row.
    """
    table = artifact.table(["id", "rater", "status", settings.value])
    rater = artifact.name or (table["rater"][0].as_py() if table.num_rows else "")
    keys, values = table["id"].combine_chunks(), table[settings.value].combine_chunks()
    _refuse_repeats(keys, rater)
    ok = pc.equal(table["status"].combine_chunks(), "ok")
    values = pc.if_else(ok, values, pa.scalar(None, values.type))
    if values.null_count == len(values):
        raise InputError(
            f"the rater '{rater}' has no sample with a value in '{settings.value}'",
            action="look at the ratings' status and error" if settings.value == "overall" else "use value: overall",
        )
    _refuse_values(keys, values, rater, settings.value)
    place = pc.index_in(ids, value_set=keys)
    aligned = values.take(place).to_numpy(zero_copy_only=False).astype(np.float64)
    unknown = len(keys) - (len(place) - place.null_count)
    return Ratings(rater, to_classes(aligned, lowest=settings.lowest, highest=settings.highest), unknown)


def read_all(artifacts: list[Artifact], ids: pa.Array, settings: CurationSettings) -> list[Ratings]:
    """The scores of every ratings artifact, in the order given.

    Raises:
        InputError: when there is none, two are of one rater, or one of them is unusable.
    """
    if not artifacts:
        raise InputError("no ratings were given", action="give the ratings of one rater or more")
    found = [read_ratings(artifact, ids, settings) for artifact in artifacts]
    names = [ratings.rater for ratings in found]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"{names.count(name)} of the given ratings are by the rater '{name}'",
                action="give each rater's ratings once, or name the raters apart in their settings",
            )
    if settings.combine and (len(names) < 2 or COMBINED in names):
        raise InputError(
            f"combine: the ratings are by {', '.join(names)}",
            allowed=f"two raters or more, none of them named '{COMBINED}'",
            action="give more raters' ratings, or leave combine out",
        )
    return found


def _refuse_repeats(keys: pa.Array, rater: str) -> None:
    counts = pc.value_counts(keys)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        first = repeated[0].as_py()
        raise InputError(
            f"the rater '{rater}' rated sample {first['values']} {first['counts']} times; {len(repeated)} samples are "
            "rated more than once",
            allowed="one rating for each sample",
            action="keep one row of each",
        )


def _refuse_values(keys: pa.Array, values: pa.Array, rater: str, column: str) -> None:
    wrong = pc.fill_null(pc.invert(pc.and_(pc.greater_equal(values, 1), pc.less_equal(values, 10))), False)
    bad = np.flatnonzero(wrong.to_numpy(zero_copy_only=False))
    if len(bad):
        first = int(bad[0])
        raise InputError(
            f"the rater '{rater}' gave sample {keys[first]} the value {values[first]} in '{column}'; "
            f"{len(bad)} values are out of range",
            allowed="1..10, or null where there is no rating",
            action="correct the ratings, or set their status to 'unparsable' and the value to null",
        )
