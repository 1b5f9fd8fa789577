"""Clients of object storage: one for each bucket, made anew when the environment says something else."""

from __future__ import annotations

import os
import socket
import urllib.request
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from tamis.core.errors import StorageError
from tamis.core.secrets import shown
from tamis.core.storage.errors import CURES
from tamis.core.storage.places import ObjectPath

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

ATTEMPTS = 8  # of each request
_TOLD_BY = ("AWS_", "AZURE_", "GOOGLE_", "STORAGE_", "SSL_CERT_", "REQUESTS_CA_", "HTTP", "ALL_PROXY", "NO_PROXY")
_FIRST_WAIT, _LONGEST_WAIT = timedelta(milliseconds=300), timedelta(seconds=15)  # before a request is sent again
_GIVE_UP = timedelta(minutes=3)  # after which a request is not sent again
_SILENCE = timedelta(seconds=60)  # of a server, after which a request is taken for lost
_LONGEST = timedelta(days=1)  # of one request, as for a file of very many gigabytes
_process: int | None = None  # that has used a client


def store_of(path: ObjectPath) -> ObjectStore:
    """The client of the bucket that `path` is in.

    Raises:
        StorageError: when the environment does not say how it is reached, or its server's name is not known.
    """
    told = tuple(sorted(item for item in os.environ.items() if item[0].upper().startswith(_TOLD_BY)))
    return _store(path.scheme, path.bucket, os.getpid(), told, ATTEMPTS)


@lru_cache(maxsize=64)
def _store(scheme: str, bucket: str, process: int, told: object, attempts: int) -> ObjectStore:
    """A client. `told` and `attempts` are what it depends on besides; it finds them itself."""
    global _process
    from tamis.core.storage import azure, gcs, s3

    if process != (_process := _process or process):
        raise StorageError(
            f"{scheme}://{bucket} cannot be reached: this process was forked from one that had used object storage",
            action="start processes by spawn or forkserver",
        )
    makers: dict[str, Callable[[str], ObjectStore]] = {"s3": s3.store, "az": azure.store, "gs": gcs.store}
    try:
        return makers[scheme](bucket)
    except (ValueError, OverflowError) as error:  # how obstore refuses what the environment says
        raise StorageError(f"{scheme}://{bucket} cannot be reached: {error}", action=CURES[scheme]) from error


def client_options(*bundles: str | None) -> ClientConfig:
    """How a client connects. `bundles` are PEM files of authorities that are trusted besides the usual ones.

    Raises:
        StorageError: when such a file cannot be read.
    """
    files = [*bundles, os.environ.get("REQUESTS_CA_BUNDLE")]
    # The client itself trusts the system's authorities, or those of SSL_CERT_FILE in their place.
    if find_spec("certifi") is not None:
        import certifi

        files.append(certifi.where())
    try:
        certificates = b"\n".join(Path(file).read_bytes() for file in files if file)
    except OSError as error:
        raise StorageError(
            f"reading the authorities of certificates: {error.strerror} ({error.filename})",
            action="correct AWS_CA_BUNDLE or REQUESTS_CA_BUNDLE",
        ) from error
    found: ClientConfig = {"allow_http": True, "timeout": _LONGEST, "read_timeout": _SILENCE}
    return found | {"root_certificate": certificates} if certificates else found


def retries(attempts: int | None = None) -> RetryConfig:
    """How often and when a request is sent again.

    Raises:
        StorageError: when `attempts`, the user's own number, is below 0.
    """
    if attempts is not None and attempts < 0:
        raise StorageError(f"requests are to be sent {attempts} times", allowed="AWS_MAX_ATTEMPTS of 1 or more")
    return {
        "max_retries": (attempts or ATTEMPTS) - 1,
        "retry_timeout": _GIVE_UP,
        "backoff": {"init_backoff": _FIRST_WAIT, "max_backoff": _LONGEST_WAIT, "base": 3},
    }


def address_of(scheme: str, endpoint: str) -> SplitResult:
    """The parts of an endpoint, as the user has given it.

    Raises:
        StorageError: when it is no address of a server.
        ValueError: when its port is none.
    """
    address = urlsplit(endpoint.strip())
    if address.scheme not in ("http", "https") or not address.hostname:
        problem = f"{scheme}://: the endpoint needs http:// or https:// and a server; seen: {shown(endpoint.strip())}"
        raise StorageError(problem, action=CURES[scheme])
    _ = address.port
    return address


def check_address(scheme: str, endpoint: str) -> None:
    """Make sure that the server's name is known: the client would ask for it again and again, in silence.

    Raises:
        StorageError: when nobody knows it.
    """
    if urllib.request.getproxies():
        return
    host = urlsplit(endpoint).hostname or ""
    try:
        socket.getaddrinfo(host, None)
    except socket.gaierror as error:
        if error.errno == socket.EAI_NONAME:
            problem = f"{scheme}://: the server {host} cannot be found: {error.strerror}"
            raise StorageError(problem, action=CURES[scheme]) from None
