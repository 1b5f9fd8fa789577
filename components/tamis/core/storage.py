"""Paths that may be local folders or object storage: `s3://` through boto3, `az://` and `gs://` the same way."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import re
import shutil
import socket
import time
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tamis.core.errors import ArtifactError, MissingExtraError, StorageError, explained_os_errors

if TYPE_CHECKING:
    from cloudpathlib import CloudPath

Location: TypeAlias = "Path | CloudPath"
# What reads each storage: the package, Tamis' extra that brings it, and what to check when it does not answer.
_CLIENTS = {
    "s3": (
        "boto3",
        "s3",
        "check the bucket, the endpoint (AWS_ENDPOINT_URL_S3), the region and the credentials",
    ),
    "az": ("azure-storage-blob", "azure", "check the container, the network and AZURE_STORAGE_CONNECTION_STRING"),
    "gs": ("google-cloud-storage", "gcs", "check the bucket, the network and GOOGLE_APPLICATION_CREDENTIALS"),
}
_GOOGLE = "storage.googleapis.com"
_BLOCK = 1 << 20
_STALE = 3600  # seconds
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{32}")  # names of local files that are being written
_MOST_AT_ONCE = 1000  # objects that one request removes
_TRIES = 5  # of reading an object that breaks off
_NO_SYNC = {errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}  # by which folders refuse it


def is_remote(uri: str | Path) -> bool:
    """Whether `uri` names object storage, as in "s3://bucket/folder"."""
    return "://" in str(uri)


# Within `only_local`: fingerprints of this machine's files and folders that were computed already.
_only_local: ContextVar[dict[str, str] | None] = ContextVar("_only_local", default=None)


@contextmanager
def only_local() -> Iterator[None]:
    """Within this context object storage is not asked: `locate` refuses its URIs.

    What lies on this machine is taken not to change meanwhile: every `fingerprint` is computed once.
    """
    token = _only_local.set({})
    try:
        yield
    finally:
        _only_local.reset(token)


def locate(uri: str | Path) -> Location:
    """Turn a local path or a URI into a path object.

    Credentials, region, endpoint and CA bundle of S3 are the standard ones of boto3: `AWS_ACCESS_KEY_ID`,
    `AWS_ENDPOINT_URL_S3`, `AWS_CA_BUNDLE`, profiles and web identities.

    Raises:
        StorageError: when the scheme is unknown, or nothing but this machine is to be looked at (`only_local`).
        MissingExtraError: when the client of that storage is not installed.
    """
    if not is_remote(uri):
        return Path(os.path.expanduser(uri))
    if _only_local.get() is not None:
        raise StorageError(f"{uri} is in object storage, which is not asked here")
    scheme = str(uri).split("://", 1)[0]
    if scheme not in _CLIENTS:
        raise StorageError(f"{uri}: unknown storage '{scheme}'", allowed="a local path, s3://, az:// or gs://")
    try:
        from cloudpathlib import AnyPath

        if scheme == "s3":
            os.environ.setdefault("AWS_RETRY_MODE", "standard")
            os.environ.setdefault("AWS_MAX_ATTEMPTS", "8")
        elif scheme == "gs":
            _refuse_unreachable(str(uri))
        location: Location = AnyPath(str(uri))
        return location
    except ImportError as error:
        package, extra, _ = _CLIENTS[scheme]
        name = "cloudpathlib" if error.name == "cloudpathlib" else package
        raise MissingExtraError.of(name, extra) from None
    except Exception as error:
        raise _as_storage_error(error, f"opening {uri}") from error


def missing(uri: str | Path) -> StorageError:
    """The error that nothing is at `uri`; of a relative path it says where that was looked for."""
    return StorageError(f"{looked_for(uri)} does not exist", action="check the path")


def looked_for(uri: str | Path) -> str:
    """`uri`, and of a relative path the folder in which it is looked for."""
    relative = not is_remote(uri) and not Path(os.path.expanduser(uri)).is_absolute()
    return f"{uri} (looked for in {Path.cwd()}, the folder that the command was started in)" if relative else str(uri)


def _refuse_unreachable(uri: str) -> None:
    """Google's client tries for two minutes to find a machine whose name nobody knows, in silence."""
    if os.environ.get("STORAGE_EMULATOR_HOST") or urllib.request.getproxies():
        return
    try:
        socket.getaddrinfo(_GOOGLE, 443)
    except socket.gaierror as error:
        raise StorageError(f"opening {uri}: {_GOOGLE} cannot be found: {error}", action=_CLIENTS["gs"][2]) from None


