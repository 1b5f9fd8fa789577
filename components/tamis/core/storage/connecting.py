"""How the clients of object storage connect: certificates, retries, addresses."""

from __future__ import annotations

import os
import socket
import urllib.request
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from tamis.core.errors import StorageError
from tamis.core.secrets import shown
from tamis.core.storage.errors import CURES

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

ATTEMPTS = 8  # of each request
_FIRST_WAIT, _LONGEST_WAIT = timedelta(milliseconds=300), timedelta(seconds=15)  # before a request is sent again
_GIVE_UP = timedelta(minutes=3)  # after which a request is not sent again
_SILENCE = timedelta(seconds=60)  # of a server, after which a request is taken for lost
_LONGEST = timedelta(days=1)  # of one request, as for a file of very many gigabytes


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
