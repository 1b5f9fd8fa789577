"""How a real S3 server is reached: credentials, certificates, large files, servers that are busy or lie."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from tamis.core.artifacts import Artifact
from tamis.core.errors import ArtifactError, StorageError
from tamis.core.settings import StageSettings
from tamis.core.steps import Step, run_step
from tamis.core.storage import download, locate, read_bytes, upload, write_bytes
from tests.certificates import private_certificate
from tests.storage.conftest import reached
from tests.storage.faults import Proxy
from tests.storage.seaweed import KEY, SECRET, Seaweed

EXPIRES = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture
def without_keys(s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A fresh prefix, whose keys are not in the environment."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return s3


def goes_there_and_back(prefix: str) -> bool:
    write_bytes(locate(f"{prefix}/hello"), b"hello")
    return read_bytes(locate(f"{prefix}/hello")) == b"hello"


def test_without_any_credentials_the_error_says_so(without_keys: str) -> None:
    with pytest.raises(StorageError, match="NoCredentialsError") as raised:
        goes_there_and_back(without_keys)
    assert "credentials" in str(raised.value)


def test_credentials_from_a_file(without_keys: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "credentials"
    file.write_text(f"[team]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_PROFILE", "team")
    assert goes_there_and_back(without_keys)


class Identities(ThreadingHTTPServer):
    """Gives the S3 server's keys to whoever shows the token: as AWS STS does, and as the agent of EKS Pod Identity."""

    token = "a-token-of-the-cluster"

    def __init__(self) -> None:
        class Handler(BaseHTTPRequestHandler):
            server: Identities

            def do_POST(self) -> None:
                asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
                known = f"WebIdentityToken={Identities.token}" in asked and "Action=AssumeRoleWithWebIdentity" in asked
                keys = f"<AccessKeyId>{KEY}</AccessKeyId><SecretAccessKey>{SECRET}</SecretAccessKey>"
                keys += f"<SessionToken></SessionToken><Expiration>{EXPIRES}</Expiration>"
                result = f"<AssumeRoleWithWebIdentityResult><Credentials>{keys}</Credentials>"
                result += "</AssumeRoleWithWebIdentityResult>"
                refusal = "<ErrorResponse><Error><Code>InvalidIdentityToken</Code></Error></ErrorResponse>"
                answer = f"<AssumeRoleWithWebIdentityResponse>{result}</AssumeRoleWithWebIdentityResponse>"
                self._answer(200 if known else 400, answer if known else refusal)

            def do_GET(self) -> None:
                known = self.headers["Authorization"] == Identities.token
                keys = {"AccessKeyId": KEY, "SecretAccessKey": SECRET, "Token": "", "Expiration": EXPIRES}
                self._answer(200 if known else 403, json.dumps(keys if known else {}))

            def _answer(self, status: int, text: str) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def identities() -> Iterator[Identities]:
    server = Identities()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("kind", "token"),
    [("web identity", Identities.token), ("web identity", "another"), ("pod identity", Identities.token)],
)
def test_credentials_from_a_workload_identity(
    without_keys: str, identities: Identities, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, token: str
) -> None:
    (tmp_path / "token").write_text(token)
    if kind == "web identity":
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/tamis")
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", identities.url)
    else:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{identities.url}/v1/credentials")
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
    if token == Identities.token:
        assert goes_there_and_back(without_keys)
    else:
        with pytest.raises(StorageError, match="InvalidIdentityToken"):
            goes_there_and_back(without_keys)


@pytest.mark.parametrize("told", ["its own", "none", "another's"])
def test_a_private_certificate_is_trusted_when_its_authority_is_named(
    s3: str, s3_server: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    if s3_server.ca is None:
        pytest.skip("no openssl to make a certificate with")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"https://127.0.0.1:{s3_server.tls_port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    if told != "none":
        ca = s3_server.ca if told == "its own" else private_certificate(tmp_path)[1]
        monkeypatch.setenv("AWS_CA_BUNDLE", str(ca))
    if told == "its own":
        assert goes_there_and_back(s3)
    else:
        with pytest.raises(StorageError, match="CERTIFICATE_VERIFY_FAILED"):
            goes_there_and_back(s3)


def test_a_large_file_goes_in_parts(s3: str, tmp_path: Path) -> None:
    source = tmp_path / "large"
    source.write_bytes(bytes(range(256)) * (9 << 12))  # 9 MiB; boto3 cuts at 8
    target = locate(f"{s3}/large")
    upload(source, target)
    assert target.etag.strip('"').endswith("-2")  # type: ignore[union-attr]
    download(target, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()


def test_a_busy_server_is_asked_again(s3: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_MAX_ATTEMPTS")
    with Proxy(s3_endpoint, refusals=3) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        assert goes_there_and_back(s3)
        assert proxy.refused == 3


class Nothing(StageSettings):
    """No settings."""

    OUTPUT_REVISION: ClassVar[int] = 1


def write(step: Step[Nothing]) -> None:
    (step.out / "words.txt").write_text("hello" * 100)


def test_bytes_that_change_on_the_way_are_noticed(
    s3: str, s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_step("test", "pool", Nothing(), write, out=f"{s3}/pool")
    with Proxy(s3_endpoint, spoil=lambda body: body.replace(b"hellohello", b"jellohello")) as proxy:
        reached(proxy.endpoint, monkeypatch)
        monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
        with pytest.raises(ArtifactError, match="checksum"):
            _ = Artifact.open(f"{s3}/pool", cache=tmp_path).folder
