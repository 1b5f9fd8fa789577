"""Reading, writing, listing and removing files, local or in object storage."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tamis.core.storage import local, objects
from tamis.core.storage.errors import explained
from tamis.core.storage.places import Location


def read_bytes(location: Location) -> bytes:
    """All bytes of a file.

    Raises:
        StorageError: when it does not exist or storage refuses.
    """
    with explained(f"reading {location}", absent=location):
        return location.read_bytes() if isinstance(location, Path) else objects.read(location)


def size_of(location: Location) -> int:
    """Size of a file in bytes.

    Raises:
        StorageError: when it does not exist or storage refuses.
    """
    with explained(f"looking for {location}", absent=location):
        return location.stat().st_size if isinstance(location, Path) else objects.size(location)


def exists(location: Location) -> bool:
    """Whether a file or folder exists.

    Raises:
        StorageError: when storage does not answer, or denies access.
    """
    with explained(f"looking for {location}"):
        return location.exists() if isinstance(location, Path) else objects.exists(location)


def files_below(location: Location) -> list[Location]:
    """All files in a folder and its subfolders, sorted by path. For a file, the file itself; empty if none exists.

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
    """Files and folders directly in `folder`, sorted by name; empty if the folder does not exist.

    Raises:
        StorageError: when storage does not answer, or `folder` is a local file.
    """
    return [folder / name for name in names_in(folder)]


def names_in(folder: Location) -> list[str]:
    """Names of the files and folders directly in `folder`, sorted; empty if the folder does not exist.

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
    """Write a file atomically: with a rename locally, with one request in object storage.

    When this returns, the file and its name are durable.

    Raises:
        StorageError: when it cannot be written, for any reason.
    """
    with explained(f"writing {location}"):
        if isinstance(location, Path):
            local.write(location, data)
        else:
            objects.write(location, data)


def create_bytes(location: Location, data: bytes) -> bool:
    """Create a file atomically, unless it exists, and return whether it was created. Of several callers, one succeeds.

    Raises:
        StorageError: when it cannot be written, for any reason.
    """
    with explained(f"writing {location}"):
        return local.create(location, data) if isinstance(location, Path) else objects.create(location, data)


def remove(location: Location) -> None:
    """Remove a file.

    Raises:
        StorageError: when storage refuses, or a local file does not exist.
    """
    with explained(f"removing {location}"):
        if isinstance(location, Path):
            location.unlink()
        else:
            objects.remove([location])


def remove_all(folder: Location, names: Sequence[str]) -> None:
    """Remove files of a folder. Missing files are ignored.

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
