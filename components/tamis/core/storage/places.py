"""Paths that are local or in object storage."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import total_ordering
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from tamis.core.errors import MissingExtraError, StorageError

# For each storage, the extra of Tamis that it needs and the extra's packages.
_EXTRAS = {"s3": ("s3", ("obstore", "botocore")), "az": ("azure", ("obstore",)), "gs": ("gcs", ("obstore",))}
SCHEMES = tuple(_EXTRAS)
_BUCKET = re.compile(r"[A-Za-z0-9$][A-Za-z0-9._-]*")


@total_ordering
@dataclass(frozen=True)
class ObjectPath:
    """A file or folder in object storage; its text is `scheme://bucket/key`. Paths sort as local ones do.

    Attributes:
        scheme: "s3", "az" or "gs".
        bucket: the bucket, which Azure calls a container.
        key: names with slashes between them; empty for the bucket itself.
    """

    scheme: str
    bucket: str
    key: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}"

    def __truediv__(self, name: str) -> ObjectPath:
        return ObjectPath(self.scheme, self.bucket, f"{self.key}/{name}" if self.key else name)

    def __lt__(self, other: ObjectPath) -> bool:
        return (self.scheme, self.bucket, self.key.split("/")) < (other.scheme, other.bucket, other.key.split("/"))

    @property
    def name(self) -> str:
        """The last name; empty for a bucket."""
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> ObjectPath:
        """The folder that contains it; a bucket is its own parent."""
        return ObjectPath(self.scheme, self.bucket, self.key.rpartition("/")[0])

    def with_name(self, name: str) -> ObjectPath:
        """The path `name` in the same folder."""
        return self.parent / name

    def relative_to(self, folder: ObjectPath) -> PurePosixPath:
        """The path relative to `folder`, which must contain it."""
        return PurePosixPath(self.key).relative_to(folder.key)


Location: TypeAlias = Path | ObjectPath


def is_remote(uri: str | Path) -> bool:
    """Whether `uri` is in object storage, as in "s3://bucket/folder"."""
    return "://" in str(uri)


def extra_of(uri: str) -> tuple[str, tuple[str, ...]] | None:
    """The extra of Tamis that the storage of `uri` needs, and its packages; None for a local path."""
    return _EXTRAS.get(uri.split("://", 1)[0]) if is_remote(uri) else None


# Within `only_local`: fingerprints of local files and folders that are already computed.
_only_local: ContextVar[dict[str, str] | None] = ContextVar("_only_local", default=None)


@contextmanager
def only_local() -> Iterator[None]:
    """Within this context object storage is not used: `locate` raises an error for its URIs.

    Local files are assumed not to change meanwhile, so each `fingerprint` is computed once.
    """
    token = _only_local.set({})
    try:
        yield
    finally:
        _only_local.reset(token)


def known_fingerprints() -> dict[str, str] | None:
    """Computed fingerprints by path within `only_local`; None outside it."""
    return _only_local.get()


def locate(uri: str | Path) -> Location:
    """Turn a local path or a URI into a path object. Storage is not accessed.

    Raises:
        StorageError: when the storage is unknown, the bucket's name is not valid, or the URI is remote within
            `only_local`.
        MissingExtraError: when the storage's client is not installed.
    """
    if not is_remote(uri):
        if str(uri).partition(":")[0] in _EXTRAS and ":" in str(uri):
            raise StorageError(
                f"{uri} is neither a local path nor a URI",
                allowed="scheme://bucket/folder/file, or ./name for a local file",
                permanent=True,
            )
        return Path(os.path.expanduser(uri))
    if _only_local.get() is not None:
        raise StorageError(f"{uri} is in object storage, which is not used here")
    scheme, _, rest = str(uri).partition("://")
    if scheme not in _EXTRAS:
        allowed = "a local path, s3://, az:// or gs://"
        raise StorageError(f"{uri}: unknown storage '{scheme}'", allowed=allowed, permanent=True)
    extra, packages = _EXTRAS[scheme]
    for package in packages:
        if find_spec(package) is None:
            raise MissingExtraError.of(package, extra)
    bucket, *names = rest.split("/")
    names = [name for name in names if name]
    if not _BUCKET.fullmatch(bucket) or not set(names).isdisjoint({".", ".."}) or not rest.isprintable():
        raise StorageError(
            f"{uri!r} is not a valid path in object storage",
            allowed=f"{scheme}://bucket/folder/file, without '.', '..' and control characters; a bucket's name has "
            "letters, digits, '.', '_' and '-'",
            permanent=True,
        )
    return ObjectPath(scheme, bucket, "/".join(names))


def missing(uri: str | Path) -> StorageError:
    """The error for a missing `uri`. For a relative path it names the current folder."""
    return StorageError(f"{looked_for(uri)} does not exist", action="check the path", permanent=True)


def looked_for(uri: str | Path) -> str:
    """`uri`, with the current folder if it is a relative path."""
    relative = not is_remote(uri) and not Path(os.path.expanduser(uri)).is_absolute()
    return f"{uri} (looked for in {Path.cwd()}, where you started the command)" if relative else str(uri)


def below(folder: Location, file: Location) -> str:
    """The path of `file` relative to `folder`, with slashes; its name if both are the same."""
    return file.name if file == folder else file.relative_to(folder).as_posix()  # type: ignore[arg-type]
