"""Numbers of attempts, by which Kubeflow tries the failed cells of earlier runs again, and only those.

A failed cell's step ends well for Kubeflow, which keeps the failure in its cache (docs/decisions/0005). A number in the
settings of that step, and of no other, changes its key in the cache and the keys of the steps behind it. The number is
that of the earlier runs in which the cell has failed in that step, so it stays the same once the step has succeeded.
"""

from __future__ import annotations

import copy
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from tamis.cells import ATTEMPT
from tamis.core.errors import TamisError
from tamis.core.marks import read_marks
from tamis.core.run_place import RunPlace, place_of
from tamis.core.settings import hash_of
from tamis.core.storage import Location, names_in, write_bytes

log = logging.getLogger(__name__)
_RUNS = "tamis-runs"  # folder with the runs of equal settings: <hash of the settings>/<run>
_MADE = {"subset": "selection", "finetuning": "model", "evaluation": "evaluation", "judging": "judgement"}
Cells = list[dict[str, Any]]


class Numbered(NamedTuple):
    """What has failed in earlier runs, with the numbers of the next attempts.

    Attributes:
        cells: cells, or subsets, with the numbers in their settings.
        bases: groups of base models, likewise.
        perplexity, deita, influence, others: how often the step that makes these scores has failed.
    """

    cells: Cells
    bases: list[Cells]
    perplexity: int
    deita: int
    influence: int
    others: int


def numbered(cells: Cells, bases: list[Cells], about: object, *, uri: str, outcomes: str = "") -> Numbered:
    """Put the number of the next attempt into the settings of every step that has failed in earlier runs.

    Args:
        cells: the groups of an experiment's cells, or all subsets of a run without training.
        bases: groups of the settings of base models' evaluations.
        about: the settings of the steps before the cells. Runs in which they differ share no failures.
        uri: URI of an output of this run.
        outcomes: folder for outcomes; none if empty.
    """
    cells, bases = copy.deepcopy((cells, bases))
    place = place_of(uri, outcomes) if cells else None  # a local run keeps no failures
    if place and not place.folders:
        log.warning("what fails in this run cannot be tried again: there is no folder for its marks (--outcomes)")
    failed = Counter[tuple[str, str]]()
    for earlier in _earlier(place, hash_of(about)[:32]) if place else ():
        marks = read_marks(earlier)
        for problem in marks.unread:
            log.warning("failed cells of the run %s may be unknown, and not tried again: %s", earlier.run, problem)
        failed.update({(one.cell, one.stage) for one in marks.cells})
    for group in cells:
        if "subset" not in group:
            _number([group], [group["name"]], "selection", failed)
        else:
            names = [str(subset["name"]) for subset in group["subset"]]
            for part, made in _MADE.items():
                _number(group.get(part, []), names, made, failed)
    for models in bases:
        _number(models, [str(base.get("name", "base")) for base in models], "evaluation", failed)
    scores = Counter({name: count for (name, made), count in failed.items() if made == "scores"})
    known = (scores.pop("perplexity", 0), scores.pop("deita", 0), scores.pop("less", 0))
    return Numbered(cells, bases, *known, sum(scores.values()))


def _number(settings: Cells, names: Sequence[str], made: str, failed: Counter[tuple[str, str]]) -> None:
    """Number the attempts at the artifacts `made` of the cells called `names`."""
    for one, name in zip(settings, names, strict=False):
        if count := failed[name, made]:
            log.info("%s of '%s' has failed in %d earlier runs; it is tried again", made, name, count)
            one[ATTEMPT] = count


def _earlier(place: RunPlace, settings: str) -> Iterator[RunPlace]:
    """The places of the earlier runs with equal settings; this run is noted as one of them."""
    beside, outcomes = place.beside, place.outcomes
    # The folder for outcomes has a folder of marks for each run; the pipeline's has them in the folder of each run.
    there = {} if beside is None else _noted(beside.parent.parent, settings, place.run)
    kept = {} if outcomes is None else _noted(outcomes.parent, settings, place.run)
    for run in sorted({*there, *kept} - {place.run}):  # an earlier attempt of this step may have noted this run
        marks = there[run] / beside.name if beside is not None and run in there else None
        yield replace(place, run=run, beside=marks, outcomes=kept.get(run))


def _noted(folder: Location, settings: str, run: str) -> dict[str, Location]:
    """The folders, in `folder`, of the runs that are noted there under these settings; `run` is noted too."""
    noted = folder / _RUNS / settings
    try:
        runs = names_in(noted)
        write_bytes(noted / run, b"")
    except TamisError as error:
        log.warning("failed cells of earlier runs may be unknown, and not tried again: %s", error.problem)
        return {}
    return {earlier: folder / earlier for earlier in runs}
