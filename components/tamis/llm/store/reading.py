"""Reading a store's parts, while other processes add some or compact them."""

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
AT_ONCE = 1 << 22  # bytes of parts that are made a table together
_MOST_UNREADABLE = 0.1  # share of the parts; beyond it storage is out of order, and nothing is to be asked again
_NO_RECORDS = (ValidationError, pa.ArrowException, OverflowError)  # of lines that are no records, or do not fit
_SHOWN = 5  # names of foreign entries in the warning about them
_AGAIN_AFTER = 0.5  # seconds between two looks for what has taken a part's place


class Lines(Generic[R]):
    """Makes tables of parts of JSON lines."""

    def __init__(self, records: Records[R]) -> None:
        self._records = records
        self._adapter = TypeAdapter(list[records.model])  # type: ignore[name-defined]

    def table_of(self, group: Sequence[tuple[Location, bytes]]) -> tuple[pa.Table, set[str]]:
        """The records of parts, with the column `part`, and names of parts that are left out or not read in full."""
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
                what = f"{len(lines) - len(these)} of {len(lines)} {self._records.called} are not of this version"
                _left_out(location, f"{what}, or have values that no answer has", "in part " if these else "")
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
    """The records of a store's folder.

    A compacted part holds the records of many others, which are removed once it is durable; its name is behind all of
    theirs. So a part that was listed and is not there any more is looked for in compacted parts that have come since.
    Those are looked for in any case: a list that was made while parts were removed may have neither.

    Args:
        records: their kind.
        folder: of the parts.
        wanted: which ids' records are kept; those of all if None.
    """

    def __init__(
        self, records: Records[R], folder: Location, wanted: Callable[[pa.Array], NDArray[np.bool_]] | None
    ) -> None:
        self._records, self._folder, self._wanted = records, folder, wanted
        self._lines = Lines(records)
        self._tables: list[pa.Table] = []
        self._seen: set[str] = set()  # compacted parts that were read, or looked for in vain
        self._held: set[str] = set()  # parts whose records are in compacted ones
        self._gone: set[str] = set()  # parts that were listed and then not there
        self._parts: set[str] = set()  # all that were listed, and those whose records are in compacted ones
        self._unreadable: list[str] = []
        self.damaged = 0  # parts that could not be read, or not in full

    def read(self, elsewhere: Sequence[Location]) -> pa.Table:
        """The records in the order of the parts' names.

        Args:
            elsewhere: parts in other folders, listed before.

        Raises:
            StorageError: when the folder, more than a tenth of the parts, or a compacted part cannot be read.
        """
        names = own_names(self._folder)
        if foreign := [name for name in names if not is_part(name)]:
            log.warning(
                "%s: what is no part of a store is not read: %s",
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
                    self._is_unreadable(self._folder / name, "it is not there any more")
                break
            if self._gone - self._held:
                time.sleep(_AGAIN_AFTER)
        self._refuse_disorder()
        # In one piece: what is found would otherwise be looked for in every part.
        nothing = with_parts(self._records.schema.empty_table(), [], [])
        return in_order(pa.concat_tables([nothing, *self._tables])).combine_chunks()

    def _read_compacted(self, names: Sequence[str]) -> bool:
        """Read compacted parts that were not read before; whether there were some."""
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
        # Compacted parts count as those that they have taken in: a store can be used before and after, or neither.
        if len(self._unreadable) > _MOST_UNREADABLE * len(self._parts):
            raise StorageError(
                f"{self._folder}: {len(self._unreadable)} of {len(self._parts)} parts of the store cannot be read: "
                f"{self._unreadable[0]}",
                allowed=f"{_MOST_UNREADABLE:.0%} of the parts, whose answers are then asked for again",
                action="see whether the storage works",
            )


def own_names(folder: Location) -> list[str]:
    """Names of what is in a store's folder, its key and files that are being written excepted."""
    return [name for name in names_in(folder) if name != "key.json" and not name.startswith(".")]


def compacted_tables(
    records: Records[R], folder: Location, names: Sequence[str]
) -> Iterator[tuple[str, pa.Table | None, list[str]]]:
    """Compacted parts' names, their tables with the column `part`, and the compacted parts that they have taken in.

    None for one that is not there any more.

    Raises:
        StorageError: when one cannot be read. Too much money is in it for leaving it out.
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
                f"the compacted part {folder / name} of the store, with the {records.called} of many others, cannot "
                f"be used: {error}",
                action="bring it back from a backup, or use the version of Tamis that wrote it; where neither can be "
                "done, remove it: what it held is then asked again",
            ) from error
        yield name, table, taken


def _left_out(location: Location, why: str, how_far: str = "") -> None:
    log.warning("the store's part %s is %sleft out: %s; what it held is asked again", location, how_far, why)
