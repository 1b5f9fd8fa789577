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
_PROBE = 1 << 20  # bytes that must fit before anything is asked; a part has less
_LEFT = 86_400.0  # seconds after which nobody finishes writing a file any more
_SPARE = ".answers-in-hand"


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
        self._records, self.place = records, place
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
            self._remove_unfinished(self._folder)
        self._named = True

    @staticmethod
    def _remove_unfinished(folder: Path) -> None:
        """Remove what killed writers have left; a file system of several machines has a clock of its own."""
        try:
            now = (folder / _KEY).stat().st_mtime  # just written
            if removed := remove_unfinished(folder, older_than=_LEFT, now=now):
                log.info("%d unfinished files of writers that were killed are removed from %s", removed, folder)
        except (StorageError, OSError) as error:  # they only take room; another process may be removing them too
            log.info("unfinished files of killed writers stay: %s", error)

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
        reading = Reading(self._records, self._folder, wanted)
        # Spare places are looked at first: what is there may be brought in at this moment.
        table = reading.read(self._left_elsewhere())
        return Stored(self._records, table, reading.damaged)

    def compact(self) -> None:
        """Put the records of many small parts into few, so that the store is read sooner; see `compaction`.

        A store that cannot be read or written stays as it is, and the log says so.

        Raises:
            StoreGoneError: when another folder has come in its place meanwhile.
        """
        if self._identity is None and isinstance(self._folder, Path):
            with suppress(OSError):
                self._identity = _identity(self._folder)
        try:
            compact(self._records, self._folder, self.same_folder)
        except StoreGoneError:
            raise
        except (StorageError, OSError) as error:
            log.warning("the store is not compacted, and is read as it is: %s", error)

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


def spare_places(scratch: Path) -> list[Path]:
    """Where answers go that cannot be stored: beside the `scratch` folder of a step, then in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    return [scratch.parent / _SPARE, cache / "tamis" / _SPARE]


def _identity(folder: Path) -> tuple[int, int]:
    """What tells a folder from another of the same path."""
    found = folder.stat()
    return found.st_dev, found.st_ino
