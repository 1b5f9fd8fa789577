"""Whose batches are whose: runs that ask about the same at the same time send each request once.

An entry of the journal is a claim: it is there before anything is sent, under a number that only one run can take. A
run that finds a request in another one's entry waits for that batch, and takes the entry over when its run is no more.
"""

from __future__ import annotations

import logging
import os
import platform
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from tamis.core.processes import runs
from tamis.llm.backends.journal import Entry, Journal, Owner

log = logging.getLogger(__name__)
_LIVE = set[str]()  # runs of this process


class Claims:
    """One run's view of a journal.

    Args:
        journal: shared by all runs with one store.
        patience: seconds without a change after which an entry of a run on another machine counts as left behind.
    """

    def __init__(self, journal: Journal, patience: float) -> None:
        self._journal, self._patience = journal, patience
        self._me = Owner(machine=_machine(), pid=os.getpid(), run=uuid.uuid4().hex)
        self._read = set[str]()  # names of entries that are known
        self._mine = set[str]()
        self._unchanged: dict[str, tuple[str, float]] = {}  # what an entry said, and since when

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While this run looks after its entries."""
        _LIVE.add(self._me.run)
        try:
            yield
        finally:
            _LIVE.discard(self._me.run)

    def news(self) -> list[Entry]:
        """Entries that were added since the last call, by other runs.

        Raises:
            StorageError: when the journal cannot be read.
        """
        found = self._journal.read(self._read)
        self._read |= {self._journal.place(entry).name for entry in found}
        return found

    def claim(self, entry: Entry) -> bool:
        """Add an entry, unless another run has added one since the last call of `news`."""
        entry.owner = self._me
        if not self._journal.add(entry):
            return False
        self._read.add(self._journal.place(entry).name)
        self._mine.add(entry.token)
        return True

    def adopt(self, entry: Entry) -> None:
        """Look after an entry from now on."""
        entry.owner = self._me
        self._mine.add(entry.token)

    def followed(self, entry: Entry) -> bool:
        """Whether another run looks after an entry; brings the entry up to date.

        Raises:
            StorageError: when it cannot be read.
        """
        if entry.token in self._mine:
            return False
        said = self._journal.refresh(entry).model_dump_json()
        owner = entry.owner
        if owner is None:
            return False
        if owner.machine == self._me.machine:
            alive = owner.run in _LIVE if owner.pid == self._me.pid else runs(owner.pid)
            if not alive:
                return False
        # A process with the same number may be another one by now, and of other machines nothing is known.
        before, since = self._unchanged.get(entry.token, ("", 0.0))
        if said != before:
            since = time.monotonic()
            self._unchanged[entry.token] = said, since
        return time.monotonic() - since < self._patience


def _machine() -> str:
    """This machine, and within it the processes that one can see."""
    try:
        seen = os.readlink("/proc/self/ns/pid")
    except OSError:
        seen = ""
    return f"{platform.node()} {seen}"
