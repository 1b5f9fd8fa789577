"""Errors of storage and its clients as `StorageError`, with the cause and what to do."""

from __future__ import annotations

import os
import re
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from tamis.core.errors import StorageError, explained_os_errors
from tamis.core.storage.places import Location, missing

# What to check when a storage refuses.
ACTIONS = {
    "s3": "check the bucket, the endpoint (AWS_ENDPOINT_URL_S3), the region and the credentials",
    "az": "check the container, the account (AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_CONNECTION_STRING) and the "
    "credentials",
    "gs": "check the bucket, the network and the credentials (GOOGLE_APPLICATION_CREDENTIALS)",
}
# Errors of obstore and botocore that another attempt cannot help, unless the code of the server is a passing one.
# Missing credentials are not among them: the services that hand them out to pods may be late.
_REFUSALS = {
    *("PermissionDeniedError", "UnauthenticatedError"),
    *("PartialCredentialsError", "ProfileNotFound", "ConfigNotFound", "ConfigParseError"),
}
_REFUSING = re.compile(r"status code: 40[13]\b")  # obstore has no class of its own for a refused listing
# Of S3, and in Azure's words: a credential that is renewed, a clock that is corrected, a limit of requests.
_PASSING = (
    *("ExpiredToken", "RequestExpired", "TokenRefreshRequired", "RequestTimeTooSkewed", "SlowDown"),
    *("Lifetime validation failed", "Request date header too old"),
    *("rateLimitExceeded", "RateLimitExceeded"),
)
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist")
_STATUS = re.compile(r"status code: (\d{3}(?: \w+)*)")
_ADDRESS = re.compile(r"https?://[^/\s]+")
_QUERY = re.compile(r"\?\S*")  # of an address; it may hold a signature
_DEBUG = "\n\nDebug source:"
# Causes of failed connections, which are only in obstore's debug text.
_CERTIFICATE = re.compile(r"InvalidCertificate\(\s*(?:Other\(\s*OtherError\(\s*)?(\w+)")
_CONNECTION = (
    (re.compile(r"kind: Timeout|TimedOut"), "no answer in time"),
    (re.compile(r"lookup address information"), "the server's name cannot be resolved"),
    (re.compile(r'message: "([^"]+)"'), ""),
)


@contextmanager
def explained(what: str, *, absent: Location | None = None) -> Iterator[None]:
    """Turn errors of the system and of storage into `StorageError`.

    `what` describes the operation, as in "reading s3://bucket/file". `absent` is the file that may not exist.
    """
    try:
        with explained_os_errors(what):
            yield
    except Exception as error:
        if absent is not None and isinstance(error, FileNotFoundError) and not _names_bucket(error):
            raise missing(str(absent)) from None
        if (explanation := _explanation(error, what)) is None:
            raise
        raise explanation from error


def _names_bucket(error: Exception) -> bool:
    """Whether the bucket itself does not exist."""
    return any(text in str(error) for text in _NO_BUCKET)


def _explanation(error: Exception, what: str) -> StorageError | None:
    """The `StorageError` for an error of the system or of a storage client; None for other errors."""
    if isinstance(error, OSError) and error.errno is not None:
        action = "check the disk or the file server"
        return StorageError(f"{what}: {os.strerror(error.errno)}", action=action)
    client = type(error).__module__.split(".")[0]
    # obstore raises Python's own error for a missing file.
    if client not in ("obstore", "botocore") and not isinstance(error, FileNotFoundError):
        return None
    scheme = next((scheme for scheme in ACTIONS if f"{scheme}://" in what), "s3")
    seen = f"{type(error).__name__}: {error}" if client == "botocore" else cause_of(error)
    untrusted = _certified(str(error))
    permanent = bool(untrusted) or _refused(error)
    return StorageError(f"{what}: {seen}", action=untrusted or ACTIONS[scheme], permanent=permanent)


def _refused(error: Exception) -> bool:
    """Whether storage refuses access with these credentials. A bucket that does not exist may still be on its way."""
    words = str(error).partition(_DEBUG)[0]
    refused = type(error).__name__ in _REFUSALS or _REFUSING.search(words) is not None
    return refused and not any(code in words for code in _PASSING)


def _certified(words: str) -> str:
    """What to do about a rejected certificate; empty if `words` are about something else."""
    found = _CERTIFICATE.search(words)
    if found is None:
        return ""
    if found[1] == "CaUsedAsEndEntity":
        return "give the server a certificate that is not one of a certificate authority (basicConstraints CA:FALSE)"
    return "name the certificate authority of the server in SSL_CERT_FILE, for s3:// in AWS_CA_BUNDLE"


def _by_proxy(server: str) -> str:
    """A description of the proxy for `server`, a URL; empty if there is none."""
    address, proxies = urlsplit(server), urllib.request.getproxies()
    proxy = proxies.get(address.scheme) or proxies.get("all")
    if not proxy or not address.hostname or urllib.request.proxy_bypass(address.hostname):
        return ""
    return f" through the proxy {urlsplit(proxy).netloc.rpartition('@')[2] or proxy}"


def cause_of(error: Exception) -> str:
    """The cause of an obstore error in one line: the server's code and message, or the problem of the connection."""
    words, _, debug = str(error).partition(_DEBUG)
    code, message = (re.search(rf"<{tag}>([^<]+)", words) for tag in ("Code", "Message"))
    if code is not None:
        return f"{code[1]}: {message[1].strip().splitlines()[0]}" if message else code[1]
    address = _ADDRESS.search(words)
    server = address[0] if address else "the server"
    if found := _CERTIFICATE.search(debug):
        return f"the certificate of {server} is not trusted ({found[1]})"
    if "error sending request" in words or "kind: " in debug:
        for pattern, meaning in _CONNECTION:
            if found := pattern.search(debug):
                return f"no connection to {server}{_by_proxy(server)}: {meaning or found[1]}"
    status = _STATUS.search(words)
    line = _QUERY.sub("", " ".join(words.split()))
    return f"{status[1]} ({line[:300]})" if status else line[:500]
