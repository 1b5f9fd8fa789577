"""Azurite, a real server of Azure Blob Storage, as a process of its own."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import shutil
import socket
import ssl
import subprocess
import time
from email.utils import formatdate
from pathlib import Path

ACCOUNT, CONTAINER = "devstoreaccount1", "tamis"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # Azurite's own
_BINARIES = Path(__file__).parents[2] / "build" / "azurite" / "node_modules" / ".bin"


def program() -> str | None:
    """The server's program, on the path or where CI installs it."""
    return shutil.which("azurite-blob") or shutil.which("azurite-blob", path=str(_BINARIES))


class Azurite:
    """A server whose data lie in `folder`. With `certificate` (a PEM file with its key) it speaks TLS only.

    Then it also takes bearer tokens, of any authority: it looks at what they say, not at their signatures.
    """

    bucket = f"az://{CONTAINER}"

    def __init__(self, folder: Path, *, certificate: Path | None = None) -> None:
        self._folder, self._certificate = folder, certificate
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.endpoint = f"http{'s' if certificate else ''}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Return when it answers and its container is there."""
        command = [str(program()), "--blobHost", "127.0.0.1", "--blobPort", str(self.port), "--silent"]
        command += ["--location", str(self._folder), "--skipApiVersionCheck", "--disableTelemetry"]
        if self._certificate is not None:
            command += ["--cert", str(self._certificate), "--key", str(self._certificate), "--oauth", "basic"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        give_up = time.monotonic() + 60
        while True:
            try:
                status = self.make_container(CONTAINER)
                break
            except OSError:
                if time.monotonic() > give_up:
                    raise RuntimeError(f"Azurite did not start:\n{(self._folder / 'log').read_text()}") from None
                time.sleep(0.1)
        assert status in (201, 409), status

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """Variables by which its account is reached, at another address if `endpoint` says so."""
        return {
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": KEY,
            "AZURE_STORAGE_ENDPOINT": f"{endpoint or self.endpoint}/{ACCOUNT}",
        }

    def make_container(self, name: str) -> int:
        """Make a container; the status of the answer."""
        headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-12-02"}
        told = "".join(f"{key}:{value}\n" for key, value in headers.items())
        text = f"PUT{chr(10) * 12}{told}/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
        headers |= {"Authorization": f"SharedKey {ACCOUNT}:{signed(text)}", "Content-Length": "0"}
        if self._certificate is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        else:
            trusting = ssl._create_unverified_context()
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=trusting)
        try:
            connection.request("PUT", f"/{ACCOUNT}/{name}?restype=container", headers=headers)
            return connection.getresponse().status
        finally:
            connection.close()


def signed(text: str) -> str:
    """The signature of a text by the account's key."""
    return base64.b64encode(hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()).decode()
