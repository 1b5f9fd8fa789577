"""SeaweedFS, a real S3 server, as a process of its own."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

KEY, SECRET, BUCKET = "tamis-test", "tamis-test-secret", "tamis"


def program() -> str | None:
    """The server's program, beside this Python or on the path."""
    return shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")


def free_port() -> int:
    """A TCP port that nobody listens on; SeaweedFS also takes the one 10,000 above for gRPC."""
    while True:
        with socket.socket() as probe, socket.socket() as above:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            if port >= 55_000:
                continue
            try:
                above.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port


class Seaweed:
    """A server whose data lie in `folder`; it may be stopped and started again without loss.

    `bind` is the address that it listens at: 0.0.0.0 to be reached from pods. With `certificate` (a PEM file with its
    key) it also speaks TLS, at `tls_port`; `ca` vouches for it.
    """

    bucket = f"s3://{BUCKET}"

    def __init__(
        self, folder: Path, bind: str = "127.0.0.1", certificate: Path | None = None, ca: Path | None = None
    ) -> None:
        self._folder, self.ca = folder, ca
        self._process: subprocess.Popen[bytes] | None = None
        identity = {
            "name": "test",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
        self.port = ports["s3"]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._command = [str(program()), "server", f"-dir={folder}", "-ip=127.0.0.1", f"-ip.bind={bind}"]
        self._command += [f"-{name}.port={port}" for name, port in ports.items()]
        self._command += ["-volume.max=20", "-master.volumeSizeLimitMB=64", "-filer", "-s3", "-iam=false"]
        # The catalogues' ports are the same for every server, and are not needed.
        self._command += [f"-s3.config={folder}/s3.json", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        self._command += ["-master.telemetry=false"]
        if certificate is not None:
            self.tls_port = free_port()
            self._command += [f"-s3.port.https={self.tls_port}"]
            self._command += [f"-s3.cert.file={certificate}", f"-s3.key.file={certificate}"]

    def start(self) -> None:
        """Return when it answers and its bucket is there."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=subprocess.STDOUT)
        self._make_bucket()

    def stop(self) -> None:
        """End it at once; a graceful end takes 25 s."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """Variables by which it is reached, at another address if `endpoint` says so."""
        return {
            "AWS_ENDPOINT_URL_S3": endpoint or self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def client(self) -> Any:
        """A client of botocore with the server's credentials."""
        from botocore.session import Session

        return Session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )

    def _make_bucket(self) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        client, give_up = self.client(), time.monotonic() + 60
        while True:
            try:
                if BUCKET not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
                    client.create_bucket(Bucket=BUCKET)
                return
            except (BotoCoreError, ClientError):
                if time.monotonic() > give_up:
                    log = (self._folder / "log").read_text(errors="replace")
                    raise RuntimeError(f"the S3 server did not start:\n{log[-2000:]}") from None
                time.sleep(0.2)
