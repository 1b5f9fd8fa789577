"""Errors that users meet. Each says what was seen, what is allowed and what to do."""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from tamis.core.secrets import shown


class TamisError(Exception):
    """Base of every error that Tamis raises on purpose.

    `problem` says what was seen and where, `allowed` what would have been accepted, `action` what to do next. `code` is
    the kind of error, for programs; it stays the same when words change.
    """

    code: ClassVar[str] = "error"

    def __init__(self, problem: str, *, allowed: str = "", action: str = "") -> None:
        self.problem, self.allowed, self.action = problem, allowed, action
        super().__init__(problem)

    def __str__(self) -> str:
        lines = [self.problem]
        if self.allowed:
            lines.append(f"  allowed: {self.allowed}")
        if self.action:
            lines.append(f"  to do:   {self.action}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions cross process borders (kfp.local, data loaders) by their arguments; keyword ones need this.
        return _rebuild, (type(self), self.problem, self.allowed, self.action)


def _rebuild(kind: type[TamisError], problem: str, allowed: str, action: str) -> TamisError:
    return kind(problem, allowed=allowed, action=action)


class SettingsError(TamisError):
    """A setting is unknown, missing, of the wrong type or out of range."""

    code = "settings"


class InputError(TamisError):
    """Data given to a stage cannot be used."""

    code = "input"


class ArtifactError(TamisError):
    """A directory is not the finished artifact that it should be."""

    code = "artifact"


class StorageError(TamisError):
    """A path or bucket cannot be read or written."""

    code = "storage"


class ModelError(TamisError):
    """A model cannot be loaded, or gave what no healthy model gives."""

    code = "model"


class RegistryError(TamisError):
    """Something that a package adds to Tamis cannot be used."""

    code = "registry"


class StoppedError(TamisError):
    """Work was ended from outside; another try goes on where it stopped."""

    code = "stopped"


class UnparsableError(TamisError):
    """An answer is not in its form. Its text is "kind" or "kind: detail"; the kinds are few, for counting."""

    code = "unparsable"


class UnexpectedError(TamisError):
    """An error that Tamis does not know, of a library or its own."""

    code = "unexpected"

    @classmethod
    def of(cls, error: Exception, doing: str) -> UnexpectedError:
        """Tell `error`, which ended what is named by `doing`: its kind, its words, and where it came from."""
        words = shown(" ".join(str(error).split()))[:_LONGEST]
        last = traceback.extract_tb(error.__traceback__)[-1:]
        where = f" ({Path(last[0].filename).name}, line {last[0].lineno})" if last else ""
        return cls(
            f"{doing} ended by {type(error).__name__}{': ' if words else ''}{words}{where}",
            action="look at the traceback in the log",
        )


def install(extras: str) -> str:
    """How to install extras of Tamis, with commas between them."""
    return f"pip install 'tamis[{extras}]'; in a checkout of Tamis: pip install -e '.[{extras}]'"


class MissingExtraError(TamisError):
    """An optional dependency is not installed."""

    code = "missing-extra"

    @classmethod
    def of(cls, package: str, extra: str) -> MissingExtraError:
        """Name the missing `package` and the extra of Tamis that brings it."""
        return cls(f"the package '{package}' is not installed", action=install(extra))


_LONGEST = 1_000  # characters of an unknown error's words
_OS_CAUSES = {
    errno.ENOSPC: ("no space left on the device", "free space there, or choose another folder"),
    errno.EDQUOT: ("the disk quota is used up", "free space there, or choose another folder"),
    errno.EACCES: ("permission denied", "grant this user the right to it, or choose another path"),
    errno.EPERM: ("operation not permitted", "grant this user the right to it, or choose another path"),
    errno.EROFS: ("the file system is read-only", "choose a writable folder"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "choose another path"),
    errno.EEXIST: ("a file is where a folder should be", "choose another path"),
    errno.EISDIR: ("this is a folder, not a file", "choose another path"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter path"),
    errno.EIO: ("the device reports an input/output error", "check the disk, or the server that it is mounted from"),
    errno.ESTALE: ("the network file system has lost the file", "check its server, and mount it again"),
    errno.EFBIG: ("the file would be larger than is allowed", "raise the limit (ulimit -f), or choose another folder"),
    errno.EMFILE: ("this process has too many files open", "raise the limit (ulimit -n)"),
    errno.ENFILE: ("this machine has too many files open", "raise the limit (sysctl fs.file-max)"),
    errno.ETIMEDOUT: ("the file system did not answer in time", "check the server that it is mounted from"),
    errno.ENOTCONN: ("the file system has lost its server", "check the server, and mount it again"),
    errno.EBUSY: ("it is in use by another process", "end that process, or choose another path"),
    errno.ENOMEM: ("no memory is left", "give the process more memory"),
}


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, unless it is there.

    Raises:
        StorageError: when the system refuses it, also where no folder can be made at all, as in /proc.
    """
    with explained_os_errors(f"writing {folder}"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            # Else another process has removed it at this moment, and perhaps made it again.
            if os.path.lexists(folder) and not folder.is_dir():
                raise
        except FileNotFoundError:
            raise StorageError(f"no folder can be made at {folder}", action="choose another place") from None


@contextmanager
def explained_os_errors(what: str) -> Iterator[None]:
    """Turn the operating system's refusals (full disk, no permission, read-only) into `StorageError`.

    `what` says what was being done, as in "writing build/demo/pool".
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _OS_CAUSES:
            raise
        seen, action = _OS_CAUSES[error.errno]
        where = f" ({error.filename})" if error.filename else ""
        raise StorageError(f"{what}: {seen}{where}", action=action) from error
