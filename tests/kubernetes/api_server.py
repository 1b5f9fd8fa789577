"""A real API server without controllers and nodes, for what talks to Kubernetes: a test plays the rest.

Needs `kube-apiserver` and `etcd` in the folder that KUBEBUILDER_ASSETS names (etcd may be on the PATH), and
TAMIS_TEST_CRDS for custom resources.
"""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest
import urllib3
import yaml

from tests.certificates import private_certificate
from tests.kubernetes.schemas import CRDS
from tests.storage.seaweed import free_port

ADMIN = "admin-token"
# Servers before 1.25 do not know these words of a CustomResourceDefinition.
_NEW_WORDS = {"x-kubernetes-validations", "selectableFields", "x-kubernetes-list-type", "x-kubernetes-list-map-keys"}


def programs() -> tuple[Path, Path]:
    """The API server and etcd; skips the test where there are none."""
    folder = Path(os.environ.get("KUBEBUILDER_ASSETS") or pytest.skip("KUBEBUILDER_ASSETS names no folder"))
    etcd = shutil.which("etcd", path=f"{folder}{os.pathsep}{os.environ['PATH']}")
    server = folder / "kube-apiserver"
    if not server.is_file() or etcd is None:
        pytest.skip(f"no kube-apiserver in {folder}, or no etcd")
    if not os.environ.get(CRDS):
        pytest.skip(f"{CRDS} names no folder with CustomResourceDefinitions")
    return server, Path(etcd)


class ApiServer:
    """A running API server, with a kubelet that tells what `logs` holds by pod.

    Attributes:
        logs: of each pod, lines as the kubelet sends them, with their times; a test may add some while they are read.
        open: pods whose log is not at its end.
        ends: how often the sending of a pod's log has ended.
    """

    def __init__(self, folder: Path, users: dict[str, str]) -> None:
        """Start it; `users` are names by token, beside the administrator."""
        server, etcd = programs()
        self.logs: dict[str, list[str]] = {}
        self.open: set[str] = set()
        self.ends: Counter[str] = Counter()
        self._folder, self._processes = folder, list[subprocess.Popen[bytes]]()
        ports = [free_port() for _ in range(3)]
        store = f"http://127.0.0.1:{ports[0]}"
        peer = f"http://127.0.0.1:{ports[1]}"
        self._start(
            etcd, f"--data-dir={folder}/etcd", f"--listen-client-urls={store}", f"--advertise-client-urls={store}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
        )  # fmt: skip
        (folder / "tokens.csv").write_text(
            f"{ADMIN},admin,admin,system:masters\n"
            + "".join(f"{token},{user},{user}\n" for token, user in users.items())
        )
        key = folder / "accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        pem, self._ca = private_certificate(folder)
        self.url = f"https://127.0.0.1:{ports[2]}"
        issuer = "https://kubernetes.default.svc"
        self._start(
            server, f"--etcd-servers={store}", "--bind-address=127.0.0.1", f"--secure-port={ports[2]}",
            f"--tls-cert-file={pem}", f"--tls-private-key-file={pem}", f"--service-account-key-file={key}",
            f"--service-account-issuer={issuer}",
            f"--service-account-signing-key-file={key}", f"--api-audiences={issuer}", "--authorization-mode=RBAC",
            f"--token-auth-file={folder}/tokens.csv", "--service-cluster-ip-range=10.96.0.0/16",
            "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition",
        )  # fmt: skip
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        self._kubelet = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Kubelet,), {"server_of": self}))
        self._kubelet.socket = context.wrap_socket(self._kubelet.socket, server_side=True)
        threading.Thread(target=self._kubelet.serve_forever, args=(0.05,), daemon=True).start()
        self._http = urllib3.PoolManager(ca_certs=str(self._ca))
        self._ready()

    def _start(self, *command: str | Path) -> None:
        with (self._folder / f"{Path(command[0]).name}.log").open("wb") as output:
            self._processes.append(subprocess.Popen(command, stdout=output, stderr=output))

    def _ready(self) -> None:
        give_up = time.monotonic() + 90
        while time.monotonic() < give_up:
            try:
                if self.ask("GET", "/readyz", check=False) == b"ok":
                    break
            except urllib3.exceptions.HTTPError:
                pass
            time.sleep(0.3)
        else:
            raise AssertionError((self._folder / "kube-apiserver.log").read_text()[-3000:])
        for kind in ("trainjobs", "trainingruntimes"):
            file = Path(os.environ[CRDS]) / f"trainer_{kind}.yaml"
            definition = _old(yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
            definition["spec"].pop("conversion", None)
            definition.pop("status", None)
            self.make("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
            known = f"/apis/{definition['spec']['group']}/v1alpha1/{kind}"
            while b"page not found" in self.ask("GET", known, check=False):
                time.sleep(0.1)
        node: dict[str, Any] = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "gpu-0"}}
        node["status"] = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._kubelet.server_address[1]}},
        }
        self.make("/api/v1/nodes", node)

    def ask(
        self, verb: str, path: str, body: Any = None, *, check: bool = True, kind: str = "application/json"
    ) -> bytes:
        """What the server answers to its administrator."""
        headers = {"Authorization": f"Bearer {ADMIN}", "Content-Type": kind}
        data = None if body is None else json.dumps(body).encode()
        response = self._http.request(verb, self.url + path, body=data, headers=headers)
        assert not check or response.status < 300, response.data
        return bytes(response.data)

    def make(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Make an object."""
        made: dict[str, Any] = json.loads(self.ask("POST", path, body))
        return made

    def get(self, path: str) -> dict[str, Any] | None:
        """An object, if it is there."""
        found: dict[str, Any] = json.loads(self.ask("GET", path, check=False))
        return None if found.get("kind") == "Status" else found

    def change(self, path: str, change: dict[str, Any]) -> None:
        """Merge `change` into an object, or into its status where the path says so."""
        self.ask("PATCH", path, change, kind="application/merge-patch+json")

    def kubeconfig(self, file: Path, token: str, namespace: str) -> Path:
        """A file by which clients reach the server as the user of `token`."""
        cluster = {"server": self.url, "certificate-authority": str(self._ca)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
            "current-context": "test",
        }
        file.write_text(yaml.safe_dump(config))
        return file

    def close(self) -> None:
        self._kubelet.shutdown()
        self._kubelet.server_close()
        for process in reversed(self._processes):
            process.terminate()
            process.wait(20)


class _Kubelet(BaseHTTPRequestHandler):
    """Sends a pod's log as a kubelet does, until its end where the caller follows it."""

    server_of: ApiServer

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        url = urlparse(self.path)
        query = parse_qs(url.query)
        assert url.path.startswith("/containerLogs/")
        pod = url.path.split("/")[3]
        lines, sent = self.server_of.logs[pod], 0
        self.send_response(200)
        self.end_headers()
        while True:
            for line in lines[sent:]:
                text = line if query.get("timestamps") == ["true"] else line.partition(" ")[2]
                self.wfile.write(text.encode() + b"\n")
                self.wfile.flush()
                sent += 1
            if query.get("follow") != ["true"] or pod not in self.server_of.open:
                self.server_of.ends[pod] += 1
                return
            time.sleep(0.05)


def _old(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _old(inner)
            for key, inner in value.items()
            if key not in _NEW_WORDS and not (key == "default" and inner in ("", None))
        }
    return [_old(inner) for inner in value] if isinstance(value, list) else value
