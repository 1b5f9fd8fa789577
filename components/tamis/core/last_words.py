"""The reason of a failed step: kept for Kubernetes, for `tamis run`, and for the outcome of a run on Kubeflow.

None of these functions raises an error: the step has failed already, or has done its work. What cannot be kept for the
outcome is only logged.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from tamis.core.errors import TamisError
from tamis.core.failures import Failure
from tamis.core.marks import CellFailed, LastWords, cell_name, leave, read_words, words_name
from tamis.core.run_place import RunPlace, attempt, place_of
from tamis.core.secrets import shown
from tamis.core.storage import exists, remove
from tamis.core.texts import cut_to_bytes

log = logging.getLogger(__name__)
REASON_FILE = "TAMIS_REASON_FILE"  # environment variable: where the reason goes; Kubernetes' own place if not set
_KEPT = 4_000  # bytes; of a longer file Kubernetes keeps the last 4,096 bytes
_LONGEST = 8_000  # bytes of a mark


def leave_reason(reason: str, *, uri: str = "", what: str = "", code: str = "error", permanent: bool = False) -> None:
    """Write why this attempt of a step fails. Secrets are masked.

    Args:
        reason: the text. In the run's outcome it takes the place of the reason of an earlier attempt.
        uri: of the step's output, which tells the run; if empty, the run's outcome does not get the reason.
        what: what the step was making, as in "ratings of 'llama'".
        code: the error's code.
        permanent: whether no further attempt can help.
    """
    reason, file = shown(reason), Path(os.environ.get(REASON_FILE, "/dev/termination-log"))
    if file.exists() and os.access(file, os.W_OK):
        file.write_bytes(cut_to_bytes(reason, _KEPT).encode())
    if (place := place_of(uri)) is None:
        return
    words = cut_to_bytes(reason, _LONGEST)
    mark = LastWords(step=place.step, what=what, attempt=attempt(), code=code, permanent=permanent, words=words)
    for error in leave(place, words_name(place), mark).values():
        log.warning("the reason could not be kept for the run's outcome: %s", error.problem)


def ended_for_good(uri: str) -> LastWords | None:
    """The last words of an earlier attempt of this step, if they say that no further attempt can help; else None.

    `uri` is that of the step's output. Where the marks cannot be read, the step is attempted once more.
    """
    if attempt() == 1 or (place := place_of(uri)) is None:
        return None
    try:
        words = read_words(place)
    except TamisError as error:
        log.warning("what an earlier attempt left cannot be read: %s", error.problem)
        return None
    return words if words is not None and words.permanent and words.attempt < attempt() else None


def withdraw_reason(uri: str) -> None:
    """Remove the reason of an earlier attempt from the run's outcome, when an attempt of the step succeeds."""
    if attempt() > 1 and (place := place_of(uri)) is not None:
        _withdraw(place, words_name(place))


def withdraw_cell(name: str, uri: str) -> None:
    """Remove the note that the cell `name` failed in an earlier attempt of its pod, which other cells share.

    Otherwise the run's outcome would name it, and the next run would make it again.
    """
    if attempt() > 1 and (place := place_of(uri)) is not None:
        _withdraw(place, cell_name(place, name))


def _withdraw(place: RunPlace, mark: str) -> None:
    for folder in place.folders:
        try:
            if exists(file := folder / mark):
                remove(file)
        except TamisError as error:
            log.warning("the reason of an earlier attempt stays in the run's outcome: %s", error.problem)


def leave_cell(failure: Failure, uri: str) -> None:
    """Note the failure of a cell, whose output has the URI `uri`, for a run that ends before its report."""
    if (place := place_of(uri)) is None:
        return
    for error in leave(place, cell_name(place, failure.name), CellFailed.of(failure)).values():
        log.warning("the failed cell could not be noted for the run's outcome: %s", error.problem)
