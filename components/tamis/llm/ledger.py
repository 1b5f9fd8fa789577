"""Notes the money that a run may have spent on answers that were not yet stored when it was killed."""

from __future__ import annotations

import json
import logging
import math
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from tamis.core.errors import StorageError
from tamis.core.storage import Location, children, read_bytes, remove, write_bytes
from tamis.llm.store import PATIENCE, tried_again

log = logging.getLogger(__name__)
_FIELDS = ("may_have_spent_without_a_record", "largest_answer")
_PATIENCE_AT_END = 5.0  # seconds of retries at the end; if they fail, the note is only too large


class Ledger:
    """A note next to a store, written before money is spent. If a run is killed, its note is never too small.

    Each run has its own file. Files left by earlier runs count as spent. A run that ends normally leaves no file,
    unless it paid for answers without a record.

    Args:
        folder: folder of the notes.
        scope: what the money is for, such as the hash of a pool; notes of other scopes are not read.
        step: amount noted at a time; after a kill the note is too large by at most this amount.
        check: raises an error if the folder has been replaced.
        older: folders with notes of earlier versions, which are read but not written.

    `lost` is the sum of the notes, `seen` the cost of the largest answer of those runs.

    Raises:
        StorageError: when the folder, or a note in it, cannot be read.
    """

    def __init__(
        self,
        folder: Location,
        scope: str,
        *,
        step: float,
        check: Callable[[], None] = lambda: None,
        older: Sequence[Location] = (),
    ) -> None:
        self._check = check
        self._place = folder / f"{scope}-{uuid.uuid4().hex}.json"
        self._step = step
        self._granted = self._recorded = 0.0
        self._unrecorded: dict[tuple[str, int], float] = {}  # what answers cost whose record is not yet durable
        self._lock, self._written = threading.Lock(), False
        left = [one for place in (folder, *older) for one in children(place)]
        notes = [one for one in left if one.name.startswith(f"{scope}-") and one.name.endswith(".json")]
        self._largest = 0.0
        earlier = [_read(note) for note in notes]
        self.lost = math.fsum(lost for lost, _ in earlier)
        self.seen = max((largest for _, largest in earlier), default=0.0)

    def cover(self, spent: float, largest: float) -> None:
        """Make sure that the note covers `spent`.

        Args:
            spent: money spent by this run, plus what is set aside.
            largest: cost of the largest answer so far, for the next run.

        Raises:
            StorageError: when the note cannot be written for ten minutes.
        """
        if spent > self._granted:
            self._granted, self._largest = spent + self._step, largest
            self._write(self._granted - self._recorded)

    def paid(self, sample: str, attempt: int, cost: float) -> None:
        """Count an answer without a durable record."""
        with self._lock:
            self._unrecorded[sample, attempt] = cost

    def recorded(self, sample: str, attempt: int) -> None:
        """Note that an answer's record is durable. May be called by another thread."""
        with self._lock:
            self._recorded += self._unrecorded.pop((sample, attempt), 0.0)

    def close(self, paid: float, under_way: float) -> None:
        """Leave a note of the money without a record: for answers, and for requests that are no longer awaited.

        Raises:
            StorageError: when the note cannot be written for ten minutes.
        """
        left = paid - self._recorded + under_way
        try:
            if left > 1e-12 + 1e-9 * paid:
                self._write(left, _PATIENCE_AT_END)
            elif self._written:
                remove(self._place)
        except StorageError as error:  # the earlier note stays; it is only too large
            log.warning("the note of what was spent could not be updated and stays as it is: %s", error)

    def _write(self, amount: float, patience: float = PATIENCE) -> None:
        data = json.dumps(dict(zip(_FIELDS, (amount, self._largest), strict=True))).encode()

        def write() -> None:
            self._check()
            write_bytes(self._place, data)

        tried_again(write, "the note of what may be spent cannot be written", patience if self._written else 0.0)
        self._written = True


def _read(note: Location) -> tuple[float, float]:
    """The money of a note, and its largest answer."""
    try:
        said: Any = json.loads(read_bytes(note))
        amount, largest = (float(said[name]) for name in _FIELDS)
        if 0 <= amount < math.inf and 0 <= largest < math.inf:
            return amount, largest
    except (ValueError, LookupError, TypeError):
        pass
    raise StorageError(
        f"{note} cannot be read; it should say how much money an earlier run may have spent",
        allowed=json.dumps(dict.fromkeys(_FIELDS, "NUMBER")),
        action="delete the file if that money need not count towards max_cost",
        permanent=True,
    )
