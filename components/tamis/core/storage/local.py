"""Local files that appear whole and stay, and what killed writers of them leave behind."""

from __future__ import annotations

import errno
import os
import re
import uuid
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

from tamis.core.errors import explained_os_errors

_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{32}")  # names of files that are being written
_NO_SYNC = {errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}  # by which folders refuse it


def unfinished(path: Path) -> Path:
    """A name of its own, beside `path`, for a file that is being written and gets the name `path` at its end."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}")


def write(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees all of it or nothing; its name is durable, too, when this returns."""
    made = list(takewhile(lambda folder: not folder.exists(), path.parents))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = unfinished(path)  # with the user's own mask, unlike tempfile's
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):  # what went wrong first is told
            temporary.unlink(missing_ok=True)
        raise
    for folder in [path.parent, *(folder.parent for folder in made)]:
        sync_folder(folder)


def create(path: Path, data: bytes) -> bool:
    """Write a file that is not there yet, whole; whether it was not there."""
    temporary = unfinished(path)
    write(temporary, data)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    return True


def sync_folder(folder: Path) -> None:
    """Make the names in a local folder durable: a power cut takes no file away that was renamed before.

    Raises:
        OSError: when the disk refuses.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # a folder that may be written and not be read
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(handle)


def remove_unfinished(folder: Path, *, older_than: float, now: float) -> int:
    """Remove what killed writers of files have left in a local folder; how many.

    Args:
        folder: that they wrote to.
        older_than: seconds since anybody wrote to such a file.
        now: seconds since 1970, by the clock of the folder's disk.

    Raises:
        StorageError: when the disk refuses.
    """
    removed = 0
    with explained_os_errors(f"removing unfinished files of {folder}"), os.scandir(folder) as entries:
        for entry in entries:
            if _UNFINISHED.fullmatch(entry.name) and now - entry.stat(follow_symlinks=False).st_mtime > older_than:
                os.unlink(entry)
                removed += 1
    return removed
