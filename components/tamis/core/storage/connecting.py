"""How the clients of object storage connect: certificates, retries, addresses."""

from __future__ import annotations

import os
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from tamis.core.errors import StorageError
from tamis.core.secrets import shown
from tamis.core.storage.errors import ACTIONS

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

ATTEMPTS = 8  # per request
_FIRST_WAIT, _LONGEST_WAIT = timedelta(milliseconds=300), timedelta(seconds=15)  # before a retry
_RETRY_TIMEOUT = timedelta(minutes=3)  # no retries after this time
_READ_TIMEOUT = timedelta(seconds=60)  # a server that sends nothing for so long has lost the request
_LONGEST = timedelta(days=1)  # timeout of a whole request, enough for very large files


def client_options(*bundles: str | None) -> ClientConfig:
    """Options of a client's connections. `bundles` are PEM files of additional certificate authorities.

    Raises:
        StorageError: when such a file cannot be read.
    """
    files = [*bundles, os.environ.get("REQUESTS_CA_BUNDLE")]
    # The client itself trusts the system's certificate authorities, or those in SSL_CERT_FILE instead.
    if find_spec("certifi") is not None:
        import certifi

        files.append(certifi.where())
    try:
        certificates = b"\n".join(Path(file).read_bytes() for file in files if file)
    except OSError as error:
        raise StorageError(
            f"cannot read certificate authorities: {error.strerror} ({error.filename})",
            action="correct AWS_CA_BUNDLE or REQUESTS_CA_BUNDLE",
            permanent=True,
        ) from error
    found: ClientConfig = {"allow_http": True, "timeout": _LONGEST, "read_timeout": _READ_TIMEOUT}
    return found | {"root_certificate": certificates} if certificates else found


def retries(attempts: int | None = None) -> RetryConfig:
    """How often and when a failed request is sent again.

    Raises:
        StorageError: when `attempts`, which the user may set, is below 0.
    """
    if attempts is not None and attempts < 0:
        problem = f"the number of attempts (AWS_MAX_ATTEMPTS) is {attempts}"
        raise StorageError(problem, allowed="1 or more", permanent=True)
    return {
        "max_retries": (attempts or ATTEMPTS) - 1,
        "retry_timeout": _RETRY_TIMEOUT,
        "backoff": {"init_backoff": _FIRST_WAIT, "max_backoff": _LONGEST_WAIT, "base": 3},
    }


@contextmanager
def few_attempts() -> Iterator[None]:
    """Within this context, new clients send a failed request only once more: somebody waits for the answer."""
    global ATTEMPTS
    before, ATTEMPTS = ATTEMPTS, 2
    try:
        yield
    finally:
        ATTEMPTS = before


def address_of(scheme: str, endpoint: str) -> SplitResult:
    """The parts of the user's endpoint.

    Raises:
        StorageError: when it is not the address of a server.
        ValueError: when its port is not valid.
    """
    address = urlsplit(endpoint.strip())
    if address.scheme not in ("http", "https") or not address.hostname:
        problem = f"{scheme}://: the endpoint must be http:// or https:// and a server; seen: {shown(endpoint.strip())}"
        raise StorageError(problem, action=ACTIONS[scheme], permanent=True)
    _ = address.port
    return address


def check_address(scheme: str, bucket: str, endpoint: str) -> None:
    """Make sure that the name of a bucket's server can be resolved. The client would retry for long, and silently.

    Raises:
        StorageError: when it cannot be resolved.
    """
    if urllib.request.getproxies():
        return
    host = urlsplit(endpoint).hostname or ""
    try:
        socket.getaddrinfo(host, None)
    except socket.gaierror as error:
        if error.errno == socket.EAI_NONAME:
            problem = f"{scheme}://{bucket}: the server {host} cannot be found ({error.strerror})"
            raise StorageError(problem, action=ACTIONS[scheme]) from None
