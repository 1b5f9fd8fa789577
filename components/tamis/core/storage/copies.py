"""Uploads and downloads of files, and folders of links."""

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

_STALE = 3600  # seconds without a write after which an unfinished download is abandoned


def upload(source: Path, target: Location) -> None:
    """Copy a local file to object storage and replace what is there. The file appears complete or not at all.

    Raises:
        StorageError: when storage refuses, or `source` cannot be read.
    """
    with explained(f"writing {target}"):
        objects.upload(source, _remote(target))


def download(source: Location, target: Path, *, sha256: str | None = None) -> None:
    """Copy a file from object storage to `target`, which appears complete or not at all.

    Raises:
        ArtifactError: when the file's checksum is not `sha256`.
        StorageError: when storage or the disk refuses.
    """
    # Pods that share a folder may download a file at the same time, each as process 1, so names are random.
    temporary = unfinished(target)
    try:
        with explained(f"reading {source}", absent=source), explained_os_errors(f"writing {target}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove_stale(target)
            objects.download(_remote(source), temporary)
            if sha256 is not None and sha256_of(temporary) != sha256:
                problem = f"{source}: its checksum differs from the manifest's"
                # The file may have been damaged on the way.
                raise ArtifactError(problem, action="make the artifact again", permanent=False)
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _remote(location: Location) -> ObjectPath:
    assert not isinstance(location, Path)
    return location


def _remove_stale(target: Path) -> None:
    """Remove files of killed downloads of `target`, which have not been written to for an hour."""
    for left in target.parent.glob(f".{glob.escape(target.name)}.*"):
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _STALE:
                left.unlink()


def link_tree(source: Path, target: Path) -> None:
    """Create a folder `target` with hard links to the files of `source`, or copies where links are impossible."""

    def link(here: str, there: str) -> None:
        Path(there).unlink(missing_ok=True)  # never overwrite: it may be a link to another artifact's file
        try:
            os.link(here, there)
        except OSError:
            shutil.copy2(here, there)

    with explained_os_errors(f"writing {target}"):
        shutil.copytree(source, target, copy_function=link, dirs_exist_ok=True)