def read_bytes(location: Location) -> bytes:
    """All bytes of one file.

    Raises:
        StorageError: when it does not exist or storage refuses.
    """
    try:
        with explained_os_errors(f"reading {location}"):
            if (s3 := _s3_client(location)) is not None:
                return _get(s3, location)
            return location.read_bytes()
    except FileNotFoundError:
        raise missing(str(location)) from None
    except Exception as error:
        raise _as_storage_error(error, f"reading {location}") from error


def exists(location: Location) -> bool:
    """Whether a file or folder is there.

    Raises:
        StorageError: when storage does not answer.
    """
    try:
        if (s3 := _s3_client(location)) is not None:
            return _there(s3, location)
        return bool(location.exists())
    except Exception as error:
        raise _as_storage_error(error, f"looking for {location}") from error


def files_below(location: Location) -> list[Location]:
    """All files in a folder and its subfolders, sorted by path; a file is the only one of its own. Empty if none.

    Raises:
        StorageError: when storage does not answer.
    """
    try:
        with explained_os_errors(f"looking for files in {location}"):
            if location.is_file():
                return [location]
            return sorted(file for file in location.rglob("*") if file.is_file())
    except Exception as error:
        raise _as_storage_error(error, f"looking for files in {location}") from error


def below(folder: Location, file: Location) -> str:
    """The path of `file` in `folder`, with slashes; its name where both are one."""
    return file.name if file == folder else file.relative_to(folder).as_posix()  # type: ignore[arg-type]


def children(folder: Location) -> list[Location]:
    """What lies directly in `folder`, sorted by name; nothing when there is no such folder.

    Raises:
        StorageError: when storage does not answer, or `folder` is a file.
    """
    try:
        with explained_os_errors(f"reading {folder}"):
            return sorted(folder.iterdir(), key=lambda location: location.name)
    except FileNotFoundError:
        return []
    except Exception as error:
        raise _as_storage_error(error, f"reading {folder}") from error


def names_in(folder: Location) -> list[str]:
    """The names of what `children` finds, for folders of very many files.

    Raises:
        StorageError: when storage does not answer, or `folder` is a file.
    """
    try:
        with explained_os_errors(f"reading {folder}"):
            if isinstance(folder, Path):
                return sorted(os.listdir(folder))
            if (s3 := _s3_client(folder)) is not None:
                return sorted(_names_in_s3(s3, folder))
            return sorted(location.name for location in folder.iterdir())
    except FileNotFoundError:
        return []
    except Exception as error:
        raise _as_storage_error(error, f"reading {folder}") from error


def write_bytes(location: Location, data: bytes) -> None:
    """Write one file so that a reader sees all of it or nothing: rename locally, one request to object storage.

    When this returns, the file is durable, its name too.

    Raises:
        StorageError: when it cannot be written, whatever the reason.
    """
    try:
        with explained_os_errors(f"writing {location}"):
            if isinstance(location, Path):
                _write_local(location, data)
            elif (s3 := _s3_client(location)) is not None:
                _put(s3, location, data)
            else:
                location.write_bytes(data)
    except Exception as error:
        raise _as_storage_error(error, f"writing {location}") from error


def create_bytes(location: Location, data: bytes) -> bool:
    """Write a file that is not there yet, whole; whether it was not there. Of several that try, one succeeds.

    On Azure and Google two that try at the very same time may both.
    """
    try:
        with explained_os_errors(f"writing {location}"):
            if isinstance(location, Path):
                return _create_local(location, data)
            if (s3 := _s3_client(location)) is not None:
                return _put_new(s3, location, data)
            if location.exists():
                return False
            location.write_bytes(data)
            return True
    except Exception as error:
        raise _as_storage_error(error, f"writing {location}") from error


