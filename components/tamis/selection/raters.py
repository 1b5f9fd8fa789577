"""Who rated a run's samples, what that has cost so far, and how more ratings are had."""

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

_ROWS = 100_000  # of a table read together
_TOKENS = ("prompt_tokens", "completion_tokens")
_RUN = "tamis run SETTINGS"


@dataclass(frozen=True)
class Rater:
    """Who can be asked, and what that has cost so far.

    Attributes:
        name: the rater.
        imported: its ratings come from a file: nobody is asked.
        rated: samples that it was asked about.
        cost: of these; None where the ratings were made without a price.
        tokens: of prompts and of answers; None where they were not counted.
        also: the files of its setting `also`; None where the artifact does not say.
    """

    name: str
    imported: bool
    rated: int
    cost: float | None
    tokens: tuple[int, int] | None
    also: tuple[str, ...] | None


def read_raters(run: Uri, decides: str, ids: Keys, cache: Path) -> tuple[list[Rater], NDArray[np.bool_]]:
    """Who can be asked, and which of the samples `ids` all of them were asked about: to ask again would not help.

    These are the rater whose scores decide, or for scores of several raters together all of the run's.

    Args:
        run: the run's folder.
        decides: whose scores decide.
        ids: (n,) samples.
        cache: folder for downloads.

    Returns:
        The raters, none where the run has no ratings; and a mask (n,).

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
    """What a sample's rating by all that can be asked costs, on average; None where it is not known."""
    asking = [rater for rater in raters if not rater.imported]
    if not asking or any(rater.cost is None or not rater.rated for rater in asking):
        return None
    return sum((rater.cost or 0) / rater.rated for rater in asking)


def paid_for(budget: float, raters: Sequence[Rater]) -> int:
    """How many samples the money pays for.

    Raises:
        SettingsError: when what a rating costs is not known, or the money pays for none.
    """
    one = cost_of_one(raters)
    if one is None:
        free = [rater.name for rater in raters if rater.cost is None and not rater.imported]
        seen = f"the ratings by {', '.join(free)} were made without `price`" if free else "the run has no ratings"
        raise SettingsError(
            f"--budget {budget:g}: what a rating costs is not known: {seen}",
            action="give --size instead; or set the rater's `price` and run again, its ratings are kept",
        )
    if budget < one:
        raise SettingsError(f"--budget {budget:g} pays for no rating", allowed=f"{one:.6f} or more: what one costs")
    return int(budget / one + 1e-9) if one else sys.maxsize


def told_cost(count: int, raters: Sequence[Rater]) -> str:
    """What the ratings of `count` samples take, by the mean of those that there are; for people."""
    if (one := cost_of_one(raters)) is not None:
        return f"cost: about {count * one:.2f}, at {one:.6f} a sample so far"
    parts = []
    for rater in raters:
        if rater.imported:
            continue
        if rater.cost is not None and rater.rated:
            parts.append(f"about {count * rater.cost / rater.rated:.2f} by '{rater.name}'")
        elif rater.tokens is not None:
            sent, answered = (count * tokens / rater.rated for tokens in rater.tokens)
            parts.append(
                f"about {sent:,.0f} prompt and {answered:,.0f} answer tokens by '{rater.name}', without a price"
            )
        else:
            parts.append(f"not known of '{rater.name}'")
    return f"cost: {'; '.join(parts) or 'not known: the run has no ratings of its own'}"


def told_next(target: Location, raters: Sequence[Rater]) -> str:
    """What to do with the file of ids at `target`, for people."""
    asking = [rater for rater in raters if not rater.imported]
    if raters and not asking:
        return f"next: have them rated, add the ratings to the file that is imported, and run again: {_RUN}"
    if len(asking) == 1 and asking[0].also is not None:
        files = json.dumps([*asking[0].also, str(target)], ensure_ascii=False)
        return f"next: give the rater '{asking[0].name}' beside `sample` also: {files}, and run again: {_RUN}"
    names = ", ".join(f"'{rater.name}'" for rater in asking) or "that they are for"
    return f"next: add the file to `also`, beside `sample`, of the rater {names}, and run again: {_RUN}"
