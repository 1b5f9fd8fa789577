"""Retries for storage that fails temporarily: full, unreachable, or out of files or memory."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from tamis.core.errors import StorageError
from tamis.llm.store.folder import StoreGoneError

log = logging.getLogger(__name__)
_AGAIN_AFTER, _LONGEST_WAIT = 1.0, 16.0  # seconds between two tries: the first, and the longest
PATIENCE = 600.0  # seconds of retries for storage that has worked before
FAULTS = (StorageError, OSError, MemoryError)
T = TypeVar("T")


class Waits:
    """Waits between tries, doubled each time; `over` is true after `patience` seconds."""

    def __init__(self, patience: float) -> None:
        self._give_up, self._next = time.monotonic() + patience, _AGAIN_AFTER

    @property
    def over(self) -> bool:
        """Whether to stop trying."""
        return time.monotonic() >= self._give_up

    def next(self) -> float:
        """Seconds to wait now."""
        wait, self._next = self._next, min(2 * self._next, _LONGEST_WAIT)
        return wait


def tried_again(do: Callable[[], T], failed: str, patience: float) -> T:
    """Call `do` until it works or patience is over; `failed` describes the failure in the log.

    Raises:
        StoreGoneError: at once.
        StorageError, OSError, MemoryError: of the last try.
    """
    waits = Waits(patience)
    while True:
        try:
            return do()
        except StoreGoneError:
            raise
        except FAULTS as error:
            if waits.over:
                raise
            log.warning("%s, trying again: %s", failed, error or type(error).__name__)
        time.sleep(waits.next())
