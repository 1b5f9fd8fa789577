"""What a run may have spent that no record shows: for answers that were not yet stored when it was killed."""

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
_PATIENCE_AT_END = 5.0  # seconds that storage is tried when the work has ended; the note is too large at worst


class Ledger:
    """A note beside a store, written before money is spent, so that a kill at any moment leaves it too large at worst.

    Each run has a file of its own; those that its predecessors have left are counted as spent. A run that ends well
    leaves none, unless it paid for answers of which no record is kept.

    Args:
        folder: of the store's notes.
        scope: what the money is for, as the hash of a pool: notes of other scopes are not read.
        step: money that is noted at a time; what a kill makes the note too large by, at most.
        check: raises where the folder is not the one any more that it was.
        older: folders with notes of earlier versions, which are read and not written.

    `lost` is what those notes hold, `seen` what the largest answer of these runs has cost.

    Raises:
        StorageError: when the folder cannot be read, or a note in it.
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
        """Make sure that the note covers `spent`, by this run and with what is set aside.

        Args:
            spent: money.
            largest: what the largest answer so far has cost, for the run that comes after this one.

        Raises:
            StorageError: when it cannot be written for ten minutes.
        """
        if spent > self._granted:
            self._granted, self._largest = spent + self._step, largest
            self._write(self._granted - self._recorded)

    def paid(self, sample: str, attempt: int, cost: float) -> None:
        """An answer has come."""
        with self._lock:
            self._unrecorded[sample, attempt] = cost

    def recorded(self, sample: str, attempt: int) -> None:
        """An answer's record is durable. May be called by another thread."""
        with self._lock:
            self._recorded += self._unrecorded.pop((sample, attempt), 0.0)

    def close(self, paid: float, under_way: float) -> None:
        """Leave what of the money has no record: of answers, and of requests that nobody waits for any more.

        Raises:
            StorageError: when it cannot be written for ten minutes.
        """
        left = paid - self._recorded + under_way
        try:
            if left > 1e-12 + 1e-9 * paid:
                self._write(left, _PATIENCE_AT_END)
            elif self._written:
                remove(self._place)
        except StorageError as error:  # no more than what ended the run; the earlier note is too large at worst
            log.warning("what was spent stays noted as before: %s", error)

    def _write(self, amount: float, patience: float = PATIENCE) -> None:
        data = json.dumps(dict(zip(_FIELDS, (amount, self._largest), strict=True))).encode()

        def write() -> None:
            self._check()
            write_bytes(self._place, data)

        tried_again(write, "what may be spent cannot be noted", patience if self._written else 0.0)
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
        f"{note} does not say how much money an earlier run may have spent",
        allowed=json.dumps(dict.fromkeys(_FIELDS, "NUMBER")),
        action="delete it if that money need not count towards max_cost",
    )
