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

FAILED, PERMANENT = 1, 78  # exit codes: of any error, and of one that another attempt cannot help (EX_CONFIG)


class TamisError(Exception):
    """Base of every error that Tamis raises on purpose.

    `problem` says what was seen and where, `allowed` what would have been accepted, `action` what to do next. `code`
    identifies the kind of error to programs. Texts may change, codes do not.

    `permanent` says that another attempt with the same settings and inputs must fail in the same way, so that pods are
    not retried. Each class has its usual value, which a single error may override.
    """

    code: ClassVar[str] = "error"
    permanent: bool = False

    def __init__(self, problem: str, *, allowed: str = "", action: str = "", permanent: bool | None = None) -> None:
        self.problem, self.allowed, self.action = problem, allowed, action
        if permanent is not None:
            self.permanent = permanent
        super().__init__(problem)

    @property
    def exit_code(self) -> int:
        """The exit code of a process that this error ends: `PERMANENT` or `FAILED`."""
        return PERMANENT if self.permanent else FAILED

    def __str__(self) -> str:
        lines = [self.problem]
        if self.allowed:
            lines.append(f"  allowed: {self.allowed}")
        if self.action:
            lines.append(f"  to do:   {self.action}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions are pickled between processes (kfp.local, data loaders); keyword arguments need this.
        return _rebuild, (type(self), self.problem, self.allowed, self.action, self.permanent)


def _rebuild(kind: type[TamisError], problem: str, allowed: str, action: str, permanent: bool) -> TamisError:
    error = kind.__new__(kind)  # a subclass may take other arguments
    TamisError.__init__(error, problem, allowed=allowed, action=action, permanent=permanent)
    return error


class SettingsError(TamisError):
    """A setting is unknown, missing, of the wrong type or out of range."""

    code = "settings"
    permanent = True


class InputError(TamisError):
    """Data given to a stage cannot be used."""

    code = "input"
    permanent = True


class ArtifactError(TamisError):
    """A folder is not the finished artifact that a stage needs."""

    code = "artifact"
    permanent = True


class StorageError(TamisError):
    """A path, or object storage, cannot be read or written. Permanent where access is refused or the path is wrong."""

    code = "storage"
    permanent = False


class ModelError(TamisError):
    """A model cannot be loaded, or its output cannot be used, such as NaN. Permanent where the Hub refuses it."""

    code = "model"
    permanent = False


class RegistryError(TamisError):
    """An extension that another package adds to Tamis cannot be used."""

    code = "registry"
    permanent = True


class StoppedError(TamisError):
    """The work was stopped by a signal or by the user. A new attempt continues where it stopped."""

    code = "stopped"
    permanent = False


class UnparsableError(TamisError):
    """An answer or a value does not have the expected form. The text is "kind" or "kind: detail"; kinds are counted."""

    code = "unparsable"
    permanent = False


class UnexpectedError(TamisError):
    """An error that Tamis did not expect, from a library or from its own code."""

    code = "unexpected"
    permanent = False

    @classmethod
    def of(cls, error: Exception, doing: str) -> UnexpectedError:
        """Describe `error`, which ended the work called `doing`: its class, its message and where it was raised."""
        words = shown(" ".join(str(error).split()))[:_LONGEST]
        last = traceback.extract_tb(error.__traceback__)[-1:]
        where = f" ({Path(last[0].filename).name}, line {last[0].lineno})" if last else ""
        return cls(
            f"{doing} ended by {type(error).__name__}{': ' if words else ''}{words}{where}",
            action="look at the traceback in the log",
        )


def install(extras: str) -> str:
    """The command that installs `extras` of Tamis, separated by commas."""
    return f"pip install 'tamis[{extras}]'; in a checkout of Tamis: pip install -e '.[{extras}]'"


class MissingExtraError(TamisError):
    """An optional dependency is not installed."""

    code = "missing-extra"
    permanent = True

    @classmethod
    def of(cls, package: str, extra: str) -> MissingExtraError:
        """Name the missing `package` and the extra of Tamis that installs it."""
        return cls(f"the package '{package}' is not installed", action=install(extra))


_LONGEST = 1_000  # characters of an unexpected error's message
_OS_CAUSES = {
    errno.ENOSPC: ("no space left on the device", "free some space, or choose another folder"),
    errno.EDQUOT: ("the disk quota is used up", "free some space, or choose another folder"),
    errno.EACCES: ("permission denied", "give this user permission, or choose another path"),
    errno.EPERM: ("operation not permitted", "give this user permission, or choose another path"),
    errno.EROFS: ("the file system is read-only", "choose a writable folder"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "choose another path"),
    errno.EEXIST: ("a file is where a folder should be", "choose another path"),
    errno.EISDIR: ("this is a folder, not a file", "choose another path"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter path"),
    errno.EIO: ("the device reports an input/output error", "check the disk or the file server"),
    errno.ESTALE: ("the network file system no longer knows the file", "check the file server, and mount it again"),
    errno.EFBIG: ("the file would be larger than is allowed", "raise the limit (ulimit -f), or choose another folder"),
    errno.EMFILE: ("this process has too many files open", "raise the limit (ulimit -n)"),
    errno.ENFILE: ("this machine has too many files open", "raise the limit (sysctl fs.file-max)"),
    errno.ETIMEDOUT: ("the file system did not answer in time", "check the file server"),
    errno.ENOTCONN: ("the file system is not connected to its server", "check the file server, and mount it again"),
    errno.EBUSY: ("it is in use by another process", "stop that process, or choose another path"),
    errno.ENOMEM: ("there is not enough memory", "give the process more memory"),
}
# Of these, another attempt cannot help: the others may pass, or another node may not have them.
_PERMANENT_CAUSES = frozenset(
    (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG)
)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents if they do not exist.

    Raises:
        StorageError: when the system refuses, also where no folder can be created at all, as in /proc.
    """
    with explained_os_errors(f"writing {folder}"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            # Otherwise another process has just removed it, and perhaps created it again.
            if os.path.lexists(folder) and not folder.is_dir():
                raise
        except FileNotFoundError:
            problem = f"cannot create the folder {folder}"
            raise StorageError(problem, action="choose another path", permanent=True) from None


@contextmanager
def explained_os_errors(what: str) -> Iterator[None]:
    """Turn errors of the operating system (full disk, no permission, read-only) into `StorageError`.

    `what` describes the operation, as in "writing build/demo/pool".
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _OS_CAUSES:
            raise
        seen, action = _OS_CAUSES[error.errno]
        where = f" ({error.filename})" if error.filename else ""
        permanent = error.errno in _PERMANENT_CAUSES
        raise StorageError(f"{what}: {seen}{where}", action=action, permanent=permanent) from error
