"""Writing to a store as answers come, and what becomes of them where it cannot be written."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Generic

from tamis.core.errors import StorageError
from tamis.llm.store.folder import Store, StoreGoneError
from tamis.llm.store.records import R
from tamis.llm.store.waits import FAULTS, PATIENCE, Waits

log = logging.getLogger(__name__)
_AT_END = 5.0  # seconds that writing is tried for when the work is being ended; a pod that is evicted has 30
_SHORTEST = 0.5  # seconds that records are gathered for, however slow writing is


class Writer(Generic[R]):
    """Gathers finished records and appends them to a store: for `seconds`, less where writing is slow.

    A thread of its own writes, so that records become durable even while whoever answers is silent for long. Use it as
    a context manager: at its end, by an error too, all that was added is in the store. That thread calls `durable` with
    records once they are.

    A store that could be written to and then fails, whatever the reason, is tried again for `patience` seconds.
    Meanwhile records are held back up to `most`; then whoever hands over has to wait, so that little is paid for that
    could be lost. When patience is over, or the store's folder is another one, `failed` says so; records may still be
    added, those of requests that are under way. All that is in hand then goes to the store's spare places at the end.
    """

    def __init__(
        self,
        store: Store[R],
        *,
        seconds: float = 3.0,
        count: int = 1000,
        most: int = 10_000,
        patience: float = PATIENCE,
        durable: Callable[[Sequence[R]], None] = lambda records: None,
    ) -> None:
        self._durable = durable
        self._store, self._seconds, self._count, self._most = store, seconds, count, most
        self._patience, self._written = patience, store.prepared
        self._took = seconds / 4  # what the last writing took; the first one is thought to be slow
        self._waiting: list[R] = []
        self._fault: Exception | None = None
        self._closing, self._end_by = False, math.inf
        self._changed = threading.Condition()
        # Not the thread itself: where a signal ends a `join`, Python 3.11 takes the thread for ended.
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work_and_end, name="store", daemon=True)

    def __enter__(self) -> Writer[R]:
        # Let go of at the end: else a process with too many files open could not write what is in hand anywhere.
        self._reserve = os.open(os.devnull, os.O_RDONLY)
        self._thread.start()
        return self

    def add(self, record: R) -> None:
        """Hand over a finished record; waits while too many are held back."""
        with self._changed:
            self._waiting.append(record)  # first: a signal may end the waiting
            if len(self._waiting) in (1, self._count):
                self._changed.notify_all()
            self._changed.wait_for(lambda: len(self._waiting) < self._most or self._fault is not None)

    def failed(self) -> bool:
        """Whether the store is given up, so that nothing more is to be asked."""
        return self._fault is not None

    def _work_and_end(self) -> None:
        try:
            self._work()
        finally:
            self._ended.set()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                wait = max(self._seconds - 2 * self._took, min(self._seconds, _SHORTEST))
                self._changed.wait_for(lambda: len(self._waiting) >= self._count or self._closing, wait)
                batch, self._waiting = self._waiting, []
                self._changed.notify_all()
            try:
                if batch:
                    self._append(batch)
            except Exception as error:  # told to the thread that hands over records
                with self._changed:
                    self._fault = error
                    self._waiting[:0] = batch
                    self._changed.notify_all()
                return
            if self._closing and not self._waiting:
                return

    def _append(self, batch: list[R]) -> None:
        waits = Waits(self._patience if self._written else 0.0)
        while True:
            start = time.monotonic()
            try:
                self._store.append(batch)
            except StoreGoneError:
                raise
            except FAULTS as error:
                with self._changed:
                    if waits.over or time.monotonic() >= self._end_by:
                        raise
                    log.warning("the store cannot be written, trying again: %s", error or type(error).__name__)
                    self._changed.wait(min(waits.next(), self._end_by - time.monotonic()))
            else:
                self._written, self._took = True, time.monotonic() - start
                self._durable(batch)
                return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closing = True
            self._end_by = math.inf if kind is None else time.monotonic() + _AT_END
            self._changed.notify_all()
        try:
            self._ended.wait()
        except BaseException as came:  # a signal, while the last writing was waited for: little time is left
            self._hurry()
            self._finish(type(came))
            raise
        self._finish(kind)

    def _hurry(self) -> None:
        with self._changed:
            self._end_by = min(self._end_by, time.monotonic() + _AT_END)
            self._changed.notify_all()
        self._ended.wait()

    def _finish(self, kind: type[BaseException] | None) -> None:
        """Leave elsewhere what could not be stored, and tell so."""
        os.close(self._reserve)
        if self._fault is None:
            return
        told = self._told(self._fault, self._saved())
        if kind is None:
            raise told from self._fault
        log.error("answers could not be stored: %s", told)  # beside the error that is under way

    def _saved(self) -> str:
        """Write what is in hand elsewhere.

        Returns:
            What became of it, in words.
        """
        count = len(self._waiting)
        try:
            place, found_again = self._store.leave(self._waiting)
        except FAULTS as error:
            return f"{count} answers in hand are lost, they could be written nowhere else: {error}"
        if found_again:
            self._durable(self._waiting)
            return f"{count} answers in hand are in {place}; the next run takes them from there"
        return f"{count} answers in hand are in {place}; copy what is in it into the folder of the store"

    @staticmethod
    def _told(fault: Exception, saved: str) -> StorageError:
        kind = type(fault) if isinstance(fault, StorageError) else StorageError
        problem = fault.problem if isinstance(fault, StorageError) else f"{type(fault).__name__}: {fault}"
        action = getattr(fault, "action", "") or "see whether the store can be written"
        return kind(f"{problem}\n  {saved}", allowed=getattr(fault, "allowed", ""), action=action)
