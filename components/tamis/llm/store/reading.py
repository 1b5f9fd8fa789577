"""Reads a store's parts while other processes may add or compact parts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Generic

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from tamis.core.errors import StorageError
from tamis.core.storage import Location, names_in
from tamis.llm.store import parts
from tamis.llm.store.columns import from_bytes, in_order, parts_in, with_parts
from tamis.llm.store.parts import is_compacted, is_part, read_all, whole
from tamis.llm.store.records import R, Records

log = logging.getLogger(__name__)
AT_ONCE = 1 << 22  # bytes of parts that are converted to a table together
_MOST_UNREADABLE = 0.1  # share of unreadable parts above which reading fails
_NO_RECORDS = (ValidationError, pa.ArrowException, OverflowError)  # errors of lines that are not valid records
_SHOWN = 5  # names of unknown files in a warning
_AGAIN_AFTER = 0.5  # seconds between two checks for the compacted part that replaces a part


class Lines(Generic[R]):
    """Converts parts with JSON lines to tables."""

    def __init__(self, records: Records[R]) -> None:
        self._records = records
        self._adapter = TypeAdapter(list[records.model])  # type: ignore[name-defined]

    def table_of(self, group: Sequence[tuple[Location, bytes]]) -> tuple[pa.Table, set[str]]:
        """The records of parts, with the column `part`, and the names of parts that are damaged in whole or in part."""
        good: list[tuple[Location, list[bytes]]] = []
        faulty = set()
        for location, data in group:
            if whole(location.name, data):
                good.append((location, data.splitlines()))
                continue
            faulty.add(location.name)
            _left_out(location, "its content is not what was written")
        try:
            return self._table(good), faulty
        except _NO_RECORDS:
            pass
        held = []
        for location, lines in good:
            these = [line for line in lines if self._holds(location, line)]
            held.append((location, these))
            if len(these) < len(lines):
                faulty.add(location.name)
                what = f"{len(lines) - len(these)} of {len(lines)} {self._records.called} are of another version"
                _left_out(location, f"{what}, or have invalid values", "partly " if these else "")
        return self._table(held), faulty

    def _holds(self, location: Location, line: bytes) -> bool:
        try:
            self._table([(location, [line])])
        except _NO_RECORDS:
            return False
        return True

    def _table(self, group: Sequence[tuple[Location, Sequence[bytes]]]) -> pa.Table:
        lines = b",".join(line for _, lines in group for line in lines)
        found = self._adapter.validate_json(b"[" + lines + b"]")
        columns = {field.name: [getattr(record, field.name) for record in found] for field in self._records.schema}
        table = pa.table(columns, schema=self._records.schema)
        return with_parts(table, [location.name for location, _ in group], [len(lines) for _, lines in group])


class Reading(Generic[R]):
    """Reads the records in a store's folder.

    A compacted part contains the records of many others, which are removed once it is durable; its name is greater than
    theirs. If a part that was listed is gone, its records are in a compacted part that was added since. New compacted
    parts are always looked for, because a listing made while parts are removed may contain neither.

    Args:
        records: the kind of records.
        folder: folder of the parts.
        wanted: returns which ids to keep; None for all.
    """

    def __init__(
        self, records: Records[R], folder: Location, wanted: Callable[[pa.Array], NDArray[np.bool_]] | None
    ) -> None:
        self._records, self._folder, self._wanted = records, folder, wanted
        self._lines = Lines(records)
        self._tables: list[pa.Table] = []
        self._seen: set[str] = set()  # compacted parts that were read, or are gone
        self._held: set[str] = set()  # parts whose records are in compacted parts
        self._gone: set[str] = set()  # parts that were listed but are gone
        self._parts: set[str] = set()  # all parts that were listed, or are in compacted parts
        self._unreadable: list[str] = []
        self.damaged = 0  # parts that could not be read completely

    def read(self, elsewhere: Sequence[Location]) -> pa.Table:
        """The records in the order of the parts' names.

        Args:
            elsewhere: parts in other folders, listed earlier.

        Raises:
            StorageError: when the folder, more than a tenth of the parts, or a compacted part cannot be read.
        """
        names = own_names(self._folder)
        if foreign := [name for name in names if not is_part(name)]:
            log.warning(
                "%s: these files are not parts of a store and are ignored: %s",
                self._folder,
                ", ".join(foreign[:_SHOWN]) + (", …" if len(foreign) > _SHOWN else ""),
            )  # fmt: skip
        self._read_compacted(names)
        there = {name: self._folder / name for name in names if is_part(name) and not is_compacted(name)}
        there = {one.name: one for one in elsewhere} | there
        self._read_lines([there[name] for name in sorted(there) if name not in self._held])
        give_up = time.monotonic() + parts._READ_PATIENCE
        while self._read_compacted(own_names(self._folder)) or self._gone - self._held:
            if time.monotonic() >= give_up:
                for name in sorted(self._gone - self._held):
                    self._is_unreadable(self._folder / name, "it is gone")
                break
            if self._gone - self._held:
                time.sleep(_AGAIN_AFTER)
        self._refuse_disorder()
        # In one chunk, so that lookups need not search every part.
        nothing = with_parts(self._records.schema.empty_table(), [], [])
        return in_order(pa.concat_tables([nothing, *self._tables])).combine_chunks()

    def _read_compacted(self, names: Sequence[str]) -> bool:
        """Read new compacted parts; return whether there were any."""
        new = [name for name in names if is_compacted(name) and name not in self._seen]
        self._seen.update(new)
        for name, table, taken in compacted_tables(self._records, self._folder, new):
            if table is None:
                self._gone.add(name)
                continue
            held = parts_in(table)
            self._parts |= held
            self._held |= held
            self._held.update(taken)
            self._keep(table)
        return bool(new)

    def _read_lines(self, locations: Sequence[Location]) -> None:
        self._parts.update(location.name for location in locations)
        group: list[tuple[Location, bytes]] = []
        size = 0
        for location, data in zip(locations, read_all(locations, self._folder), strict=True):
            if data is None:
                self._gone.add(location.name)
            elif isinstance(data, StorageError):
                self._is_unreadable(location, str(data))
            else:
                group.append((location, data))
                size += len(data)
            if size >= AT_ONCE:
                self._close(group)
                group, size = [], 0
        self._close(group)

    def _close(self, group: Sequence[tuple[Location, bytes]]) -> None:
        table, faulty = self._lines.table_of(group)
        self.damaged += len(faulty)
        self._keep(table)

    def _keep(self, table: pa.Table) -> None:
        if self._wanted is not None and len(table):
            table = table.filter(pa.array(self._wanted(table["id"].combine_chunks())))
        self._tables.append(table)

    def _is_unreadable(self, location: Location, why: str) -> None:
        self.damaged += 1
        self._unreadable.append(why)
        _left_out(location, why)

    def _refuse_disorder(self) -> None:
        # A compacted part counts as all the parts in it, so that compaction does not change whether a store is usable.
        if len(self._unreadable) > _MOST_UNREADABLE * len(self._parts):
            raise StorageError(
                f"{self._folder}: {len(self._unreadable)} of {len(self._parts)} parts of the store cannot be read: "
                f"{self._unreadable[0]}",
                allowed=f"at most {_MOST_UNREADABLE:.0%} of the parts; their answers are requested again",
                action="check the storage",
            )


def own_names(folder: Location) -> list[str]:
    """Names of the files in a store's folder, except its key and files that are being written."""
    return [name for name in names_in(folder) if name != "key.json" and not name.startswith(".")]


def compacted_tables(
    records: Records[R], folder: Location, names: Sequence[str]
) -> Iterator[tuple[str, pa.Table | None, list[str]]]:
    """Names of compacted parts, their tables with the column `part`, and the compacted parts that they contain.

    The table of a part that is gone is None.

    Raises:
        StorageError: when one cannot be read; it is worth too much to leave it out.
    """
    for name in names:
        (data,) = read_all([folder / name], folder)
        if data is None:
            yield name, None, []
            continue
        if isinstance(data, StorageError):
            raise data
        try:
            if not whole(name, data):
                raise pa.ArrowInvalid("its content is not what was written")
            table, taken = from_bytes(data, records.schema, records.model)
        except pa.ArrowException as error:
            raise StorageError(
                f"the compacted part {folder / name} of the store, with the {records.called} of many parts, cannot be "
                f"used: {error}",
                action="restore it from a backup, or use the version of Tamis that wrote it; if neither is possible, "
                "delete it: its answers are then requested and paid for again",
            ) from error
        yield name, table, taken


def _left_out(location: Location, why: str, how_far: str = "") -> None:
    log.warning("the part %s of the store is %signored: %s; its answers are requested again", location, how_far, why)
