"""The folder for outcomes: how its runs ended, and which have begun and have no end."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from tamis.cluster.outcome import Outcome
from tamis.core.errors import StorageError
from tamis.core.marks import read_started
from tamis.core.storage import Location, locate, names_in, read_bytes

log = logging.getLogger(__name__)
_SUFFIX = ".json"


def read_outcomes(folder: str) -> list[Outcome]:
    """All runs that have left something in `folder`, in the order in which they began.

    A run that has begun and has no outcome has the state UNFINISHED: it still runs, or it was killed before its
    last step, as when its workflow became too large or its node was lost. Other files are left
    out with a warning.

    Args:
        folder: local folder or object-storage prefix, as given to `--outcomes`.

    Raises:
        StorageError: when `folder` is a file, has nothing of a run that can be read, or cannot be read itself.
    """
    place = locate(folder)
    if isinstance(place, Path) and place.is_file():
        raise StorageError(f"{folder} is a file", action="give the folder that contains it", permanent=True)
    names = names_in(place)
    if not names:
        raise StorageError(f"there are no outcomes in {folder}", action="check the path; it is that of --outcomes")
    ended = {outcome.run: outcome for outcome in _ended(place, names)}
    begun = list(_begun(place, [name for name in names if not name.endswith(_SUFFIX) and name not in ended]))
    if not ended and not begun:
        raise StorageError(
            f"{folder} has {len(names)} files and folders, and none of them is a run that can be read",
            action="check the path; it is that of --outcomes",
        )
    return sorted([*ended.values(), *begun], key=lambda outcome: outcome.started or outcome.ended)


def _ended(place: Location, names: list[str]) -> Iterator[Outcome]:
    for name in names:
        if name.endswith(_SUFFIX):
            try:
                yield Outcome.model_validate_json(read_bytes(place / name))
            except ValidationError as error:
                first = error.errors(include_input=False)[0]
                field = ".".join(map(str, first["loc"]))
                seen = f"{field}: {first['msg']}" if field else first["msg"]
                log.warning("%s is left out: it is not an outcome of this version of Tamis: %s", place / name, seen)


def _begun(place: Location, runs: list[str]) -> Iterator[Outcome]:
    for run in runs:
        try:
            started = read_started(place / run)
        except StorageError as error:
            log.warning("%s is left out: it is not the folder of a run (%s)", place / run, error.problem)
            continue
        if started is not None:
            yield Outcome(
                run=started.run,
                name=started.name,
                workflow=started.workflow,
                state="UNFINISHED",
                reason="the run has begun and has no outcome: it still runs, or its last step could not run",
                started=started.at,
            )
