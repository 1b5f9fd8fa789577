"""`tamis doctor --cluster` on claims and volumes of a real API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tamis_pipelines.checks.check import Check
from tamis_pipelines.checks.claims import claims
from tamis_pipelines.settings import load_run
from tests.conftest import ROOT
from tests.kubernetes.api_server import ApiServer, Unavailable, programs

NAMESPACE = "research"


@pytest.fixture(scope="module")
def server(kubectl: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    try:
        programs()
    except Unavailable as error:
        pytest.skip(str(error))
    with ApiServer(tmp_path_factory.mktemp("server"), kubectl) as started:
        started("create", "namespace", NAMESPACE)
        yield started


def claim(server: ApiServer, name: str, *, phase: str = "Bound", mode: str = "ReadWriteOnce", **volume: Any) -> None:
    """Create a claim and its volume; `phase` is what the controller would write, which does not run here."""
    size, annotations = {"storage": "1Gi"}, volume.pop("annotations", {})
    bound = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"volume-{name}", "annotations": annotations},
        "spec": {"capacity": size, "accessModes": [mode], **(volume or {"hostPath": {"path": "/data"}})},
    }
    claimed = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "accessModes": [mode],
            "resources": {"requests": size},
            "volumeName": bound["metadata"]["name"],
            "storageClassName": "",
        },
    }
    for thing in (bound, claimed):
        server("create", "-f", "-", given=json.dumps(thing))
    place = f"/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims/{name}"
    made = json.loads(server("get", "--raw", place))
    server("replace", "--raw", f"{place}/status", "-f", "-", given=json.dumps(made | {"status": {"phase": phase}}))


def look(server: ApiServer, name: str, monkeypatch: pytest.MonkeyPatch, *more: str) -> Check:
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig))
    settings = load_run(ROOT / "examples/cluster.yaml", (f"kubeflow.objects.model_cache={name}", *more))
    return next(iter(claims(settings, NAMESPACE)))


NFS = {"nfs": {"server": "files", "path": "/models"}}


@pytest.mark.parametrize(
    ("name", "volume", "level", "said"),
    [
        ("unknown", {}, "note", "only a pod can see"),
        ("of-pods", NFS | {"mountOptions": ["uid=10001", "gid=10001"]}, "ok", "uid 10001, gid 10001"),
        ("of-group", NFS | {"annotations": {"pv.beta.kubernetes.io/gid": "10001"}}, "ok", "gid 10001"),
        ("of-root", NFS | {"mountOptions": ["uid=0", "gid=0"]}, "note", "uid 0, gid 0"),
        ("frozen", {"nfs": NFS["nfs"] | {"readOnly": True}}, "note", "read-only"),
        ("shared", NFS | {"mode": "ReadOnlyMany"}, "note", "read-only"),
        ("waits", {"phase": "Pending"}, "note", "Pending"),
    ],
)
def test_a_claim_tells_what_its_objects_say_of_its_owner(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch, name: str, volume: dict[str, Any], level: str, said: str
) -> None:
    claim(server, name, **volume)
    found = look(server, name, monkeypatch)
    assert (found.level, said in found.seen) == (level, True), found


def test_a_claim_that_is_not_there_fails(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    found = look(server, "nothing", monkeypatch)
    assert (found.level, found.what) == ("failed", "kubeflow.objects.model_cache")


def test_a_package_without_claims_needs_none(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig))
    without = [f"kubeflow.compiled.{claim}=false" for claim in ("model_cache", "work_volume")]
    settings = load_run(ROOT / "examples/cluster.yaml", without)
    assert list(claims(settings, NAMESPACE)) == []
