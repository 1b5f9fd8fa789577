"""Local files, written atomically and durably, and the removal of what killed writers leave behind."""

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
_NO_SYNC = {errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}  # fsync is not supported


def unfinished(path: Path) -> Path:
    """A unique name next to `path`, for a file that is renamed to `path` when it is complete."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}")


def write(path: Path, data: bytes) -> None:
    """Write a file atomically. When this returns, the file and its name are durable."""
    made = list(takewhile(lambda folder: not folder.exists(), path.parents))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = unfinished(path)  # unlike tempfile's files, it gets the permissions of the user's umask
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):  # the first error is the one to report
            temporary.unlink(missing_ok=True)
        raise
    for folder in [path.parent, *(folder.parent for folder in made)]:
        sync_folder(folder)


def create(path: Path, data: bytes) -> bool:
    """Create a file atomically, unless it exists, and return whether it was created."""
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
    """Make the names in a local folder durable, so that a power cut does not undo earlier renames.

    Raises:
        OSError: when the disk refuses.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # a folder that may be written but not read
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(handle)


def remove_unfinished(folder: Path, *, older_than: float, now: float) -> int:
    """Remove the files of killed writers from a local folder, and return their number.

    Args:
        folder: the folder.
        older_than: least seconds since the last write to such a file.
        now: seconds since 1970, by the clock of the folder's file system.

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
