"""Numbers of attempts, by which Kubeflow tries the failed cells of earlier runs again, and only those.

A failed cell's step ends well for Kubeflow, which keeps the failure in its cache (docs/decisions/0005). A number in the
settings of that step, and of no other, changes its key in the cache and the keys of the steps behind it. The number is
that of the earlier runs in which the cell has failed in that step with equal settings. So it stays the same once the
step has succeeded, also if other settings have failed in between.
"""

from __future__ import annotations

import copy
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

from tamis.cells import ATTEMPT
from tamis.core.errors import TamisError
from tamis.core.marks import read_marks
from tamis.core.run_place import RunPlace, place_of
from tamis.core.settings import canonical_json, hash_of
from tamis.core.storage import Location, names_in, read_bytes, write_bytes

log = logging.getLogger(__name__)
# Folder with a note of every run, beside those of equal settings: <hash of the settings>/<run>.
_RUNS = "tamis-runs"
_AT_ONCE = 16  # runs whose marks are read at the same time
_MADE = {"subset": "selection", "finetuning": "model", "evaluation": "evaluation", "judging": "judgement"}
Cells = list[dict[str, Any]]
Failed = tuple[str, str]  # a cell's name, and the artifact that could not be made


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
    failed = history.failed_with(about, _hashes(cells))
    for group in cells:
        for part, made in _parts(group):
            _number(part, _names(group), made, failed)
    for base in (base for group in bases for base in group):
        _number([base], [str(base.get("name", "base"))], "evaluation", history.failed_with(["base", base]))
    of_pool = history.failed_with(["scores", about[0]])
    scores = Counter({name: count for (name, made), count in of_pool.items() if made == "scores"})
    known = (scores.pop("perplexity", 0), scores.pop("deita", 0), scores.pop("less", 0))
    return Numbered(cells, bases, *known, sum(scores.values()))


def _names(group: dict[str, Any]) -> list[str]:
    """The names of a group's cells; a subset of a run without training is a group of its own."""
    return [str(subset["name"]) for subset in group.get("subset", [group])]


def _parts(group: dict[str, Any]) -> Iterator[tuple[Cells, str]]:
    """For each step of a group, in order, the cells' settings and the artifact that the step makes."""
    if "subset" not in group:
        yield [group], "selection"
        return
    for part, made in _MADE.items():
        yield group.get(part, []), made


def _hashes(cells: Cells) -> dict[Failed, str]:
    """For each artifact of each cell, a hash of the settings of the cell's steps up to this one."""
    hashes: dict[Failed, str] = {}
    for group in cells:
        before = [""] * len(_names(group))
        for part, made in _parts(group):
            before[: len(part)] = [hash_of([one, settings]) for one, settings in zip(before, part, strict=False)]
            hashes |= {(name, made): one for name, one in zip(_names(group), before, strict=True)}
    return hashes


def _number(settings: Cells, names: Sequence[str], made: str, failed: Counter[Failed]) -> None:
    """Number the attempts at the artifacts `made` of the cells called `names`."""
    for one, name in zip(settings, names, strict=False):
        if count := failed[name, made]:
            log.info("%s of '%s' has failed in %d earlier runs; it is tried again", made, name, count)
            one[ATTEMPT] = count


class _History:
    """The failures of the earlier runs of a pipeline that have left marks where this run, at `place`, can read them."""

    def __init__(self, place: RunPlace | None) -> None:
        self._place = place
        self._of_runs: dict[str, set[Failed]] = {}
        if place and not place.folders:
            log.warning("what fails in this run cannot be tried again: there is no folder for its marks (--outcomes)")

    def failed_with(self, settings: object, hashes: Mapping[Failed, str] | None = None) -> Counter[Failed]:
        """In how many runs with these settings each cell has failed at each artifact; this run is noted as one.

        With `hashes`, a failure counts only if the run had the same hash for it.
        """
        note = {_key(failed): one for failed, one in (hashes or {}).items()}
        runs = _earlier(self._place, hash_of(settings)[:32], note) if self._place else ()

        def counted(run: RunPlace, noted: Location) -> list[Failed]:
            failures = self._of(run)
            if hashes is None or not failures:
                return list(failures)
            there = _read(noted)
            return [one for one in failures if _key(one) in note and there.get(_key(one)) == note[_key(one)]]

        with ThreadPoolExecutor(_AT_ONCE) as pool:  # a schedule has hundreds of runs, each a wait for storage
            return Counter(failure for found in pool.map(lambda run: counted(*run), runs) for failure in found)

    def _of(self, run: RunPlace) -> set[Failed]:
        if run.run not in self._of_runs:
            marks = read_marks(run)
            for problem in marks.unread:
                log.warning("failed cells of the run %s may be unknown, and not tried again: %s", run.run, problem)
            # A failure that a run has taken from the cache is only in the mark of its end.
            failures = [*marks.cells, *(marks.finished.failed if marks.finished else ())]
            self._of_runs[run.run] = {(one.cell, one.stage) for one in failures}
        return self._of_runs[run.run]


def _earlier(place: RunPlace, settings: str, note: Mapping[str, str]) -> Iterator[tuple[RunPlace, Location]]:
    """The places of the earlier runs with equal settings, and their notes; this run is noted as one of them."""
    beside, outcomes = place.beside, place.outcomes
    # The folder for outcomes has a folder of marks for each run; the pipeline's has them in the folder of each run.
    there = {} if beside is None else _noted(beside.parent.parent, settings, place.run, note)
    kept = {} if outcomes is None else _noted(outcomes.parent, settings, place.run, note)
    for run in sorted({*there, *kept} - {place.run}):  # an earlier attempt of this step may have noted this run
        marks = there[run][0] / beside.name if beside is not None and run in there else None
        outcome = kept[run][0] if run in kept else None
        yield replace(place, run=run, beside=marks, outcomes=outcome), (there.get(run) or kept[run])[1]


def _noted(folder: Location, settings: str, run: str, note: Mapping[str, str]) -> dict[str, tuple[Location, Location]]:
    """The folder and the note, in `folder`, of each run that is noted there under these settings; `run` is too."""
    noted = folder / _RUNS / settings
    try:
        runs = names_in(noted)
        write_bytes(noted / run, canonical_json(note).encode())
    except TamisError as error:
        log.warning("failed cells of earlier runs may be unknown, and not tried again: %s", error.problem)
        return {}
    return {earlier: (folder / earlier, noted / earlier) for earlier in runs}


def _read(note: Location) -> dict[str, str]:
    try:
        there: dict[str, str] = json.loads(read_bytes(note))
        return there
    except (TamisError, ValueError) as error:
        log.warning("failed cells of an earlier run may be unknown, and not tried again: %s", error)
        return {}


def _key(failed: Failed) -> str:
    return "/".join(failed)
