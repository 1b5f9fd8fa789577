"""A store: the folder of the records of one kind and one key."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from tamis.core.errors import StorageError
from tamis.core.secrets import masked_values
from tamis.core.settings import canonical_json, hash_of
from tamis.core.steps import Uri
from tamis.core.storage import Location, children, exists, locate, remove, write_bytes
from tamis.core.store.parts import is_part, part_of, read_all, whole
from tamis.core.store.records import R, Records, Stored

log = logging.getLogger(__name__)
_KEY = "key.json"
_AT_ONCE = 1 << 22  # bytes of parts that are made a table together
_MOST_UNREADABLE = 0.1  # share of the parts; beyond it storage is out of order, and nothing is to be asked again
_PROBE = 1 << 20  # bytes that must fit before anything is asked; a part has less
_SPARE = ".answers-in-hand"
_NO_RECORDS = (ValidationError, pa.ArrowException, OverflowError)  # of lines that are no records, or do not fit


class StoreGoneError(StorageError):
    """The store's folder is not the one that it was: unmounted, removed, or another one was mounted over it."""

    code = "store-gone"


class Store(Generic[R]):
    """The records of one kind and one key.

    Args:
        place: the store's folder, shared by all keys.
        key: what the records depend on.
        records: their kind.
        spare: local folders for what cannot be written to `place`, the best first; see `spare_places`.
    """

    def __init__(self, place: Uri, key: Mapping[str, Any], records: Records[R], spare: Sequence[Path] = ()) -> None:
        self._records = records
        self._lines = TypeAdapter(list[records.model])  # type: ignore[name-defined]
        self._folder = locate(place) / hash_of(key)[:32]
        self._key = (canonical_json(masked_values(key)) + "\n").encode()
        # One key may have several stores, of services that call different models by one name.
        self._spare = [folder / hash_of(str(self._folder))[:16] / self._folder.name for folder in spare]
        self._last, self._named = 0, False
        self._identity: tuple[int, int] | None = None

    @property
    def journal(self) -> Location:
        """A folder beside the parts, for what a backend must not forget."""
        return self._folder.with_name(f"{self._folder.name}-journal")

    @property
    def prepared(self) -> bool:
        """Whether it could be written to."""
        return self._named

    def prepare(self) -> None:
        """Make sure that records can be written, before any is paid for.

        From then on the store's folder must stay the one that it is.

        Raises:
            StorageError: when it cannot be written.
        """
        write_bytes(self._folder / _KEY, self._key)  # for people, and object storage's proof
        if isinstance(self._folder, Path):
            write_bytes(self._folder / ".probe", bytes(_PROBE))  # a full disk often has room for a key
            with suppress(StorageError):  # another process has done so
                remove(self._folder / ".probe")
            self._identity = _identity(self._folder)
        self._named = True

    def bring_in(self) -> None:
        """Write the parts that are in spare places; those that cannot be written stay there, and are read there."""
        brought = 0
        for part in self._left_elsewhere():
            try:
                write_bytes(self._folder / part.name, part.read_bytes())
                part.unlink()
            except FileNotFoundError:  # another process has brought it in
                continue
            except (StorageError, OSError) as error:
                log.warning("%s stays there: %s", part, error)
                continue
            brought += 1
        if brought:
            log.info("%d parts that an earlier run could not write are in the store now: %s", brought, self._folder)

    def read(self, wanted: Callable[[pa.Array], NDArray[np.bool_]] | None = None) -> Stored[R]:
        """All records that are there.

        Args:
            wanted: which ids' records are kept in memory; those of all if left out.

        Raises:
            StorageError: when the store cannot be read.
        """
        damaged, count = 0, 0
        tables = [self._records.schema.empty_table()]
        elsewhere: list[Location] = [*self._left_elsewhere()]  # looked for first: it may be brought in at this moment
        # "." begins a part that is being written
        own = [one for one in children(self._folder) if one.name != _KEY and not one.name.startswith(".")]
        names = {one.name for one in own}
        parts = sorted(own + [one for one in elsewhere if one.name not in names], key=lambda one: one.name)
        unreadable: list[str] = []
        group: list[tuple[Location, bytes]] = []

        def close_group() -> int:
            table, faulty = self._table_of(group)
            if wanted is not None and len(table):
                table = table.filter(pa.array(wanted(table["id"].combine_chunks())))
            tables.append(table)
            group.clear()
            return faulty

        for location, data in zip(parts, read_all(parts, self._folder), strict=True):
            if isinstance(data, StorageError):
                unreadable.append(str(data))
                _left_out(location, str(data))
                continue
            group.append((location, data))
            count += len(data)
            if count >= _AT_ONCE:
                damaged, count = damaged + close_group(), 0
        damaged += close_group()
        if len(unreadable) > _MOST_UNREADABLE * len(parts):
            raise StorageError(
                f"{self._folder}: {len(unreadable)} of {len(parts)} parts of the store cannot be read: {unreadable[0]}",
                allowed=f"{_MOST_UNREADABLE:.0%} of the parts, whose answers are then asked for again",
                action="see whether the storage works",
            )
        # In one piece: what is found would otherwise be looked for in every part.
        return Stored(self._records, pa.concat_tables(tables).combine_chunks(), damaged + len(unreadable))

    def append(self, records: Sequence[R]) -> None:
        """Add one part. When this returns, the records are durable.

        Raises:
            StoreGoneError: when the folder is not the one any more that it was when it was prepared.
            StorageError: when the part cannot be written.
        """
        name, data = self._part(records)
        self.same_folder()
        write_bytes(self._folder / name, data)
        self.same_folder()  # else the part may lie where a folder was mounted
        if not self._named:  # for people; the records come first
            if not exists(self._folder / _KEY):
                write_bytes(self._folder / _KEY, self._key)
            self._named = True

    def leave(self, records: Sequence[R]) -> tuple[Path, bool]:
        """Write a part to the first spare place that takes it, or else to a temporary folder of its own.

        Returns:
            The place, whose content has the form of a store; and whether later runs look there.

        Raises:
            StorageError: when none takes it.
        """
        name, data = self._part(records)
        for folder in self._spare:
            try:
                write_bytes(folder / name, data)
            except StorageError as error:
                log.warning("%s", error)
            else:
                return folder.parent, True
        try:
            folder = Path(tempfile.mkdtemp(prefix="tamis-answers-")) / self._folder.name
        except OSError as error:
            raise StorageError(f"writing {tempfile.gettempdir()}: {error}", action="free space there") from error
        write_bytes(folder / name, data)
        return folder.parent, False

    def _part(self, records: Sequence[R]) -> tuple[str, bytes]:
        """A part's name and content."""
        self._last = max(self._last + 1, time.time_ns())
        return part_of(records, self._last)

    def _left_elsewhere(self) -> list[Path]:
        """Parts in spare places."""
        found: list[Path] = []
        for folder in self._spare:
            with suppress(OSError):
                found += sorted(path for path in folder.iterdir() if is_part(path.name))
        return found

    def same_folder(self) -> None:
        """Make sure that the folder is the one that it was when it was prepared."""
        if self._identity is None or not isinstance(self._folder, Path):
            return
        try:
            seen = _identity(self._folder)
        except FileNotFoundError:
            seen = None
        except OSError as error:
            raise StorageError(f"looking for {self._folder}: {error.strerror}", action="check the storage") from error
        if seen != self._identity:
            raise StoreGoneError(
                f"{self._folder}, the folder of the store, is not the one that it was: "
                + ("it is gone" if seen is None else "another one is in its place"),
                action="see whether it is still mounted, then start again",
            )

    def _table_of(self, parts: Sequence[tuple[Location, bytes]]) -> tuple[pa.Table, int]:
        """The records of parts, and how many parts are left out or not read in full."""
        good_parts, faulty = [], 0
        for location, data in parts:
            if whole(location.name, data):
                good_parts.append((location, data.splitlines()))
                continue
            faulty += 1
            damage = "its content is not what was written"
            _left_out(location, damage if is_part(location.name) else "it is no part of a store")
        try:
            return self._table([line for _, lines in good_parts for line in lines]), faulty
        except _NO_RECORDS:
            pass
        tables = [self._records.schema.empty_table()]
        for location, lines in good_parts:
            good = [line for line in lines if self._holds(line)]
            tables.append(self._table(good))
            if len(good) < len(lines):
                faulty += 1
                what = f"{len(lines) - len(good)} of {len(lines)} {self._records.called} are not of this version"
                _left_out(location, f"{what}, or have values that no answer has", "in part " if good else "")
        return pa.concat_tables(tables), faulty

    def _holds(self, line: bytes) -> bool:
        try:
            self._table([line])
        except _NO_RECORDS:
            return False
        return True

    def _table(self, lines: Sequence[bytes]) -> pa.Table:
        found = self._lines.validate_json(b"[" + b",".join(lines) + b"]")
        columns = {field.name: [getattr(record, field.name) for record in found] for field in self._records.schema}
        return pa.table(columns, schema=self._records.schema)


def spare_places(scratch: Path) -> list[Path]:
    """Where answers go that cannot be stored: beside the `scratch` folder of a step, then in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    return [scratch.parent / _SPARE, cache / "tamis" / _SPARE]


def _identity(folder: Path) -> tuple[int, int]:
    """What tells a folder from another of the same path."""
    found = folder.stat()
    return found.st_dev, found.st_ino


def _left_out(location: Location, why: str, how_far: str = "") -> None:
    log.warning("the store's part %s is %sleft out: %s; what it held is asked again", location, how_far, why)
