"""How servers are reached: certificates, large files, servers that are busy, break off or lie."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from tamis.core.artifacts import Artifact
from tamis.core.errors import ArtifactError, StorageError
from tamis.core.settings import StageSettings
from tamis.core.steps import Step, run_step
from tamis.core.storage import download, fingerprint, locate, read_bytes, size_of, upload, write_bytes
from tests.certificates import private_certificate
from tests.storage import azurite
from tests.storage.azurite import Azurite
from tests.storage.conftest import Server, reach
from tests.storage.faults import Proxy
from tests.storage.seaweed import Seaweed


def goes_there_and_back(prefix: str) -> bool:
    write_bytes(locate(f"{prefix}/hello"), b"hello")
    return read_bytes(locate(f"{prefix}/hello")) == b"hello"


@pytest.fixture(scope="session")
def azure_by_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Azurite, Path]]:
    """A server with a certificate of its own, and the authority that vouches for it."""
    if azurite.program() is None:
        pytest.skip("no `azurite-blob` on this machine; npm install --prefix build/azurite azurite brings it")
    folder = tmp_path_factory.mktemp("azurite-tls")
    certificate, ca = private_certificate(folder)
    server = Azurite(folder, certificate=certificate)
    try:
        server.start()
        yield server, ca
    finally:
        server.stop()


@pytest.mark.parametrize("told", ["its own", "none", "another's"])
@pytest.mark.parametrize(
    ("kind", "variable"),
    [("s3", "AWS_CA_BUNDLE"), ("s3", "SSL_CERT_FILE"), ("azure", "SSL_CERT_FILE"), ("azure", "REQUESTS_CA_BUNDLE")],
)
def test_a_private_certificate_is_trusted_when_its_authority_is_named(
    kind: str, variable: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if kind == "s3":
        seaweed: Seaweed = request.getfixturevalue("s3_server")
        if (ca := seaweed.ca) is None:
            pytest.skip("no openssl to make a certificate with")
        reach(seaweed, monkeypatch, f"https://127.0.0.1:{seaweed.tls_port}", attempts=1)
        place = f"{seaweed.bucket}/tls"
    else:
        server, ca = request.getfixturevalue("azure_by_tls")
        reach(server, monkeypatch, attempts=1)
        place = f"{server.bucket}/tls"
    if told != "none":
        monkeypatch.setenv(variable, str(ca if told == "its own" else private_certificate(tmp_path)[1]))
    if told == "its own":
        assert goes_there_and_back(place)
        return
    with pytest.raises(StorageError, match="is not trusted") as raised:
        goes_there_and_back(place)
    assert "SSL_CERT_FILE" in raised.value.action


def test_a_bundle_that_is_not_there_is_told(remote: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with pytest.raises(StorageError, match=r"none\.pem"):
        goes_there_and_back(remote)


def test_a_large_file_goes_in_parts(remote: str, tmp_path: Path) -> None:
    source, other = tmp_path / "large", tmp_path / "other"
    source.write_bytes(bytes(range(256)) * (9 << 12))  # 9 MiB
    other.write_bytes(source.read_bytes()[:-1] + b"x")
    prints = set()
    for file in (source, other):
        upload(file, locate(f"{remote}/large"))
        prints.add(fingerprint(f"{remote}/large"))
        download(locate(f"{remote}/large"), tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == file.read_bytes()
    assert len(prints) == 2
    assert size_of(locate(f"{remote}/large")) == 9 << 20


def test_parts_in_s3_are_those_of_the_clients_of_aws(s3: str, s3_server: Seaweed, tmp_path: Path) -> None:
    """So that the entity tags are the same, and with them fingerprints and steps' keys."""
    source = tmp_path / "large"
    source.write_bytes(bytes(range(256)) * (17 << 12))  # 17 MiB
    upload(source, locate(f"{s3}/large"))
    bucket, _, key = f"{s3}/large".removeprefix("s3://").partition("/")
    assert s3_server.client().head_object(Bucket=bucket, Key=key)["ETag"].endswith('-3"')


