"""A store: a folder with the records of one kind and one key."""

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

from tamis.core.errors import StorageError
from tamis.core.secrets import masked_values
from tamis.core.settings import canonical_json, hash_of
from tamis.core.steps import Uri
from tamis.core.storage import Location, exists, locate, remove, remove_unfinished, write_bytes
from tamis.llm.store.compaction import compact
from tamis.llm.store.parts import is_part, part_of
from tamis.llm.store.reading import Reading
from tamis.llm.store.records import R, Records, Stored

log = logging.getLogger(__name__)
_KEY = "key.json"
_PROBE = 1 << 20  # bytes of free space that are checked before a request; a part is smaller
_LEFT = 86_400.0  # age in seconds from which an unfinished file is abandoned
_SPARE = ".answers-in-hand"


class StoreGoneError(StorageError):
    """The store's folder has been unmounted, removed or replaced during the run."""

    code = "store-gone"
    permanent = False


class Store(Generic[R]):
    """The records of one kind and one key.

    Args:
        place: the folder or prefix of the store, shared by all keys.
        key: everything that the records depend on.
        records: the kind of records.
        spare: local folders for records that cannot be written to `place`, in order of preference; see `spare_places`.
    """

    def __init__(self, place: Uri, key: Mapping[str, Any], records: Records[R], spare: Sequence[Path] = ()) -> None:
        self._records, self.place = records, place
        self._folder = locate(place) / hash_of(key)[:32]
        self._key = (canonical_json(masked_values(key)) + "\n").encode()
        # The same key may occur in several stores, because services may serve different models under one name.
        self._spare = [folder / hash_of(str(self._folder))[:16] / self._folder.name for folder in spare]
        self._last, self._named = 0, False
        self._identity: tuple[int, int] | None = None

    @property
    def journal(self) -> Location:
        """A folder next to the parts, for the journal of batches and notes of cost."""
        return self._folder.with_name(f"{self._folder.name}-journal")

    @property
    def prepared(self) -> bool:
        """Whether writing has succeeded."""
        return self._named

    def prepare(self) -> None:
        """Check that records can be written, before any is paid for.

        From then on, the store's folder must not be replaced.

        Raises:
            StorageError: when it cannot be written.
        """
        write_bytes(self._folder / _KEY, self._key)  # for people, and to test object storage
        if isinstance(self._folder, Path):
            write_bytes(self._folder / ".probe", bytes(_PROBE))  # a full disk may still have room for a key
            with suppress(StorageError):  # another process has removed it
                remove(self._folder / ".probe")
            self._identity = _identity(self._folder)
            self._remove_unfinished(self._folder)
        self._named = True

    @staticmethod
    def _remove_unfinished(folder: Path) -> None:
        """Remove files left by killed writers, by the clock of the file system, which may be shared by machines."""
        try:
            now = (folder / _KEY).stat().st_mtime  # just written
            if removed := remove_unfinished(folder, older_than=_LEFT, now=now):
                log.info("%d unfinished files of killed writers were removed from %s", removed, folder)
        except (StorageError, OSError) as error:  # they only use space; another process may be removing them too
            log.info("unfinished files of killed writers could not be removed: %s", error)

    def bring_in(self) -> None:
        """Move parts from spare places to the store; parts that cannot be moved stay there, and are read there."""
        brought = 0
        for part in self._left_elsewhere():
            try:
                write_bytes(self._folder / part.name, part.read_bytes())
                part.unlink()
            except FileNotFoundError:  # another process has moved it
                continue
            except (StorageError, OSError) as error:
                log.warning("%s could not be moved to the store: %s", part, error)
                continue
            brought += 1
        if brought:
            log.info("%d parts that an earlier run could not store were moved to the store: %s", brought, self._folder)

    def read(self, wanted: Callable[[pa.Array], NDArray[np.bool_]] | None = None) -> Stored[R]:
        """Read all records.

        Args:
            wanted: returns which ids to keep in memory; default: all.

        Raises:
            StorageError: when the store cannot be read.
        """
        reading = Reading(self._records, self._folder, wanted)
        # Spare places first, because their parts may be moved to the store at this moment.
        table = reading.read(self._left_elsewhere())
        return Stored(self._records, table, reading.damaged)

    def compact(self) -> None:
        """Merge many small parts, so that the store can be read faster; see `compaction`.

        If this fails, the store stays as it is, with a warning.

        Raises:
            StoreGoneError: when the folder has been replaced.
        """
        if self._identity is None and isinstance(self._folder, Path):
            with suppress(OSError):
                self._identity = _identity(self._folder)
        try:
            compact(self._records, self._folder, self.same_folder)
        except StoreGoneError:
            raise
        except (StorageError, OSError) as error:
            log.warning("the store could not be compacted: %s", error)

    def append(self, records: Sequence[R]) -> None:
        """Add one part. When this returns, the records are durable.

        Raises:
            StoreGoneError: when the folder has been replaced since it was prepared.
            StorageError: when the part cannot be written.
        """
        name, data = self._part(records)
        self.same_folder()
        write_bytes(self._folder / name, data)
        self.same_folder()  # otherwise the part may be below an unmounted folder
        if not self._named:  # for people; the records come first
            if not exists(self._folder / _KEY):
                write_bytes(self._folder / _KEY, self._key)
            self._named = True

    def leave(self, records: Sequence[R]) -> tuple[Path, bool]:
        """Write a part to the first spare place that works, or else to a new temporary folder.

        Returns:
            The place, which has the form of a store; and whether later runs look there.

        Raises:
            StorageError: when it cannot be written anywhere.
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
        """The name and the content of a part."""
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
        """Check that the folder has not been replaced since it was prepared."""
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
                f"the folder of the store, {self._folder}, "
                + ("is gone" if seen is None else "has been replaced by another one"),
                action="check that it is mounted, then start again",
            )


def spare_places(scratch: Path) -> list[Path]:
    """Folders for answers that cannot be stored: next to a step's `scratch` folder, and in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    return [scratch.parent / _SPARE, cache / "tamis" / _SPARE]


def _identity(folder: Path) -> tuple[int, int]:
    """What distinguishes a folder from another one at the same path."""
    found = folder.stat()
    return found.st_dev, found.st_ino
