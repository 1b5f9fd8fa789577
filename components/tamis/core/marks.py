"""Marks: small files that the steps of a run on Kubeflow leave for its last step, which writes the run's outcome.

Kubeflow tells the last step little of what happened, and some of that is wrong (docs/decisions/0027). Each mark is one
file that appears whole or not at all. It is written beside the run's artifacts and, if there is one, in the folder for
outcomes; either is enough.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from pydantic import Field, ValidationError

from tamis.core.errors import StorageError, TamisError
from tamis.core.failures import Failure
from tamis.core.run_place import RunPlace
from tamis.core.secrets import shown
from tamis.core.settings import Settings, canonical_json
from tamis.core.storage import Location, exists, names_in, read_bytes, write_bytes

STARTED, FINISHED = "started.json", "finished.json"
_WORDS, _CELL = "words-", "cell-"  # how the names of other marks begin
Mark = TypeVar("Mark", bound=Settings)


def now() -> str:
    """The time in UTC, to the second, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Started(Settings):
    """The run has begun. `name` is its name in Kubeflow, `workflow` that of its Argo workflow; `at` is in ISO 8601."""

    run: str
    name: str = ""
    workflow: str = ""
    at: str = Field(default_factory=now)


class LastWords(Settings):
    """Why an attempt of a step failed.

    `what` is what the step was making, as in "ratings of 'llama'"; empty if the failure has nothing to do with that.
    `attempt` counts from 1. `code` is the error's code; `permanent` says that no further attempt can help.
    """

    step: str
    what: str = ""
    attempt: int = 1
    code: str = "error"
    permanent: bool = False
    words: str
    at: str = Field(default_factory=now)


class CellFailed(Settings):
    """A cell without a result: its name, the stage that failed, and the error's code and text."""

    cell: str
    stage: str
    code: str = "error"
    reason: str

    @classmethod
    def of(cls, failure: Failure) -> CellFailed:
        """The note of a cell's failure, without settings and secrets."""
        return cls(cell=failure.name, stage=failure.stage, code=failure.code, reason=shown(failure.reason))


class Finished(Settings):
    """Every step has run, and the report is written at `report`; `failed` are the cells without a result."""

    report: str
    failed: tuple[CellFailed, ...] = ()
    at: str = Field(default_factory=now)


@dataclass
class Marks:
    """All marks of a run. `read` is the number of folders that could be read, `unread` says what could not."""

    started: Started | None = None
    finished: Finished | None = None
    words: list[LastWords] = field(default_factory=list)
    cells: list[CellFailed] = field(default_factory=list)
    read: int = 0
    unread: list[str] = field(default_factory=list)


def words_name(place: RunPlace) -> str:
    """Name of the mark with the last words of a step. All attempts of one execution have the same."""
    return f"{_WORDS}{place.step}-{place.execution}.json"


def cell_name(place: RunPlace, cell: str) -> str:
    """Name of the mark of a cell that failed in a step, which may make several cells."""
    return f"{_CELL}{place.step}-{place.execution}-{hashlib.sha256(cell.encode()).hexdigest()[:16]}.json"


def leave(place: RunPlace, name: str, mark: Settings) -> dict[Location, TamisError]:
    """Write a mark into every folder of the run; returns the errors of those that refused."""
    refused: dict[Location, TamisError] = {}
    for folder in place.folders:
        try:
            write_bytes(folder / name, canonical_json(mark.model_dump(mode="json")).encode())
        except TamisError as error:
            refused[folder] = error
    return refused


def read_marks(place: RunPlace) -> Marks:
    """Read all marks of a run from all its folders. A folder or mark that cannot be read is named in `unread`."""
    marks, seen = Marks(), set[str]()
    for folder in place.folders:
        try:
            names = names_in(folder)
        except TamisError as error:
            marks.unread.append(error.problem)
            continue
        marks.read += 1
        for name in names:
            if name.endswith(".json") and name not in seen and _take(marks, folder, name):
                seen.add(name)
    marks.words.sort(key=lambda words: words.at)
    marks.cells = unique(marks.cells)
    return marks


def read_words(place: RunPlace) -> LastWords | None:
    """The last words of this execution of a step, from any of its attempts; None if there are none.

    Raises:
        StorageError: when storage refuses, or the mark is damaged.
    """
    files = (folder / words_name(place) for folder in place.folders)
    return next((_read(file, LastWords) for file in files if exists(file)), None)


def read_started(folder: Location) -> Started | None:
    """The mark of a run's start in one of its folders, or None.

    Raises:
        StorageError: when storage refuses, or the mark is damaged.
    """
    return _read(folder / STARTED, Started) if STARTED in names_in(folder) else None


def unique(cells: Sequence[CellFailed]) -> list[CellFailed]:
    """Each failed cell once for each stage, by name: what works on a failed cell's result notes its failure again."""
    return sorted({(cell.cell, cell.stage): cell for cell in cells}.values(), key=lambda cell: (cell.cell, cell.stage))


def _take(marks: Marks, folder: Location, name: str) -> bool:
    """Add the mark `name` to `marks`; returns whether it could be read."""
    try:
        if name == STARTED:
            marks.started = _read(folder / name, Started)
        elif name == FINISHED:
            marks.finished = _read(folder / name, Finished)
        elif name.startswith(_WORDS):
            marks.words.append(_read(folder / name, LastWords))
        elif name.startswith(_CELL):
            marks.cells.append(_read(folder / name, CellFailed))
    except TamisError as error:
        marks.unread.append(error.problem)
        return False
    return True


def _read(file: Location, kind: type[Mark]) -> Mark:
    try:
        return kind.model_validate_json(read_bytes(file))
    except ValidationError:
        raise StorageError(f"{file} is not a mark of this version of Tamis") from None
