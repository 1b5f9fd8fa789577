"""Whole files between this machine and object storage, and folders of links."""

from __future__ import annotations

import glob
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from tamis.core.errors import ArtifactError, explained_os_errors
from tamis.core.storage import objects
from tamis.core.storage.errors import explained
from tamis.core.storage.fingerprints import sha256_of
from tamis.core.storage.local import unfinished
from tamis.core.storage.places import Location, ObjectPath

_STALE = 3600  # seconds after which nobody writes to an unfinished download any more


def upload(source: Path, target: Location) -> None:
    """Copy one local file into object storage, over what is there. It appears whole or not at all.

    Raises:
        StorageError: when storage refuses, or `source` cannot be read.
    """
    with explained(f"writing {target}"):
        objects.upload(source, _remote(target))


def download(source: Location, target: Path, *, sha256: str | None = None) -> None:
    """Copy one file from object storage to `target`, which appears whole or not at all.

    Raises:
        ArtifactError: when the file's checksum is not `sha256`.
        StorageError: when storage refuses, or the disk does.
    """
    # Pods that share a folder may fetch one file at once, all of them as process 1: each takes a name of its own.
    temporary = unfinished(target)
    try:
        with explained(f"reading {source}", absent=source), explained_os_errors(f"writing {target}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove_stale(target)
            objects.download(_remote(source), temporary)
            if sha256 is not None and sha256_of(temporary) != sha256:
                raise ArtifactError(f"{source}: its checksum is not the manifest's", action="make the artifact again")
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _remote(location: Location) -> ObjectPath:
    assert not isinstance(location, Path)
    return location


def _remove_stale(target: Path) -> None:
    """Remove what killed downloads of `target` have left: files that nobody has written to for an hour."""
    for left in target.parent.glob(f".{glob.escape(target.name)}.*"):
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _STALE:
                left.unlink()


def link_tree(source: Path, target: Path) -> None:
    """Make `target` a folder with the files of `source`: hard links, or copies where links are impossible."""

    def link(here: str, there: str) -> None:
        Path(there).unlink(missing_ok=True)  # never written through: it may be a link to another artifact's file
        try:
            os.link(here, there)
        except OSError:
            shutil.copy2(here, there)

    with explained_os_errors(f"writing {target}"):
        shutil.copytree(source, target, copy_function=link, dirs_exist_ok=True)