def _s3_client(location: Location) -> Any:
    """boto3's client of an object in S3, else None.

    Small files are read and written by one request each. cloudpathlib sends several, and takes every error of the one
    that looks for a file, a lack of permission or a server that is out of order, for its absence.
    """
    return None if isinstance(location, Path) or location.cloud_prefix != "s3://" else location.client.client


def _put(s3: Any, location: Any, data: bytes) -> None:
    s3.put_object(Bucket=location.bucket, Key=location.key, Body=data)


def _put_new(s3: Any, location: Any, data: bytes) -> bool:
    from botocore.exceptions import ClientError

    try:
        s3.put_object(Bucket=location.bucket, Key=location.key, Body=data, IfNoneMatch="*")
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] not in (409, 412):
            raise
    # The first of several sendings may have been heard, and its answer lost; and some servers know no conditions.
    return _get(s3, location) == data


def _get(s3: Any, location: Any) -> bytes:
    """The bytes of an object. One that breaks off is asked for again, which boto3 leaves to its callers."""
    from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError

    for attempt in range(_TRIES):
        try:
            found: bytes = s3.get_object(Bucket=location.bucket, Key=location.key)["Body"].read()
            return found
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                raise FileNotFoundError(str(location)) from None
            raise
        except (HTTPClientError, IncompleteReadError):
            if attempt == _TRIES - 1:
                raise
    raise AssertionError


def _names_in_s3(s3: Any, folder: Any) -> Iterator[str]:
    prefix = f"{folder.key.rstrip('/')}/" if folder.key else ""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=folder.bucket, Prefix=prefix, Delimiter="/")
    for page in pages:
        yield from (one["Key"].removeprefix(prefix) for one in page.get("Contents", ()) if one["Key"] != prefix)
        yield from (one["Prefix"].removeprefix(prefix).rstrip("/") for one in page.get("CommonPrefixes", ()))


def _delete(s3: Any, folder: Any, names: Sequence[str]) -> None:
    keys = [{"Key": (folder / name).key} for name in names]
    told = s3.delete_objects(Bucket=folder.bucket, Delete={"Objects": keys, "Quiet": True})
    for error in told.get("Errors", ()):
        if error.get("Code") != "NoSuchKey":
            raise StorageError(f"removing {error.get('Key')}: {error.get('Code')}", action=_CLIENTS["s3"][2])


def _there(s3: Any, location: Any) -> bool:
    """Whether there is an object, or one below it, as in a folder."""
    from botocore.exceptions import ClientError

    key = location.key.rstrip("/")
    try:
        if key:
            s3.head_object(Bucket=location.bucket, Key=key)
            return True
    except ClientError as error:
        # Without the right to list a bucket, an object that is not there is forbidden; then listing says so.
        if error.response["ResponseMetadata"]["HTTPStatusCode"] not in (403, 404):
            raise
    below = s3.list_objects_v2(Bucket=location.bucket, Prefix=f"{key}/" if key else "", MaxKeys=1)
    return bool(below["KeyCount"]) or not key


def _write_local(path: Path, data: bytes) -> None:
    made = list(takewhile(lambda folder: not folder.exists(), path.parents))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")  # with the user's own mask, unlike tempfile's
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


def _create_local(path: Path, data: bytes) -> bool:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    _write_local(temporary, data)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    return True


def remove(location: Location) -> None:
    """Remove one file.

    Raises:
        StorageError: when it is not there, or storage refuses.
    """
    try:
        with explained_os_errors(f"removing {location}"):
            location.unlink()
    except Exception as error:
        raise _as_storage_error(error, f"removing {location}") from error


