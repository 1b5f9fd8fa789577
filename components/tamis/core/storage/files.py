"""Reading, writing, listing and removing files, local ones and those in object storage."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tamis.core.storage import local, objects
from tamis.core.storage.errors import explained
from tamis.core.storage.places import Location


def read_bytes(location: Location) -> bytes:
    """All bytes of one file.

    Raises:
        StorageError: when it does not exist or storage refuses.
    """
    with explained(f"reading {location}", absent=location):
        return location.read_bytes() if isinstance(location, Path) else objects.read(location)


def size_of(location: Location) -> int:
    """Bytes of one file.

    Raises:
        StorageError: when it does not exist or storage refuses.
    """
    with explained(f"looking for {location}", absent=location):
        return location.stat().st_size if isinstance(location, Path) else objects.size(location)


def exists(location: Location) -> bool:
    """Whether a file or folder is there.

    Raises:
        StorageError: when storage does not answer, or does not say.
    """
    with explained(f"looking for {location}"):
        return location.exists() if isinstance(location, Path) else objects.exists(location)


def files_below(location: Location) -> list[Location]:
    """All files in a folder and its subfolders, sorted by path; a file is the only one of its own. Empty if none.

    Raises:
        StorageError: when storage does not answer.
    """
    with explained(f"looking for files in {location}"):
        if not isinstance(location, Path):
            return sorted(objects.tags(location))
        if location.is_file():
            return [location]
        return sorted(file for file in location.rglob("*") if file.is_file())


def children(folder: Location) -> list[Location]:
    """What lies directly in `folder`, sorted by name; nothing when there is no such folder.

    Raises:
        StorageError: when storage does not answer, or `folder` is a local file.
    """
    return [folder / name for name in names_in(folder)]


def names_in(folder: Location) -> list[str]:
    """The names of what lies directly in `folder`, sorted; none when there is no such folder.

    Raises:
        StorageError: when storage does not answer, or `folder` is a local file.
    """
    with explained(f"reading {folder}"):
        if not isinstance(folder, Path):
            return sorted(objects.names(folder))
        try:
            return sorted(os.listdir(folder))
        except FileNotFoundError:
            return []


def write_bytes(location: Location, data: bytes) -> None:
    """Write one file so that a reader sees all of it or nothing: rename locally, one request to object storage.

    When this returns, the file is durable, its name too.

    Raises:
        StorageError: when it cannot be written, whatever the reason.
    """
    with explained(f"writing {location}"):
        if isinstance(location, Path):
            local.write(location, data)
        else:
            objects.write(location, data)


def create_bytes(location: Location, data: bytes) -> bool:
    """Write a file that is not there yet, whole; whether it was not there. Of several that try, one succeeds.

    Raises:
        StorageError: when it cannot be written, whatever the reason.
    """
    with explained(f"writing {location}"):
        return local.create(location, data) if isinstance(location, Path) else objects.create(location, data)


def remove(location: Location) -> None:
    """Remove one file.

    Raises:
        StorageError: when storage refuses, or, unless it is in object storage, when the file is not there.
    """
    with explained(f"removing {location}"):
        if isinstance(location, Path):
            location.unlink()
        else:
            objects.remove([location])


def remove_all(folder: Location, names: Sequence[str]) -> None:
    """Remove files of a folder; those that are not there are left.

    Raises:
        StorageError: when storage refuses.
    """
    with explained(f"removing files of {folder}"):
        if not isinstance(folder, Path):
            objects.remove([folder / name for name in names])
            return
        for name in names:
            with suppress(FileNotFoundError):
                (folder / name).unlink()
