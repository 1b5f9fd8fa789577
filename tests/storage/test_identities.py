"""Who asks: keys, signatures, profiles, and the identities that clusters and machines give."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tamis.core.errors import StorageError
from tamis.core.secrets import masked
from tamis.core.storage import locate, names_in, read_bytes, remove, write_bytes
from tests.storage import azurite
from tests.storage.azurite import ACCOUNT, Azurite, signed
from tests.storage.conftest import reach
from tests.storage.seaweed import KEY, SECRET
from tests.storage.test_access import azure_by_tls as azure_by_tls  # a fixture

EXPIRES = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")


def goes_there_and_back(prefix: str) -> bool:
    write_bytes(locate(f"{prefix}/hello"), b"hello")
    found = read_bytes(locate(f"{prefix}/hello")) == b"hello" and names_in(locate(prefix)) == ["hello"]
    remove(locate(f"{prefix}/hello"))
    return found


class Identities(ThreadingHTTPServer):
    """Gives keys and tokens to whoever shows the token of the cluster: as AWS STS, the agent of EKS Pod Identity,

    Microsoft's authority and the identity service of a machine on Azure do.
    """

    token = "a-token-of-the-cluster"

    def __init__(self) -> None:
        class Handler(BaseHTTPRequestHandler):
            server: Identities

            def do_POST(self) -> None:
                asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
                if "client_assertion" in asked:
                    known = f"client_assertion={Identities.token}" in asked and "tenant" in self.path
                    found = _bearer() | {"expires_in": 3600} if known else {"error": "unknown"}
                    self._answer(200 if known else 401, json.dumps(found))
                    return
                known = f"WebIdentityToken={Identities.token}" in asked and "Action=AssumeRoleWithWebIdentity" in asked
                keys = f"<AccessKeyId>{KEY}</AccessKeyId><SecretAccessKey>{SECRET}</SecretAccessKey>"
                keys += f"<SessionToken></SessionToken><Expiration>{EXPIRES}</Expiration>"
                result = f"<AssumeRoleWithWebIdentityResult><Credentials>{keys}</Credentials>"
                result += "</AssumeRoleWithWebIdentityResult>"
                refusal = "<ErrorResponse><Error><Code>InvalidIdentityToken</Code></Error></ErrorResponse>"
                answer = f"<AssumeRoleWithWebIdentityResponse>{result}</AssumeRoleWithWebIdentityResponse>"
                self._answer(200 if known else 400, answer if known else refusal)

            def do_GET(self) -> None:
                if self.headers["Metadata"] == "true":
                    self._answer(200, json.dumps(_bearer()))
                    return
                known = self.headers["Authorization"] == Identities.token
                keys = {"AccessKeyId": KEY, "SecretAccessKey": SECRET, "Token": "", "Expiration": EXPIRES}
                self._answer(200 if known else 403, json.dumps(keys if known else {}))

            def _answer(self, status: int, text: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"


def _bearer() -> dict[str, object]:
    """A token that Azurite takes: it looks at what a token says."""
    now = int(time.time())
    claims = {"aud": "https://storage.azure.com", "iss": "https://sts.windows.net/tenant/", "nbf": now - 60}
    claims |= {"iat": now - 60, "exp": now + 3600}  # type: ignore[dict-item]
    parts = [json.dumps(part).encode() for part in ({"alg": "none", "typ": "JWT"}, claims)]
    token = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts) + ".c2lnbmVk"
    return {"access_token": token, "token_type": "Bearer", "expires_in": "3600", "expires_on": str(now + 3600)}


@pytest.fixture
def identities() -> Iterator[Identities]:
    server = Identities()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def without_keys(s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A fresh prefix in S3, whose keys are not in the environment."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return s3


def test_without_any_credentials_the_error_says_so(without_keys: str) -> None:
    with pytest.raises(StorageError, match="NoCredentialsError") as raised:
        goes_there_and_back(without_keys)
    assert "credentials" in raised.value.action


def test_credentials_from_a_file(without_keys: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "credentials"
    file.write_text(f"[team]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_PROFILE", "team")
    assert goes_there_and_back(without_keys)


@pytest.mark.parametrize(
    ("kind", "token"),
    [("web identity", Identities.token), ("web identity", "another"), ("pod identity", Identities.token)],
)
def test_the_identity_of_a_pod_reaches_s3(
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


@pytest.fixture
def account(azure: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh prefix in Azure, whose account and key are not in the environment."""
    for name in ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ENDPOINT"):
        monkeypatch.delenv(name)
    return azure


