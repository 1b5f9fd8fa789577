"""The durable store: every finished answer, kept within seconds, so that none is ever paid for twice.

A store is a folder, local or in object storage. Records, of ratings say, that are worth the same have one key (rater,
prompt, model, sampling, …) and lie in one sub-folder named by its hash, as JSON lines in small parts that are only ever
added:

    <store>/<hash of the key>/key.json
    <store>/<hash of the key>/<nanoseconds>-<hash of the content>.jsonl

A part appears whole or not at all and nothing is ever changed, so any number of processes may write at once without a
lock. A part's name carries the hash of its content: a damaged part is known, reported and left out.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, TypeAdapter, ValidationError

from tamis.core.errors import StorageError
from tamis.core.ids import pack
from tamis.core.settings import canonical_json, hash_of
from tamis.core.steps import Uri
from tamis.core.storage import Location, children, exists, locate, read_bytes, write_bytes

log = logging.getLogger(__name__)
_KEY = "key.json"
_PART = re.compile(r"(\d{20})-([0-9a-f]{16})\.jsonl")
_READERS, _READ_AHEAD = 16, 256  # threads that read parts, and parts in memory at a time
_AGAIN_AFTER = 1.0  # seconds between two tries to write or read
_READ_PATIENCE = 30.0  # seconds that a part is tried to be read for
_SHORTEST = 0.5  # seconds that records are gathered for, however slow writing is
R = TypeVar("R", bound=BaseModel)


@dataclass(frozen=True)
class Records(Generic[R]):
    """A kind of record: models with a field `id` of 32 hexadecimal digits, and the Arrow schema of all their fields."""

    model: type[R]
    schema: pa.Schema
    called: str  # as in "ratings"

    def none(self) -> Stored[R]:
        """No record at all."""
        return Stored(self, self.schema.empty_table())


class Stored(Generic[R]):
    """Records read from a store, compact in memory. Where an id has several, the one written last counts."""

    def __init__(self, records: Records[R], table: pa.Table, damaged: int = 0) -> None:
        self._model = records.model
        self.damaged = damaged  # parts that could not be read
        keys = pack(table["id"].combine_chunks(), where=f"the store of {records.called}")
        order = np.argsort(keys, kind="stable")
        last = np.append(keys[order][1:] != keys[order][:-1], True)[: len(order)]
        self._rows = order[last]
        self._keys, self._table = keys[self._rows], table

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, ids: pa.Array) -> list[R | None]:
        """The records of `ids`, in their order; None for those that have none."""
        if not len(self):
            return [None] * len(ids)
        rows, found = self._rows_of(ids)
        records = map(self._model.model_validate, self._table.take(rows).to_pylist())
        return [next(records) if there else None for there in found.tolist()]

    def count(self, ids: pa.Array, columns: Sequence[str]) -> dict[tuple[Any, ...], int]:
        """How many of `ids` have a record, by the values of `columns` in it; faster than `find`."""
        if not len(self):
            return {}
        there = self._table.select(list(columns)).take(self._rows_of(ids)[0])
        groups = there.group_by(list(columns)).aggregate([([], "count_all")])
        return {tuple(row[name] for name in columns): row["count_all"] for row in groups.to_pylist()}

    def sums(self, ids: pa.Array, columns: Sequence[str]) -> dict[str, int]:
        """The sum of each of `columns` over the records of `ids`; what is not known counts as 0."""
        if not len(self):
            return {}
        there = self._table.select(list(columns)).take(self._rows_of(ids)[0])
        return {name: pc.sum(there[name]).as_py() or 0 for name in columns}

    def _rows_of(self, ids: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """The rows of the table with the records of `ids`, and which of `ids` have one."""
        wanted = pack(ids, where="what is asked")
        places = np.minimum(np.searchsorted(self._keys, wanted), len(self) - 1)
        found = self._keys[places] == wanted
        return self._rows[places[found]], found


class Store(Generic[R]):
    """The records of one kind and one key."""

    def __init__(self, place: Uri, key: Mapping[str, Any], records: Records[R]) -> None:
        self._records = records
        self._lines = TypeAdapter(list[records.model])  # type: ignore[name-defined]
        self._folder = locate(place) / hash_of(key)[:32]
        self._key = (canonical_json(key) + "\n").encode()
        self._last, self._named = 0, False

    @property
    def journal(self) -> Location:
        """A folder beside the parts, for what a backend must not forget."""
        return self._folder.with_name(f"{self._folder.name}-journal")

    def read(self, wanted: Callable[[pa.Array], NDArray[np.bool_]] | None = None) -> Stored[R]:
        """All records that are there.

        Args:
            wanted: which ids' records are kept in memory; those of all if left out.

        Raises:
            StorageError: when the store cannot be read.
        """
        schema, damaged = self._records.schema, 0
        tables = [schema.empty_table()]
        # "." begins a part that is being written
        parts = [one for one in children(self._folder) if one.name != _KEY and not one.name.startswith(".")]
        for location, data in zip(parts, _read_all(parts), strict=True):
            found = self._parse(location.name, data)
            if isinstance(found, str):
                damaged += 1
                log.warning("the store's part %s is left out: %s; what it held is asked again", location, found)
            else:
                columns = {field.name: [getattr(record, field.name) for record in found] for field in schema}
                table = pa.table(columns, schema=schema)
                if wanted is not None and len(table):
                    table = table.filter(pa.array(wanted(table["id"].combine_chunks())))
                tables.append(table)
        # In one piece: what is found would otherwise be looked for in every part.
        return Stored(self._records, pa.concat_tables(tables).combine_chunks(), damaged)

    def append(self, records: Sequence[R]) -> None:
        """Add one part. When this returns, the records are durable.

        Raises:
            StorageError: when it cannot be written.
        """
        data = "".join(record.model_dump_json() + "\n" for record in records).encode()
        self._last = max(self._last + 1, time.time_ns())
        write_bytes(self._folder / f"{self._last:020d}-{_checksum(data)}.jsonl", data)
        if not self._named:  # for people; the records come first
            if not exists(self._folder / _KEY):
                write_bytes(self._folder / _KEY, self._key)
            self._named = True

    def _parse(self, name: str, data: bytes) -> list[R] | str:
        """The records of a part, or what is wrong with it."""
        match = _PART.fullmatch(name)
        if match is None:
            return "it is no part of a store"
        if _checksum(data) != match[2]:
            return "its content is not what was written"
        try:
            return self._lines.validate_json(b"[" + b",".join(data.splitlines()) + b"]")
        except ValidationError as error:
            return f"it holds no {self._records.called} of this version of Tamis ({error.error_count()} faults)"


def _read_all(parts: Sequence[Location]) -> Iterator[bytes]:
    """The bytes of each part, in order; many small objects are waited for together."""
    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(parts), _READ_AHEAD):
            yield from pool.map(_read_part, parts[start : start + _READ_AHEAD])


def _read_part(location: Location) -> bytes:
    """The bytes of one part. It is there, since it was listed and none is ever deleted: any error is storage's own."""
    give_up = time.monotonic() + _READ_PATIENCE
    while True:
        try:
            return read_bytes(location)
        except StorageError as error:
            if time.monotonic() >= give_up:
                raise
            log.warning("a part of the store cannot be read, trying again: %s", error)
            time.sleep(_AGAIN_AFTER)