def test_a_busy_server_is_asked_again(server: Server, remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Proxy(server.endpoint, refusals=3) as proxy:
        reach(server, monkeypatch, proxy.endpoint, attempts=8)  # as without a test
        assert goes_there_and_back(remote)
        assert proxy.refused == 3


def test_what_breaks_off_is_read_to_its_end(
    server: Server, remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytes(range(256)) * (1 << 12)  # 1 MiB
    write_bytes(locate(f"{remote}/data"), data)
    with Proxy(server.endpoint, cuts=2) as proxy:
        reach(server, monkeypatch, proxy.endpoint, attempts=8)
        assert read_bytes(locate(f"{remote}/data")) == data
        assert proxy.cut == 2
    with Proxy(server.endpoint, cuts=2) as proxy:
        reach(server, monkeypatch, proxy.endpoint, attempts=8)
        download(locate(f"{remote}/data"), tmp_path / "data")
        assert (tmp_path / "data").read_bytes() == data
        assert proxy.cut == 2


class Nothing(StageSettings):
    """No settings."""

    OUTPUT_REVISION: ClassVar[int] = 1


def write(step: Step[Nothing]) -> None:
    (step.out / "words.txt").write_text("hello" * 100)


def test_bytes_that_change_on_the_way_are_noticed(
    server: Server, remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_step("test", "pool", Nothing(), write, out=f"{remote}/pool")
    with Proxy(server.endpoint, spoil=lambda body: body.replace(b"hellohello", b"jellohello")) as proxy:
        reach(server, monkeypatch, proxy.endpoint)
        with pytest.raises(ArtifactError, match="checksum"):
            _ = Artifact.open(f"{remote}/pool", cache=tmp_path).folder


class Asked(ThreadingHTTPServer):
    """A proxy for HTTP that notes what it is asked for, and finds nothing."""

    def __init__(self) -> None:
        seen = self.seen = []  # type: ignore[var-annotated]

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                seen.append(self.path)
                self.send_error(404)

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture
def asked() -> Iterator[Asked]:
    server = Asked()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("told_in", ["the environment", "the profile"])
@pytest.mark.parametrize(
    ("style", "address"),
    [
        ("auto", "http://s3.internal/bucket/file"),
        ("path", "http://s3.internal/bucket/file"),
        ("virtual", "http://bucket.s3.internal/file"),
    ],
)
def test_buckets_are_addressed_as_the_configuration_says_and_through_a_proxy(
    told_in: str, style: str, address: str, asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = f"[default]\nregion = eu-west-3\ns3 =\n  addressing_style = {style}\n"
    if told_in == "the profile":
        said += "endpoint_url = http://s3.internal\n"
        monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    else:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3.internal")
    (tmp_path / "config").write_text(said)
    told = {"AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}
    for name, value in (told | {"HTTP_PROXY": f"http://127.0.0.1:{asked.server_port}"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StorageError, match="does not exist"):
        read_bytes(locate("s3://bucket/file"))
    assert asked.seen == [address]


def test_ctrl_c_is_heard_while_a_server_says_nothing(
    remote: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        reach(server, monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            read_bytes(locate(f"{remote}/file"))
        assert time.monotonic() - started < 5


def test_a_forked_process_is_told_that_it_cannot_use_storage(remote: str) -> None:
    """Without that it waits without end."""
    assert goes_there_and_back(remote)
    child = multiprocessing.get_context("fork").Process(target=_reads, args=(f"{remote}/hello",))
    child.start()
    child.join(30)
    assert child.exitcode == 7
    assert goes_there_and_back(remote)


def _reads(uri: str) -> None:
    try:
        read_bytes(locate(uri))
    except StorageError as error:
        os._exit(7 if "forked" in error.problem else 1)
