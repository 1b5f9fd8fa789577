"""How object storage is reached and how its errors are told; `tests/storage` has it on real servers."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("obstore", reason="needs the extra 'azure'")

from obstore.exceptions import GenericError

from tamis.core.errors import StorageError
from tamis.core.secrets import masked
from tamis.core.storage import extra_of
from tamis.core.storage.azure import of_connection
from tamis.core.storage.errors import CURES, explained

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
    assert raised.value.action == CURES["az"]
    assert KEY not in str(raised.value)


def test_what_an_error_says_has_no_signature_in_it() -> None:
    asked = f"Error performing GET https://ours.blob.core.windows.net/c/x?{SIGNATURE} in 3ms - Server returned non-2xx"
    with pytest.raises(StorageError) as raised, explained("reading az://c/x"):
        raise GenericError(
            f"Generic MicrosoftAzure error: {asked} status code: 400 Bad Request: \n\nDebug source:\n{asked}"
        )
    assert raised.value.problem.startswith("reading az://c/x: 400 Bad Request (")
    assert "sig=" not in raised.value.problem
    assert raised.value.action == CURES["az"]


@pytest.mark.parametrize(
    ("value", "extra"),
    [("s3://b/x", "s3"), ("az://c/x", "azure"), ("gs://b/x", "gcs"), ("https://host/v1", None), ("data/x.jsonl", None)],
)
def test_the_extra_that_a_value_of_the_settings_needs(value: str, extra: str | None) -> None:
    found = extra_of(value)
    assert (found[0] if found else None) == extra
