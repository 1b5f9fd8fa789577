"""Writes answers to a store as they arrive, and elsewhere if the store cannot be written."""

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
_AT_END = 5.0  # seconds of retries when the run is being stopped; an evicted pod has 30
_SHORTEST = 0.5  # shortest time in seconds to gather records, even if writing is slow


class Writer(Generic[R]):
    """Gathers finished records for up to `seconds`, less if writing is slow, and appends them to a store.

    It writes in its own thread, so records become durable even while the engine is silent. Use it as a context manager:
    at exit, also after an error, all added records are in the store. The thread calls `durable` with records once they
    are durable.

    If a store fails after it has worked, writing is retried for `patience` seconds. Meanwhile up to `most` records are
    held back; after that, `add` waits, so that few answers are paid for that could be lost. When patience is over, or
    the store's folder has been replaced, `failed` returns true. Records of requests under way may still be added. At
    exit, all records that are not stored go to the store's spare places.
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
        self._took = seconds / 4  # duration of the last write; the first is assumed to be slow
        self._waiting: list[R] = []
        self._fault: Exception | None = None
        self._closing, self._end_by = False, math.inf
        self._changed = threading.Condition()
        # An event, because Python 3.11 considers a thread ended when a signal interrupts its `join`.
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work_and_end, name="store", daemon=True)

    def __enter__(self) -> Writer[R]:
        # Closed at exit, so that a process with too many open files can still write the remaining records.
        self._reserve = os.open(os.devnull, os.O_RDONLY)
        self._thread.start()
        return self

    def add(self, record: R) -> None:
        """Add a finished record; waits while too many are held back."""
        with self._changed:
            self._waiting.append(record)  # first, because a signal may interrupt the wait
            if len(self._waiting) in (1, self._count):
                self._changed.notify_all()
            self._changed.wait_for(lambda: len(self._waiting) < self._most or self._fault is not None)

    def failed(self) -> bool:
        """Whether writing was given up, so that no more requests should be sent."""
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
            except Exception as error:  # reported to the thread that adds records
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
        except BaseException as came:  # a signal during the last write: little time is left
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
        """Write elsewhere what could not be stored, and report it."""
        os.close(self._reserve)
        if self._fault is None:
            return
        error = self._error(self._fault, self._saved())
        if kind is None:
            raise error from self._fault
        log.error("answers could not be stored: %s", error)  # in addition to the error being raised

    def _saved(self) -> str:
        """Write the remaining records elsewhere.

        Returns:
            Where they are, in words.
        """
        count = len(self._waiting)
        try:
            place, found_again = self._store.leave(self._waiting)
        except FAULTS as error:
            return f"{count} answers are lost, because they could not be written anywhere else: {error}"
        if found_again:
            self._durable(self._waiting)
            return f"{count} answers are in {place}; the next run reads them from there"
        return f"{count} answers are in {place}; copy its content into the folder of the store"

    @staticmethod
    def _error(fault: Exception, saved: str) -> StorageError:
        kind = type(fault) if isinstance(fault, StorageError) else StorageError
        problem = fault.problem if isinstance(fault, StorageError) else f"{type(fault).__name__}: {fault}"
        action = getattr(fault, "action", "") or "check that the store can be written"
        return kind(f"{problem}\n  {saved}", allowed=getattr(fault, "allowed", ""), action=action)
