"""Ratings artifacts, checked and aligned with the neighbour graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError, SettingsError
from tamis.core.ids import Keys, pack, positions, repeated, unpack
from tamis.core.settings import hash_of
from tamis.core.tables import NOT_ASKED, POSSIBLE
from tamis.curation.classes import Reachable, reachable_of, to_classes
from tamis.curation.settings import COMBINED, CurationSettings

_ROWS = 100_000  # rows read together


@dataclass(frozen=True)
class Ratings:
    """One rater's scores in the graph's order.

    Attributes:
        rater: the rater's name.
        scores: (n,) int8 score classes, -1 if there is no rating.
        unknown: number of ratings of samples that the graph lacks.
        not_asked: number of samples outside the part of the pool that the rater was asked to rate.
        reachable: (K,) classes for which the rater's scale has ratings.
    """

    rater: str
    scores: NDArray[np.int8]
    unknown: int
    not_asked: int
    reachable: Reachable


def read_ratings(artifact: Artifact, ids: Keys, settings: CurationSettings) -> Ratings:
    """The scores of one ratings artifact for the samples `ids` (n,).

    Raises:
        InputError: when an id is rated twice, a rating is outside 1..10, or no row has the value.
    """
    rater, parts, numbers, not_asked = artifact.name, [np.empty(0, "S16")], [np.empty(0)], 0
    for batch in artifact.batches(["id", "rater", "status", settings.value], rows=_ROWS):
        rater = rater or batch["rater"][0].as_py()
        parts.append(pack(batch["id"], where=f"{artifact.location}"))
        column = batch[settings.value]
        not_asked += int(pc.sum(pc.equal(batch["status"], NOT_ASKED)).as_py() or 0)
        usable = pc.if_else(pc.equal(batch["status"], "ok"), column, pa.scalar(None, column.type))
        numbers.append(usable.to_numpy(zero_copy_only=False).astype(np.float64))
    keys, values = np.concatenate(parts), np.concatenate(numbers)
    _refuse_repeats(keys, rater)
    if np.isnan(values).all():
        raise InputError(
            f"the rater '{rater}' has no sample with a value in '{settings.value}'",
            action="see the ratings' status and error" if settings.value == "overall" else "use value: overall",
        )
    _refuse_values(keys, values, rater, settings.value)
    places = positions(ids, keys)
    aligned = np.where(places >= 0, values[places], np.nan)
    scores = to_classes(aligned, lowest=settings.lowest, highest=settings.highest)
    # A mean under token probabilities can be any number.
    possible = artifact.manifest.facts.get(POSSIBLE) if settings.value == "overall" else None
    reachable = reachable_of(possible, scores, lowest=settings.lowest, highest=settings.highest)
    return Ratings(rater, scores, len(keys) - int((places >= 0).sum()), not_asked, reachable)


def read_all(artifacts: list[Artifact], ids: Keys, settings: CurationSettings) -> list[Ratings]:
    """The scores of every ratings artifact, in the order given.

    Raises:
        InputError: when there is none, two are by the same rater, or one of them is unusable.
        SettingsError: when two raters share their answers, because they have the same model, prompt and sampling.
    """
    if not artifacts:
        raise InputError("no ratings were given", action="give the ratings of at least one rater")
    found = [read_ratings(artifact, ids, settings) for artifact in artifacts]
    names = [ratings.rater for ratings in found]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"{names.count(name)} of the given ratings are by the rater '{name}'",
                action="give each rater's ratings once, or give the raters different names in their settings",
            )
    _refuse_same_answers(artifacts)
    if settings.combine and (len(names) < 2 or COMBINED in names):
        raise InputError(
            f"combine: the ratings are by {', '.join(names)}",
            allowed=f"two raters or more, none of them named '{COMBINED}'",
            action="give the ratings of more raters, or omit combine",
        )
    return found


def _refuse_same_answers(artifacts: list[Artifact]) -> None:
    """Refuse raters that differ only in their names: they share answers, which would look like perfect agreement."""
    seen: dict[str, str] = {}
    for artifact in artifacts:
        facts, config = artifact.manifest.facts, artifact.manifest.config
        if not {"prompt", "backend"} <= set(facts) or "temperature" not in config:
            continue  # imported, or put together of shards
        drawn = ("seed", "top_p", "top_k") if config["temperature"] > 0 else ()
        asked = [config.get(name) for name in ("temperature", "store", *drawn)]
        address = None if config.get("store") else config.get("backend", {}).get("base_url")
        other = seen.setdefault(hash_of([facts["prompt"]["hash"], facts["backend"], asked, address]), artifact.name)
        if other != artifact.name:
            raise SettingsError(
                f"the raters '{other}' and '{artifact.name}' have the same answers, because their model, prompt and "
                "sampling are the same; for curation this would be perfect agreement",
                action="omit one of them, or use another model or prompt, or a temperature above 0 with another seed",
            )


def _refuse_repeats(keys: Keys, rater: str) -> None:
    again = repeated(keys)
    if len(again):
        first = keys[again[0]]
        raise InputError(
            f"the rater '{rater}' rated sample {_name(first)} {int((keys == first).sum())} times; "
            f"{len(np.unique(keys[again]))} samples are rated more than once",
            allowed="one rating for each sample",
            action="keep one row for each sample",
        )


def _refuse_values(keys: Keys, values: NDArray[np.float64], rater: str, column: str) -> None:
    bad = np.flatnonzero((values < 1) | (values > 10))
    if len(bad):
        first = int(bad[0])
        raise InputError(
            f"the rater '{rater}' gave sample {_name(keys[first])} the value {values[first]:g} in '{column}'; "
            f"{len(bad)} values are out of range",
            allowed="1..10, or null if there is no rating",
            action="correct the ratings, or set their status to 'unparsable' and the value to null",
        )


def _name(key: bytes) -> str:
    return str(unpack(np.array([key], "S16"))[0])
