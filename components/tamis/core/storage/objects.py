"""Files in object storage, through obstore: one client for S3, Azure Blob and Google Cloud Storage.

That a file is not there is a `FileNotFoundError`; other refusals are obstore's own errors, see `errors.py`.
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
_PART = 8 << 20  # bytes of one part of a large file; as the AWS clients cut, so that S3's entity tags are the same
_MOST_PARTS = 10_000  # of one file, by S3's rule
_BLOCK = 10 << 20  # bytes of a download that are in memory at once
_MOST_AT_ONCE = 1000  # objects that one call removes
_PAGE = 1000  # objects of a list that become Python's at once
_TRIES = 3  # of creating an object whose server answers nothing


def read(path: ObjectPath) -> bytes:
    """All bytes of an object."""
    key = _key(path)
    return _heard(lambda: bytes(store_of(path).get(key).bytes()))


def _key(path: ObjectPath) -> str:
    """The key of a file.

    Raises:
        StorageError: when `path` is a bucket.
    """
    if not path.key:
        raise StorageError(f"{path} is a bucket, not a file", allowed=f"{path}folder/file")
    return path.key


def size(path: ObjectPath) -> int:
    """Bytes of an object."""
    key = _key(path)
    return _heard(lambda: store_of(path).head(key)["size"])


def write(path: ObjectPath, data: bytes) -> None:
    """Write an object by one request, over what is there."""
    key = _key(path)
    _heard(lambda: store_of(path).put(key, data, use_multipart=False))


def create(path: ObjectPath, data: bytes) -> bool:
    """Write an object that is not there yet; whether it was not there. `data` is unlike that of all others who try."""
    from obstore.exceptions import AlreadyExistsError, GenericError

    key = _key(path)

    def once() -> None:
        with suppress(AlreadyExistsError):
            store_of(path).put(key, data, mode="create")

    for attempt in range(_TRIES):
        try:
            _heard(once)
            break
        except GenericError:  # the client itself does not send it again, for it may have been heard
            if attempt == _TRIES - 1:
                raise
    # The first of several sendings may have been heard, and its answer lost; and some servers know no conditions.
    return read(path) == data


def exists(path: ObjectPath) -> bool:
    """Whether there is an object, or one below it, as in a folder. To be denied an answer is an error, not a no."""
    own, denied = _own(path)
    if own is not None:
        return True
    below = _heard(lambda: next(iter(store_of(path).list(path.key or None)), []))
    if denied is not None and not below:
        raise denied
    return bool(below) or not path.key


def names(folder: ObjectPath) -> list[str]:
    """The names of what lies directly in a folder, in no order that means anything."""
    found = _heard(lambda: store_of(folder).list_with_delimiter(folder.key or None))
    keys = [*found["common_prefixes"], *(one["path"] for one in found["objects"])]
    return [key.rpartition("/")[2] for key in keys if key != folder.key]  # an empty object may stand for a folder


def tags(path: ObjectPath) -> dict[ObjectPath, str]:
    """The objects at `path`, itself or else all below it, with their entity tags, which are in quotes."""
    own, denied = _own(path)
    if own is not None:
        return {path: _tag_of(own)}
    found = _heard(lambda: store_of(path).list(path.key or None, chunk_size=_PAGE).collect())
    if denied is not None and not found:
        raise denied
    folders = {path.key} | {parent for one in found for parent in _parents(one["path"])}
    places = {one["path"]: ObjectPath(path.scheme, path.bucket, one["path"]) for one in found}
    # Consoles show a folder by an empty object of the name "folder/", which lists give as "folder".
    return {
        places[one["path"]]: _tag_of(one)
        for one in found
        if one["size"] or (one["path"] not in folders and _own(places[one["path"]])[0] is not None)
    }


def _own(path: ObjectPath) -> tuple[ObjectMeta | None, Exception | None]:
    """The object of exactly this name, None where there is none; or why storage does not say."""
    from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

    try:
        return _heard(lambda: store_of(path).head(path.key)) if path.key else None, None
    except FileNotFoundError:
        return None, None
    except (PermissionDeniedError, UnauthenticatedError) as error:
        # Without the right to list a bucket, an object that is not there is forbidden, too; then listing says so.
        return None, error


def _parents(key: str) -> Iterator[str]:
    while "/" in key:
        key = key.rpartition("/")[0]
        yield key


def _tag_of(found: ObjectMeta) -> str:
    """An object's entity tag, in quotes as S3 gives it; Azure's lists have none around it."""
    tag = (found["e_tag"] or found["last_modified"].isoformat()).strip('"')
    return f'"{tag}"'


def remove(paths: Sequence[ObjectPath]) -> None:
    """Remove objects of one bucket; those that are not there are left."""
    for start in range(0, len(paths), _MOST_AT_ONCE):
        some = paths[start : start + _MOST_AT_ONCE]
        keys = [_key(path) for path in some]
        store = _heard(partial(store_of, some[0]))
        try:
            _heard(partial(store.delete, keys))
        except FileNotFoundError:  # Azure and Google say so, and may have stopped there
            for key in keys:
                with suppress(FileNotFoundError):
                    _heard(partial(store.delete, key))


def upload(source: Path, target: ObjectPath) -> None:
    """Copy a local file to an object; large ones go in parts, and appear when the last one is there."""
    key = _key(target)
    part = max(_PART, -(-source.stat().st_size // _MOST_PARTS))
    _heard(lambda: store_of(target).put(key, source, chunk_size=part))


def download(source: ObjectPath, target: Path) -> None:
    """Copy an object to a local file."""
    key = _key(source)

    def fetch() -> None:
        with target.open("wb") as file:
            for block in store_of(source).get(key).stream(min_chunk_size=_BLOCK):
                file.write(block)

    _heard(fetch)


def _heard(work: Callable[[], T]) -> T:
    """What `work` returns. The client hears no signals until it has its answer; so that Ctrl-C does, it waits aside.

    Raises:
        obstore.exceptions.BaseError: when the client panics, as it does for settings that it has not checked.
    """
    try:
        return _waited_for(work)
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # not an Exception, and its class cannot be imported
            raise
        from obstore.exceptions import BaseError

        raise BaseError(f"the client of object storage has failed: {error}") from error


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
