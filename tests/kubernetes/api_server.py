"""A real API server with its etcd and nothing beside them: objects are accepted or refused, no pod is started.

`KUBEBUILDER_ASSETS` names the folder with `kube-apiserver` and `etcd`, as for Kubernetes' own envtest.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

from tests.storage.seaweed import free_port

ASSETS = "KUBEBUILDER_ASSETS"
_TOKEN = "administrator-of-the-tests"


class Unavailable(Exception):
    """There are no such programs on this machine."""


def programs() -> dict[str, Path]:
    """The programs of the server.

    Raises:
        Unavailable: with the reason, when `KUBEBUILDER_ASSETS` does not name a folder that has them.
    """
    folder = os.environ.get(ASSETS)
    if not folder:
        raise Unavailable(f"{ASSETS} names no folder with kube-apiserver and etcd")
    found = {name: Path(folder, name) for name in ("kube-apiserver", "etcd")}
    if missing := [str(path) for path in found.values() if not os.access(path, os.X_OK)]:
        raise Unavailable(f"{ASSETS}: {', '.join(missing)} cannot be run")
    return found


class ApiServer:
    """The server, its data in `folder`; `kubectl` is a program. A context manager."""

    def __init__(self, folder: Path, kubectl: Path) -> None:
        self._folder, self._kubectl = folder, kubectl
        self._processes: list[subprocess.Popen[bytes]] = []
        self.kubeconfig = folder / "kubeconfig"

    def __enter__(self) -> ApiServer:
        found, etcd, peers, port = programs(), *(free_port() for _ in range(3))
        self._start(
            found["etcd"],
            f"--data-dir={self._folder}/etcd",
            f"--listen-client-urls=http://127.0.0.1:{etcd}",
            f"--advertise-client-urls=http://127.0.0.1:{etcd}",
            f"--listen-peer-urls=http://127.0.0.1:{peers}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peers}",
            f"--initial-cluster=default=http://127.0.0.1:{peers}",
            "--unsafe-no-fsync",
        )
        key, tokens = self._folder / "accounts.key", self._folder / "tokens.csv"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        tokens.write_text(f"{_TOKEN},admin,admin,system:masters\n")
        self._start(
            found["kube-apiserver"],
            f"--etcd-servers=http://127.0.0.1:{etcd}",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            f"--cert-dir={self._folder}/certificates",
            f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount,Priority",  # accounts and priorities are not made here
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16",
        )
        self._write_kubeconfig(f"https://127.0.0.1:{port}")
        self._wait()
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait()

    def __call__(self, *arguments: str | Path, given: str | None = None, check: bool = True) -> str:
        """What kubectl says, warnings too; with `check` it must end well."""
        environment = os.environ | {"KUBECONFIG": str(self.kubeconfig)}
        command = [self._kubectl, *arguments]
        ended = subprocess.run(command, input=given, capture_output=True, text=True, env=environment)
        assert not check or ended.returncode == 0, f"kubectl {arguments}: {ended.stderr}"
        return ended.stdout + ended.stderr

    def minor(self) -> int:
        """The server's version is 1.`minor`."""
        return int(json.loads(self("get", "--raw", "/version"))["minor"].rstrip("+"))

    def kinds(self) -> set[tuple[str, str]]:
        """apiVersion and kind of what can be made."""
        said = self("api-resources", "--verbs=create", "--no-headers")
        columns = [line.split() for line in said.splitlines()]
        return {(words[-3], words[-1]) for words in columns}

    def _start(self, *command: str | Path) -> None:
        with (self._folder / f"{Path(command[0]).name}.log").open("wb") as log:
            self._processes.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=self._folder))

    def _write_kubeconfig(self, server: str) -> None:
        written = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": server, "insecure-skip-tls-verify": True}}],
            "users": [{"name": "u", "user": {"token": _TOKEN}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "c",
        }
        self.kubeconfig.write_text(json.dumps(written))

    def _wait(self) -> None:
        give_up = time.monotonic() + 120
        while "ok" not in self("get", "--raw", "/readyz", check=False):
            ended = [process.args for process in self._processes if process.poll() is not None]
            if ended or time.monotonic() > give_up:
                logs = "\n".join(log.read_text(errors="replace")[-2000:] for log in self._folder.glob("*.log"))
                raise RuntimeError(f"the API server did not start:\n{logs}")
            time.sleep(0.2)
