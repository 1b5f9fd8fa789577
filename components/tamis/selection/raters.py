"""The raters of a run, what their ratings have cost, and how to get more ratings."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact
from tamis.core.errors import SettingsError
from tamis.core.ids import Keys, pack, positions
from tamis.core.steps import Uri
from tamis.core.storage import Location, children, exists, locate
from tamis.core.tables import NOT_ASKED, STATUSES

_ROWS = 100_000  # of a table that are read together
_TOKENS = ("prompt_tokens", "completion_tokens")
_RUN = "tamis run SETTINGS"


@dataclass(frozen=True)
class Rater:
    """A rater of the run, and what its ratings have cost.

    Attributes:
        name: the rater.
        imported: whether its ratings come from a file, so that Tamis cannot get more of them.
        rated: number of samples that it was asked to rate.
        cost: cost of these ratings; None if no price was set.
        tokens: prompt tokens and answer tokens; None if they were not counted.
        also: the files in its setting `also`; None if the artifact does not record it.
    """

    name: str
    imported: bool
    rated: int
    cost: float | None
    tokens: tuple[int, int] | None
    also: tuple[str, ...] | None


def read_raters(run: Uri, decides: str, ids: Keys, cache: Path) -> tuple[list[Rater], NDArray[np.bool_]]:
    """The raters behind the scores, and which of the samples `ids` all of them have been asked to rate already.

    For the scores of one rater that is the rater itself; for combined scores it is every rater of the run.

    Args:
        run: the run's folder.
        decides: the rater whose scores the subset uses.
        ids: (n,) samples.
        cache: folder for downloads.

    Returns:
        The raters, none if the run has no ratings; and a mask (n,) of the samples that asking again would not help.

    Raises:
        ArtifactError: when ratings are not finished.
    """
    folder = locate(f"{str(run).rstrip('/')}/ratings")
    own = folder / decides
    places = [own] if exists(own) else [place for place in children(folder) if not place.name.startswith(".")]
    artifacts = [Artifact.open(str(place), "ratings", cache=cache) for place in places]
    raters = [_rater(artifact) for artifact in artifacts]
    asking = [artifact for artifact, rater in zip(artifacts, raters, strict=True) if not rater.imported]
    asked = np.full(len(ids), bool(asking))
    for artifact in asking:
        for batch in artifact.batches(["id", "status"], rows=_ROWS):
            rest = batch["id"].filter(pc.equal(batch["status"], NOT_ASKED))
            at = positions(pack(rest, where=str(artifact.location)), ids)
            asked[at[at >= 0]] = False
    return raters, asked


def _rater(ratings: Artifact) -> Rater:
    config, facts = ratings.manifest.config, ratings.manifest.facts
    rated = sum(facts.get(status, 0) for status in STATUSES)
    counted = rated and all(name in facts for name in _TOKENS)
    return Rater(
        ratings.name,
        imported=config.get("backend", {}).get("kind") == "import",
        rated=rated,
        cost=facts.get("cost"),
        tokens=(facts[_TOKENS[0]], facts[_TOKENS[1]]) if counted else None,
        also=tuple(config["also"]) if "also" in config else None,
    )


def cost_of_one(raters: Sequence[Rater]) -> float | None:
    """The mean cost of rating one sample with every rater that is not imported; None if it is unknown."""
    asking = [rater for rater in raters if not rater.imported]
    if not asking or any(rater.cost is None or not rater.rated for rater in asking):
        return None
    return sum((rater.cost or 0) / rater.rated for rater in asking)


def paid_for(budget: float, raters: Sequence[Rater]) -> int:
    """The number of samples that the budget pays for.

    Raises:
        SettingsError: when the cost of a rating is unknown, or the budget pays for none.
    """
    one = cost_of_one(raters)
    if one is None:
        free = [rater.name for rater in raters if rater.cost is None and not rater.imported]
        seen = f"the ratings by {', '.join(free)} were made without `price`" if free else "the run has no ratings"
        raise SettingsError(
            f"--budget is {budget:g}, but the cost of a rating is unknown: {seen}",
            action="use --size instead; or set the rater's `price` and run again (its ratings are kept)",
        )
    if budget < one:
        raise SettingsError(f"--budget is {budget:g}, less than one rating costs", allowed=f"at least {one:.6f}")
    return int(budget / one + 1e-9) if one else sys.maxsize


def describe_cost(count: int, raters: Sequence[Rater]) -> str:
    """The expected cost of rating `count` samples, from the mean cost so far, as a line of text."""
    if (one := cost_of_one(raters)) is not None:
        return f"cost: about {count * one:.2f}, based on {one:.6f} per sample so far"
    parts = []
    for rater in raters:
        if rater.imported:
            continue
        if rater.cost is not None and rater.rated:
            parts.append(f"about {count * rater.cost / rater.rated:.2f} for '{rater.name}'")
        elif rater.tokens is not None:
            sent, answered = (count * tokens / rater.rated for tokens in rater.tokens)
            parts.append(
                f"about {sent:,.0f} prompt tokens and {answered:,.0f} answer tokens for '{rater.name}', which has no "
                "price"
            )
        else:
            parts.append(f"unknown for '{rater.name}'")
    return f"cost: {'; '.join(parts) or 'unknown, because the run has no ratings of its own'}"


def describe_next_step(target: Location, raters: Sequence[Rater]) -> str:
    """What to do with the file of ids at `target`, as a line of text."""
    asking = [rater for rater in raters if not rater.imported]
    if raters and not asking:
        return f"next: have these samples rated, add the ratings to the imported file, and run again: {_RUN}"
    if len(asking) == 1 and asking[0].also is not None:
        files = json.dumps([*asking[0].also, str(target)], ensure_ascii=False)
        return f"next: next to `sample` of the rater '{asking[0].name}', set also: {files}, and run again: {_RUN}"
    names = ", ".join(f"'{rater.name}'" for rater in asking) or "that should rate them"
    return f"next: add the file to `also`, next to `sample` of the rater {names}, and run again: {_RUN}"
