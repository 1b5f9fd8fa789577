"""How object storage is reached and how its errors are told; `tests/storage` has it on real servers."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("obstore", reason="needs the extra 'azure'")

from obstore.exceptions import GenericError, PermissionDeniedError, UnauthenticatedError

from tamis.core.errors import StorageError
from tamis.core.secrets import masked
from tamis.core.storage import (
    ObjectPath,
    connecting,
    create_bytes,
    exists,
    extra_of,
    locate,
    objects,
    read_bytes,
    remove,
)
from tamis.core.storage.azure import of_connection
from tamis.core.storage.errors import ACTIONS, explained

NOBODY = "http://127.0.0.1:1"  # a port on which nobody listens
KEY = "c29tZS1rZXktb2YtYW4tYWNjb3VudA=="
SIGNATURE = "sv=2021-12-02&sp=rl&sig=c29tZS1zaWduYXR1cmU%3D"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            f"DefaultEndpointsProtocol=https;AccountName=ours;AccountKey={KEY};EndpointSuffix=core.windows.net",
            {"account_name": "ours", "account_key": KEY, "endpoint": "https://ours.blob.core.windows.net"},
        ),
        (
            f"AccountName=ours;AccountKey={KEY};EndpointSuffix=core.chinacloudapi.cn;",
            {"account_name": "ours", "account_key": KEY, "endpoint": "https://ours.blob.core.chinacloudapi.cn"},
        ),
        (
            f"BlobEndpoint=https://ours.blob.core.windows.net/;SharedAccessSignature=?{SIGNATURE}",
            {"account_name": "ours", "sas_key": SIGNATURE, "endpoint": "https://ours.blob.core.windows.net"},
        ),
        ("UseDevelopmentStorage=true", {"use_emulator": True}),
    ],
)
def test_a_connection_string_is_read(text: str, said: dict[str, Any]) -> None:
    assert of_connection(text) == said
    for secret in (KEY, SIGNATURE.partition("sig=")[2]):
        assert secret not in masked(text)


def test_a_connection_string_without_an_account_is_refused() -> None:
    with pytest.raises(StorageError) as raised:
        of_connection(f"AccountKey={KEY}")
    assert raised.value.action == ACTIONS["az"]
    assert KEY not in str(raised.value)


def test_what_an_error_says_has_no_signature_in_it() -> None:
    asked = f"Error performing GET https://ours.blob.core.windows.net/c/x?{SIGNATURE} in 3ms - Server returned non-2xx"
    with pytest.raises(StorageError) as raised, explained("reading az://c/x"):
        raise GenericError(
            f"Generic MicrosoftAzure error: {asked} status code: 400 Bad Request: \n\nDebug source:\n{asked}"
        )
    assert raised.value.problem.startswith("reading az://c/x: 400 Bad Request (")
    assert "sig=" not in raised.value.problem
    assert raised.value.action == ACTIONS["az"]


@pytest.mark.parametrize(
    ("value", "extra"),
    [("s3://b/x", "s3"), ("az://c/x", "azure"), ("gs://b/x", "gcs"), ("https://host/v1", None), ("data/x.jsonl", None)],
)
def test_the_extra_that_a_value_of_the_settings_needs(value: str, extra: str | None) -> None:
    found = extra_of(value)
    assert (found[0] if found else None) == extra


class PanicException(BaseException):
    """As obstore raises it: not an Exception, and to be known by its name alone."""


@pytest.mark.parametrize("aside", [True, False], ids=["in a thread", "in the main thread"])
def test_a_panic_of_the_client_is_an_error_of_storage(aside: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def panics(path: object) -> None:
        raise PanicException("InvalidPort")

    monkeypatch.setattr(objects, "store_of", panics)
    path = ObjectPath("s3", "bucket", "x")
    for act in (read_bytes, exists, remove, lambda path: create_bytes(path, b"x")):
        with ThreadPoolExecutor(1) as threads, pytest.raises(StorageError) as raised:
            threads.submit(act, path).result() if aside else act(path)
        assert "InvalidPort" in raised.value.problem


S3 = {"AWS_ACCESS_KEY_ID": "ours", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_MAX_ATTEMPTS": "1"}
AZURE = {"AZURE_STORAGE_ACCOUNT_NAME": "ours", "AZURE_STORAGE_ACCOUNT_KEY": KEY}


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that says nothing of object storage or proxies."""
    for name in list(os.environ):
        if name.upper().startswith(("AWS_", "AZURE_", "STORAGE_", "HTTP", "ALL_PROXY", "NO_PROXY")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(connecting, "ATTEMPTS", 1)
    return monkeypatch


def said_of(uri: str, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> StorageError:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StorageError) as raised:
        read_bytes(locate(uri))
    return raised.value


@pytest.mark.parametrize(
    ("uri", "environment"),
    [
        (
            "s3://b/x",
            S3 | {"AWS_ENDPOINT_URL": NOBODY, "AWS_SESSION_TOKEN": "token", "AWS_DEFAULT_REGION": "eu-west-1"},
        ),
        ("az://b/x", AZURE | {"AZURE_STORAGE_ENDPOINT": NOBODY}),
        (
            "az://b/x",
            {"AZURE_STORAGE_CONNECTION_STRING": f"AccountName=ours;AccountKey={KEY}\n;BlobEndpoint={NOBODY}"},
        ),
        ("gs://b/x", {"STORAGE_EMULATOR_HOST": NOBODY.removeprefix("http://")}),
    ],
)
def test_line_breaks_around_what_the_environment_gives_do_not_count(
    uri: str, environment: dict[str, str], clean: pytest.MonkeyPatch
) -> None:
    error = said_of(uri, clean, {name: f" {value}\n" for name, value in environment.items()})
    assert f"no connection to {NOBODY}: Connection refused" in error.problem


@pytest.mark.parametrize(
    ("uri", "environment", "told"),
    [
        ("s3://b/x", S3 | {"AWS_ENDPOINT_URL": "localhost:9000"}, "http:// or https://"),
        ("s3://b/x", S3 | {"AWS_ENDPOINT_URL": "http://localhost:99999"}, "0-65535"),
        ("s3://b/x", S3 | {"AWS_ENDPOINT_URL": NOBODY, "AWS_MAX_ATTEMPTS": "-3"}, "-3"),
        ("s3://b/x", S3 | {"AWS_ENDPOINT_URL": NOBODY, "AWS_MAX_ATTEMPTS": "1" * 30}, "s3://b cannot be reached"),
        ("az://b/x", AZURE | {"AZURE_STORAGE_ENDPOINT": "127.0.0.1:1"}, "http:// or https://"),
        ("az://b/x", AZURE | {"AZURE_STORAGE_ENDPOINT": "http://127.0.0.1:99999"}, "0-65535"),
        ("gs://b/x", {"STORAGE_EMULATOR_HOST": "127.0.0.1:99999"}, "0-65535"),
    ],
)
def test_what_cannot_be_an_endpoint_or_a_number_of_attempts_is_told(
    uri: str, environment: dict[str, str], told: str, clean: pytest.MonkeyPatch
) -> None:
    assert told in said_of(uri, clean, environment).problem


def test_a_proxy_that_refuses_is_named(clean: pytest.MonkeyPatch) -> None:
    proxied = S3 | {"AWS_ENDPOINT_URL": "http://storage.example", "http_proxy": f"http://me:word@{NOBODY[7:]}"}
    error = said_of("s3://b/x", clean, proxied)
    assert f"no connection to http://storage.example through the proxy {NOBODY[7:]}: " in error.problem
    assert "word" not in error.problem


@pytest.mark.parametrize(
    ("kind", "words", "permanent"),
    [
        (PermissionDeniedError, "<Code>AccessDenied</Code>", True),
        (PermissionDeniedError, "<Code>InvalidAccessKeyId</Code>", True),
        (UnauthenticatedError, "status code: 401 Unauthorized", True),
        (PermissionDeniedError, "<Code>ExpiredToken</Code>", False),
        (PermissionDeniedError, "<Code>RequestTimeTooSkewed</Code>", False),
        (PermissionDeniedError, "<Code>SlowDown</Code>", False),
        (PermissionDeniedError, "<Code>AuthenticationFailed</Code>: Request date header too old: 'Mon'", False),
        (UnauthenticatedError, "<Code>InvalidAuthenticationInfo</Code>: Lifetime validation failed.", False),
        (PermissionDeniedError, '{"error": {"code": 403, "errors": [{"reason": "rateLimitExceeded"}]}}', False),
        (GenericError, "status code: 503 Service Unavailable", False),
    ],
)
def test_a_refusal_that_may_pass_is_not_permanent(kind: type[Exception], words: str, permanent: bool) -> None:
    with pytest.raises(StorageError) as raised, explained("writing s3://bucket/file"):
        raise kind(words)
    assert raised.value.permanent is permanent