def _checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


class Writer(Generic[R]):
    """Gathers finished records and appends them to a store: for `seconds`, less where writing is slow.

    A thread of its own writes, so that records become durable even while whoever answers is silent for long. Use it as
    a context manager: at its end, by an error too, all that was added is in the store. That thread calls `durable` with
    records once they are.

    A store that has been written to and then fails is tried again for `patience` seconds. Meanwhile records are held
    back up to `most`; then whoever hands over has to wait, so that nothing is paid for that could be lost.
    """

    def __init__(
        self,
        store: Store[R],
        *,
        seconds: float = 3.0,
        count: int = 1000,
        most: int = 10_000,
        patience: float = 600.0,
        durable: Callable[[Sequence[R]], None] = lambda records: None,
    ) -> None:
        self._durable = durable
        self._store, self._seconds, self._count, self._most = store, seconds, count, most
        self._patience, self._written = patience, False
        self._took = seconds / 4  # what the last writing took; the first one is thought to be slow
        self._waiting: list[R] = []
        self._fault: Exception | None = None
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="store", daemon=True)

    def __enter__(self) -> Writer[R]:
        self._thread.start()
        return self

    def add(self, record: R) -> None:
        """Hand over a finished record.

        Raises:
            StorageError: when an earlier one could not be written.
        """
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < self._most or self._fault is not None)
            if self._fault is not None:
                raise self._fault
            self._waiting.append(record)
            if len(self._waiting) in (1, self._count):
                self._changed.notify_all()

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
            except Exception as error:  # raised again in the thread that hands over records
                with self._changed:
                    self._fault = error
                    self._changed.notify_all()
                return
            if self._closing and not self._waiting:
                return

    def _append(self, batch: list[R]) -> None:
        give_up = time.monotonic() + (self._patience if self._written else 0.0)
        while True:
            start = time.monotonic()
            try:
                self._store.append(batch)
            except StorageError as error:
                if time.monotonic() >= give_up:
                    raise
                log.warning("the store cannot be written, trying again: %s", error)
                time.sleep(_AGAIN_AFTER)
            else:
                self._written, self._took = True, time.monotonic() - start
                self._durable(batch)
                return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        if self._fault is not None:
            if kind is None:
                raise self._fault
            log.error("answers could not be stored: %s", self._fault)  # beside the error that is under way