def signature(rights: str) -> str:
    """A shared access signature for the container with these rights, as in "rwdl"."""
    version, ends = "2021-12-02", (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    fields = [rights, "", ends, f"/blob/{ACCOUNT}/{azurite.CONTAINER}", "", "", "", version, "c", *[""] * 7]
    text = "\n".join(fields)
    sig = signed(text).replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
    return f"sv={version}&sr=c&sp={rights}&se={ends.replace(':', '%3A')}&sig={sig}"


@pytest.mark.parametrize("way", ["names of az", "connection string", "signature", "signature in a connection string"])
def test_azure_is_reached_by_key_and_by_signature(
    way: str, account: str, azure_server: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = f"{azure_server.endpoint}/{ACCOUNT}"
    string = {"BlobEndpoint": endpoint, "AccountName": ACCOUNT}
    if way == "names of az":
        told = {"AZURE_STORAGE_ACCOUNT": ACCOUNT, "AZURE_STORAGE_KEY": azurite.KEY, "AZURE_STORAGE_ENDPOINT": endpoint}
    elif way == "signature":
        told = {"AZURE_STORAGE_ACCOUNT": ACCOUNT, "AZURE_STORAGE_ENDPOINT": endpoint}
        told |= {"AZURE_STORAGE_SAS_TOKEN": signature("racwdl")}
    else:
        key = (
            {"AccountKey": azurite.KEY}
            if way == "connection string"
            else {"SharedAccessSignature": signature("racwdl")}
        )
        told = {"AZURE_STORAGE_CONNECTION_STRING": ";".join(map("=".join, (string | key).items()))}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert goes_there_and_back(account)


def test_a_signature_that_may_only_read_is_not_shown_when_it_is_refused(
    account: str, azure_server: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = signature("rl")
    string = f"BlobEndpoint={azure_server.endpoint}/{ACCOUNT};AccountName={ACCOUNT};SharedAccessSignature={given}"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", string)
    with pytest.raises(StorageError, match="AuthorizationPermissionMismatch") as raised:
        write_bytes(locate(f"{account}/file"), b"x")
    secret = given.partition("sig=")[2]
    assert secret not in str(raised.value)
    assert secret not in masked(f"word {secret}")


def test_without_an_account_the_error_says_so(account: str) -> None:
    with pytest.raises(StorageError, match="Account must be specified") as raised:
        goes_there_and_back(account)
    assert "AZURE_STORAGE_ACCOUNT_NAME" in raised.value.action


@pytest.mark.parametrize(
    ("kind", "token"),
    [("workload identity", Identities.token), ("workload identity", "another"), ("managed identity", "")],
)
def test_the_identity_of_a_pod_or_machine_reaches_azure(
    kind: str,
    token: str,
    azure_by_tls: tuple[Azurite, Path],
    identities: Identities,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, ca = azure_by_tls
    reach(server, monkeypatch)
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY")
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    if kind == "workload identity":
        (tmp_path / "token").write_text(token)
        told = {"AZURE_CLIENT_ID": "client", "AZURE_TENANT_ID": "tenant", "AZURE_AUTHORITY_HOST": identities.url}
        told |= {"AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "token")}
    else:
        told = {"AZURE_MSI_ENDPOINT": f"{identities.url}/metadata/identity/oauth2/token"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    place = f"{server.bucket}/{kind.replace(' ', '-')}"
    if token == "another":
        with pytest.raises(StorageError, match="401"):
            goes_there_and_back(place)
    else:
        assert goes_there_and_back(place)
