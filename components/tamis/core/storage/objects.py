"""Files in object storage, through obstore: one client for S3, Azure Blob and Google Cloud Storage.

A missing file raises `FileNotFoundError`. Other errors are obstore's own; `errors.py` explains them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tamis.core.errors import StorageError
from tamis.core.storage.clients import store_of
from tamis.core.storage.places import ObjectPath

if TYPE_CHECKING:
    from obstore import ObjectMeta

T = TypeVar("T")
_PART = 8 << 20  # bytes of a part of a large file, as in AWS' clients, so that S3's entity tags are the same
_MOST_PARTS = 10_000  # of a file; S3's limit
_BLOCK = 10 << 20  # bytes of a download in memory at once
_MOST_AT_ONCE = 1000  # objects that one call removes
_PAGE = 1000  # objects of a listing converted to Python at once
_TRIES = 3  # attempts to create an object if the server does not answer


def read(path: ObjectPath) -> bytes:
    """All bytes of an object."""
    key = _key(path)
    return _call(lambda: bytes(store_of(path).get(key).bytes()))


def _key(path: ObjectPath) -> str:
    """The key of a file.

    Raises:
        StorageError: when `path` is a bucket.
    """
    if not path.key:
        raise StorageError(f"{path} is a bucket, not a file", allowed=f"{path}folder/file", permanent=True)
    return path.key


def size(path: ObjectPath) -> int:
    """Size of an object in bytes."""
    key = _key(path)
    return _call(lambda: store_of(path).head(key)["size"])


def write(path: ObjectPath, data: bytes) -> None:
    """Write an object with one request and replace what is there."""
    key = _key(path)
    _call(lambda: store_of(path).put(key, data, use_multipart=False))


def create(path: ObjectPath, data: bytes) -> bool:
    """Create an object unless it exists, and return whether it was created. `data` must be unique to this caller."""
    from obstore.exceptions import AlreadyExistsError, GenericError

    key = _key(path)

    def once() -> None:
        with suppress(AlreadyExistsError):
            store_of(path).put(key, data, mode="create")

    for attempt in range(_TRIES):
        try:
            _call(once)
            break
        except GenericError:  # the client does not retry such a request, because it may have succeeded
            if attempt == _TRIES - 1:
                raise
    # An earlier attempt may have succeeded without an answer, and some servers ignore the condition, so compare.
    return read(path) == data


def exists(path: ObjectPath) -> bool:
    """Whether there is an object at or below `path`. If access is denied, that is an error, not "no"."""
    own, denied = _own(path)
    if own is not None:
        return True
    below = _call(lambda: next(iter(store_of(path).list(path.key or None)), []))
    if denied is not None and not below:
        raise denied
    return bool(below) or not path.key


def names(folder: ObjectPath) -> list[str]:
    """The names of what is directly in a folder, in arbitrary order."""
    found = _call(lambda: store_of(folder).list_with_delimiter(folder.key or None))
    keys = [*found["common_prefixes"], *(one["path"] for one in found["objects"])]
    return [key.rpartition("/")[2] for key in keys if key != folder.key]  # an empty object may represent a folder


def tags(path: ObjectPath) -> dict[ObjectPath, str]:
    """The object at `path`, or otherwise all objects below it, with their entity tags in quotes."""
    own, denied = _own(path)
    if own is not None:
        return {path: _tag_of(own)}
    found = _call(lambda: store_of(path).list(path.key or None, chunk_size=_PAGE).collect())
    if denied is not None and not found:
        raise denied
    folders = {path.key} | {parent for one in found for parent in _parents(one["path"])}
    places = {one["path"]: ObjectPath(path.scheme, path.bucket, one["path"]) for one in found}
    # Web consoles represent a folder by an empty object "folder/", which appears in listings as "folder".
    return {
        places[one["path"]]: _tag_of(one)
        for one in found
        if one["size"] or (one["path"] not in folders and _own(places[one["path"]])[0] is not None)
    }


def _own(path: ObjectPath) -> tuple[ObjectMeta | None, Exception | None]:
    """The object with exactly this name, or None; and the error if access is denied."""
    from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

    try:
        return _call(lambda: store_of(path).head(path.key)) if path.key else None, None
    except FileNotFoundError:
        return None, None
    except (PermissionDeniedError, UnauthenticatedError) as error:
        # Without the right to list a bucket, access to a missing object is also denied. Listing then shows the error.
        return None, error


def _parents(key: str) -> Iterator[str]:
    while "/" in key:
        key = key.rpartition("/")[0]
        yield key


def _tag_of(found: ObjectMeta) -> str:
    """An object's entity tag, in quotes as S3 returns it; Azure's listings have no quotes."""
    tag = (found["e_tag"] or found["last_modified"].isoformat()).strip('"')
    return f'"{tag}"'


def remove(paths: Sequence[ObjectPath]) -> None:
    """Remove objects of one bucket. Missing objects are ignored."""
    for start in range(0, len(paths), _MOST_AT_ONCE):
        some = paths[start : start + _MOST_AT_ONCE]
        keys = [_key(path) for path in some]
        store = _call(partial(store_of, some[0]))
        try:
            _call(partial(store.delete, keys))
        except FileNotFoundError:  # Azure and Google report a missing object, and may have stopped there
            for key in keys:
                with suppress(FileNotFoundError):
                    _call(partial(store.delete, key))


def upload(source: Path, target: ObjectPath) -> None:
    """Copy a local file to an object. Large files are sent in parts; the object appears with the last part."""
    key = _key(target)
    part = max(_PART, -(-source.stat().st_size // _MOST_PARTS))
    _call(lambda: store_of(target).put(key, source, chunk_size=part))


def download(source: ObjectPath, target: Path) -> None:
    """Copy an object to a local file."""
    key = _key(source)

    def fetch() -> None:
        with target.open("wb") as file:
            for block in store_of(source).get(key).stream(min_chunk_size=_BLOCK):
                file.write(block)

    _call(fetch)


def _call(work: Callable[[], T]) -> T:
    """Call `work` so that Ctrl-C works meanwhile: the client ignores signals until it has an answer.

    Raises:
        obstore.exceptions.BaseError: when the client panics, as it does for some wrong settings.
    """
    try:
        return _waited_for(work)
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # it is not an Exception, and its class cannot be imported
            raise
        from obstore.exceptions import BaseError

        raise BaseError(f"the client of object storage failed: {error}") from error


def _waited_for(work: Callable[[], T]) -> T:
    if threading.current_thread() is not threading.main_thread():
        return work()
    outcome = Future[T]()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return outcome.result()