def remove_all(folder: Location, names: Sequence[str]) -> None:
    """Remove files of a folder; those that are not there are left.

    Raises:
        StorageError: when storage refuses.
    """
    try:
        with explained_os_errors(f"removing files of {folder}"):
            if (s3 := _s3_client(folder)) is not None:
                for start in range(0, len(names), _MOST_AT_ONCE):
                    _delete(s3, folder, names[start : start + _MOST_AT_ONCE])
                return
            for name in names:
                with suppress(FileNotFoundError):
                    (folder / name).unlink()
    except Exception as error:
        raise _as_storage_error(error, f"removing files of {folder}") from error


def upload(source: Path, target: Location) -> None:
    """Copy one local file into object storage (multipart for large ones; it appears whole or not at all)."""
    try:
        # What is there was sent by a run that was killed; by its clock it may be newer than the file.
        target.upload_from(source, force_overwrite_to_cloud=True)  # type: ignore[union-attr]
    except Exception as error:
        raise _as_storage_error(error, f"writing {target}") from error


def download(source: Location, target: Path, *, sha256: str | None = None) -> None:
    """Copy one file from object storage to `target`, which appears whole or not at all.

    Raises:
        ArtifactError: when the file's checksum is not `sha256`.
        StorageError: when storage refuses, or the disk does.
    """
    # Pods that share a folder may fetch one file at once, all of them as process 1: each takes a name of its own.
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        with explained_os_errors(f"writing {target}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove_stale(target)
            source.download_to(temporary)  # type: ignore[union-attr]
            if sha256 is not None and sha256_of(temporary) != sha256:
                raise ArtifactError(f"{source}: its checksum is not the manifest's", action="make the artifact again")
            os.replace(temporary, target)
    except Exception as error:
        raise _as_storage_error(error, f"reading {source}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _remove_stale(target: Path) -> None:
    """Remove what killed downloads of `target` have left: files that nobody has written to for an hour."""
    for left in target.parent.glob(f".{glob.escape(target.name)}.*"):
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _STALE:
                left.unlink()


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


def sha256_of(path: Path) -> str:
    """SHA-256 of a local file's bytes, as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def fingerprint(uri: str | Path) -> str:
    """What a file or folder of the user's holds, as 64 hex digits: equal content gives equal text.

    Object storage answers with entity tags instead of the bytes, so nothing is downloaded. Hidden files in a folder do
    not count: the hub's client keeps the time of a download in some.

    Raises:
        StorageError: when nothing is there.
    """
    known = _only_local.get()
    if known is None:
        return _fingerprint(uri)
    if str(uri) not in known:
        known[str(uri)] = _fingerprint(uri)
    return known[str(uri)]


def _fingerprint(uri: str | Path) -> str:
    location = locate(uri)
    if not exists(location):
        raise missing(uri)
    if isinstance(location, Path) and location.is_file():
        return sha256_of(location)
    found = {below(location, file): file for file in files_below(location)}
    shown = {name: file for name, file in found.items() if not any(part.startswith(".") for part in name.split("/"))}
    if isinstance(location, Path):
        parts = [f"{name}:{sha256_of(file)}" for name, file in shown.items()]  # type: ignore[arg-type]
    else:
        parts = [f"{file}:{_tag_of(file)}" for file in shown.values()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _tag_of(file: Location) -> str:
    """An object's entity tag, or when it was written where a storage has no tags."""
    return str(file.etag if hasattr(file, "etag") else file.stat().st_mtime)


def _as_storage_error(error: Exception, what: str) -> Exception:
    """Name the cause of an error of the system or of a storage client; errors of other kinds pass unchanged."""
    if isinstance(error, StorageError):
        return error
    if isinstance(error, OSError) and error.errno is not None:
        return StorageError(
            f"{what}: {os.strerror(error.errno)}", action="check the disk, or the server that it is mounted from"
        )
    module = type(error).__module__.split(".")[0]
    if module in {"botocore", "boto3", "s3transfer", "azure", "google", "cloudpathlib"}:
        scheme = next((scheme for scheme in _CLIENTS if f"{scheme}://" in what), "s3")
        return StorageError(f"{what}: {type(error).__name__}: {error}", action=_CLIENTS[scheme][2])
    return error
