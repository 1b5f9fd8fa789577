"""The folder for outcomes: how its runs ended, and which have begun and have no end."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from pydantic import ValidationError

from tamis.cluster.outcome import Outcome
from tamis.core.errors import StorageError
from tamis.core.marks import read_started
from tamis.core.storage import Location, locate, names_in, read_bytes

log = logging.getLogger(__name__)
_SUFFIX = ".json"


def read_outcomes(folder: str) -> list[Outcome]:
    """All runs that have left something in `folder`, in the order in which they began.

    A run that has begun and has no outcome has the state UNFINISHED: it is still going on, or it was killed so hard
    that its last step could not run, as when its workflow became too large or its node was lost. Other files are left
    out with a warning.

    Args:
        folder: local folder or object-storage prefix, as given to `--outcomes`.

    Raises:
        StorageError: when there is nothing in `folder`, or it cannot be read.
    """
    place = locate(folder)
    names = names_in(place)
    if not names:
        raise StorageError(f"there are no outcomes in {folder}", action="check the path; it is that of --outcomes")
    ended = {outcome.run: outcome for outcome in _ended(place, names)}
    begun = _begun(place, [name for name in names if not name.endswith(_SUFFIX) and name not in ended])
    return sorted([*ended.values(), *begun], key=lambda outcome: outcome.started or outcome.ended)


def _ended(place: Location, names: list[str]) -> Iterator[Outcome]:
    for name in names:
        if name.endswith(_SUFFIX):
            try:
                yield Outcome.model_validate_json(read_bytes(place / name))
            except ValidationError:
                log.warning("%s is left out: it is not an outcome that this version of Tamis writes", place / name)


def _begun(place: Location, runs: list[str]) -> Iterator[Outcome]:
    for run in runs:
        try:
            started = read_started(place / run)
        except StorageError as error:
            log.warning("the run %s is left out: %s", run, error.problem)
            continue
        if started is not None:
            yield Outcome(
                run=started.run,
                name=started.name,
                workflow=started.workflow,
                state="UNFINISHED",
                reason="the run has begun and has no outcome: it is still going on, or its last step could not run",
                started=started.at,
            )
