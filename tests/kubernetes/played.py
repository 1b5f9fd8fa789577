"""An API server on which a test plays controllers, the node and its kubelet."""

from __future__ import annotations

import json
import os
import ssl
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
from tests.kubernetes.api_server import ApiServer
from tests.kubernetes.schemas import CRDS

# Servers before 1.25 do not know these words of a CustomResourceDefinition.
_NEW_WORDS = {"x-kubernetes-validations", "selectableFields", "x-kubernetes-list-type", "x-kubernetes-list-map-keys"}


class PlayedServer(ApiServer):
    """The server, with Kubeflow Trainer's resources and the node `gpu-0`, whose kubelet tells what `logs` holds.

    Attributes:
        logs: of each pod, lines as the kubelet sends them, with their times; a test may add some while they are read.
        open: pods whose log is not at its end.
        ends: how often the sending of a pod's log has ended.
    """

    def __init__(self, folder: Path, kubectl: Path) -> None:
        super().__init__(folder, kubectl)
        self.logs: dict[str, list[str]] = {}
        self.open: set[str] = set()
        self.ends: Counter[str] = Counter()
        self._ca = folder / "certificates" / "apiserver.crt"  # the server makes it at its start

    def __enter__(self) -> PlayedServer:
        definitions = os.environ.get(CRDS)
        if not definitions:
            pytest.skip(f"{CRDS} names no folder with CustomResourceDefinitions")
        super().__enter__()
        config = json.loads(self.kubeconfig.read_text())
        self._url = config["clusters"][0]["cluster"]["server"]
        self._token = config["users"][0]["user"]["token"]
        self._http = urllib3.PoolManager(ca_certs=str(self._ca))
        self._kubelet = self._start_kubelet()
        for kind in ("trainjobs", "trainingruntimes"):
            self._define(Path(definitions) / f"trainer_{kind}.yaml")
        node: dict[str, Any] = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "gpu-0"}}
        node["status"] = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._kubelet.server_address[1]}},
        }
        self.make("/api/v1/nodes", node)
        return self

    def __exit__(self, *_: object) -> None:
        self._kubelet.shutdown()
        self._kubelet.server_close()
        super().__exit__()

    def _start_kubelet(self) -> ThreadingHTTPServer:
        pem, _ = private_certificate(self._folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        kubelet = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Kubelet,), {"server_of": self}))
        kubelet.socket = context.wrap_socket(kubelet.socket, server_side=True)
        threading.Thread(target=kubelet.serve_forever, args=(0.05,), daemon=True).start()
        return kubelet

    def _define(self, file: Path) -> None:
        definition = _old(yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
        definition["spec"].pop("conversion", None)
        definition.pop("status", None)
        self.make("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
        spec = definition["spec"]
        while b"page not found" in self.ask("GET", f"/apis/{spec['group']}/v1alpha1/{spec['names']['plural']}"):
            time.sleep(0.1)

    def ask(self, verb: str, path: str, body: Any = None, *, kind: str = "application/json") -> bytes:
        """What the server answers to its administrator."""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": kind}
        data = None if body is None else json.dumps(body).encode()
        response = self._http.request(verb, self._url + path, body=data, headers=headers)
        assert verb == "GET" or response.status < 300, response.data
        return bytes(response.data)

    def make(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Make an object."""
        made: dict[str, Any] = json.loads(self.ask("POST", path, body))
        return made

    def get(self, path: str) -> dict[str, Any] | None:
        """An object, if it is there."""
        found: dict[str, Any] = json.loads(self.ask("GET", path))
        return None if found.get("kind") == "Status" else found

    def change(self, path: str, change: dict[str, Any]) -> None:
        """Merge `change` into an object, or into its status where the path says so."""
        self.ask("PATCH", path, change, kind="application/merge-patch+json")

    def account(self, namespace: str, name: str) -> str:
        """Make a service account; returns a token of it."""
        accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        self.make(accounts, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}}
        return str(self.make(f"{accounts}/{name}/token", request)["status"]["token"])

    def kubeconfig_of(self, file: Path, namespace: str, token: str = "", *, insecure: bool = False) -> Path:
        """A file by which clients reach the server with this token, the administrator's if it is empty."""
        trust = {"insecure-skip-tls-verify": True} if insecure else {"certificate-authority": str(self._ca)}
        cluster = {"server": self._url} | trust
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": token or self._token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": namespace}}],
            "current-context": "c",
        }
        file.write_text(yaml.safe_dump(config))
        return file


class _Kubelet(BaseHTTPRequestHandler):
    """Sends a pod's log as a kubelet does, until its end where the caller follows it."""

    server_of: PlayedServer

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
