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
from concurrent.futures import ThreadPoolExecutor
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
_AT_ONCE = 16  # runs whose marks are read at the same time
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


def numbered(cells: Cells, bases: list[Cells], about: Sequence[object], *, uri: str, outcomes: str = "") -> Numbered:
    """Put the number of the next attempt into the settings of every step that has failed in earlier runs.

    Args:
        cells: the groups of an experiment's cells, or all subsets of a run without training.
        bases: groups of the settings of base models' evaluations.
        about: the settings of the steps before the cells, the pool's first. Runs in which they differ share no failures
            of cells, because there all cells are made again; those of another pool share no failures of scores.
        uri: URI of an output of this run.
        outcomes: folder for outcomes; none if empty.
    """
    cells, bases = copy.deepcopy((cells, bases))
    history = _History(place_of(uri, outcomes) if cells else None)  # a local run keeps no failures
    failed = history.failed_with(about)
    for group in cells:
        if "subset" not in group:
            _number([group], [group["name"]], "selection", failed)
        else:
            names = [str(subset["name"]) for subset in group["subset"]]
            for part, made in _MADE.items():
                _number(group.get(part, []), names, made, failed)
    for base in (base for group in bases for base in group):
        _number([base], [str(base.get("name", "base"))], "evaluation", history.failed_with(["base", base]))
    of_pool = history.failed_with(["scores", about[0]])
    scores = Counter({name: count for (name, made), count in of_pool.items() if made == "scores"})
    known = (scores.pop("perplexity", 0), scores.pop("deita", 0), scores.pop("less", 0))
    return Numbered(cells, bases, *known, sum(scores.values()))


def _number(settings: Cells, names: Sequence[str], made: str, failed: Counter[tuple[str, str]]) -> None:
    """Number the attempts at the artifacts `made` of the cells called `names`."""
    for one, name in zip(settings, names, strict=False):
        if count := failed[name, made]:
            log.info("%s of '%s' has failed in %d earlier runs; it is tried again", made, name, count)
            one[ATTEMPT] = count


class _History:
    """The failures of the earlier runs of a pipeline that have left marks where this run, at `place`, can read them."""

    def __init__(self, place: RunPlace | None) -> None:
        self._place = place
        self._of_runs: dict[str, set[tuple[str, str]]] = {}
        if place and not place.folders:
            log.warning("what fails in this run cannot be tried again: there is no folder for its marks (--outcomes)")

    def failed_with(self, settings: object) -> Counter[tuple[str, str]]:
        """In how many runs with these settings each cell has failed at each artifact; this run is noted as one."""
        runs = _earlier(self._place, hash_of(settings)[:32]) if self._place else ()
        with ThreadPoolExecutor(_AT_ONCE) as pool:  # a schedule has hundreds of runs, each a wait for storage
            return Counter(failure for failures in pool.map(self._of, runs) for failure in failures)

    def _of(self, run: RunPlace) -> set[tuple[str, str]]:
        if run.run not in self._of_runs:
            marks = read_marks(run)
            for problem in marks.unread:
                log.warning("failed cells of the run %s may be unknown, and not tried again: %s", run.run, problem)
            # A failure that a run has taken from the cache is only in the mark of its end.
            failures = [*marks.cells, *(marks.finished.failed if marks.finished else ())]
            self._of_runs[run.run] = {(one.cell, one.stage) for one in failures}
        return self._of_runs[run.run]


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
