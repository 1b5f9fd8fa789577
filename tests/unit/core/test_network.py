"""Proxies and certificates of the environment, looked at before a request is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tamis.core.errors import SettingsError
from tamis.core.network import uses_socks
from tamis.llm.client import connect, connect_for_files
from tamis.llm.settings import ServiceSettings

pytest.importorskip("openai")
SERVICE = ServiceSettings(model="m", base_url="http://127.0.0.1:9/v1", api_key_env=None)


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("make", [connect, connect_for_files])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SSL_CERT_FILE", "/no/such/file.pem"),
        ("SSL_CERT_DIR", "/no/such/folder"),
        ("HTTPS_PROXY", "http://"),
        ("HTTP_PROXY", "ftp://proxy:3128"),
        ("ALL_PROXY", "proxy:port"),
        ("https_proxy", "http://proxy:99999"),
    ],
)
def test_what_cannot_work_is_named(make: object, name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert callable(make)
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as raised:
        make(SERVICE)
    assert raised.value.code == "settings"
    assert name.upper() in str(raised.value)
    assert value in str(raised.value)


@pytest.mark.parametrize("value", ["http://proxy:3128", "proxy:3128", "https://user:word@proxy", "socks5://proxy:1080"])
def test_a_good_proxy_is_taken(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    if value.startswith("socks"):
        pytest.importorskip("socksio")
    connect(SERVICE)
    assert uses_socks() is value.startswith("socks")


def test_a_socks_proxy_without_its_package_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tamis.core.network.find_spec", lambda name: None)
    monkeypatch.setenv("ALL_PROXY", "socks5h://proxy:1080")
    with pytest.raises(SettingsError, match="socksio"):
        connect(SERVICE)


def test_certificates_that_are_there_are_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import certifi

    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    connect(SERVICE)
