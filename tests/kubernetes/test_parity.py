"""Chart and manifests make the same objects, where both make them; images are named alike everywhere."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import tamis
from tamis.components import image
from tests.kubernetes.binaries import ROOT
from tests.kubernetes.conftest import CHART, MANIFESTS, overlay, rendered
from tests.kubernetes.objects import by_name, containers, pods

IMAGES = ["cpu", "rating", "training", "evaluation"]
VALUES: dict[str, Any] = {
    "kueue": {"enabled": True},
    "kubeflow": {"enabled": True},
    "trainer": {"enabled": True},
    "networkPolicy": {"enabled": True, "allowedNamespaces": ["monitoring"]},
    "monitoring": {"podMonitor": True},
    "modelCache": {"prefetch": {"models": [{"kind": "hub", "repo": "a/b"}]}},
}
# Components that the chart has too.
PARTS = ["kueue", "kubeflow", "kubeflow-trainer", "network-policy", "kubeflow-network", "monitoring", "images"]
SHARED = [
    "ServiceAccount/tamis",
    "ConfigMap/tamis-environment",
    "ConfigMap/tamis-aws-config",
    "PersistentVolumeClaim/tamis-models",
    "NetworkPolicy/tamis",
    "NetworkPolicy/tamis-kubeflow",
    "NetworkPolicy/tamis-metrics",
    "PodMonitor/tamis-stages",
    "ResourceFlavor/tamis-cpu",
    "ResourceFlavor/tamis-gpu",
    "ClusterQueue/tamis",
    "LocalQueue/tamis",
    "ServiceAccount/tamis-pipeline",
    "Role/tamis-pipeline",
    "RoleBinding/tamis-pipeline",
    "Role/tamis-pipeline-trainer",
    "RoleBinding/tamis-pipeline-trainer",
]
# Labels that say who installed an object, not what it is.
_OF_HELM = {"helm.sh/chart", "app.kubernetes.io/instance", "app.kubernetes.io/version", "app.kubernetes.io/managed-by"}


def plain(document: dict[str, Any]) -> dict[str, Any]:
    """An object without what only helm adds and without its namespace."""
    document = copy.deepcopy(document)
    metadata = document["metadata"]
    metadata.pop("namespace", None)
    metadata["labels"] = {k: v for k, v in metadata["labels"].items() if k not in _OF_HELM}
    if document.get("spec") is None:
        document.pop("spec", None)
    return document


@pytest.fixture(scope="module")
def manifests(kubectl: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Base and the components that the chart has too."""
    folder = tmp_path_factory.mktemp("parity", numbered=True)
    relative = Path("../" * len(folder.parts[1:])) / str(MANIFESTS).lstrip("/")
    components = [str(relative / "components" / name) for name in PARTS]
    kustomization = {"namespace": "tamis", "resources": [str(relative / "base")], "components": components}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    ended = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return by_name(list(yaml.safe_load_all(ended.stdout)))


@pytest.mark.parametrize("name", SHARED)
def test_an_object_of_both_is_the_same(newest_helm: Path, manifests: dict[str, dict[str, Any]], name: str) -> None:
    assert plain(by_name(rendered(newest_helm, VALUES))[name]) == plain(manifests[name])


def test_nothing_else_is_in_both(newest_helm: Path, manifests: dict[str, dict[str, Any]]) -> None:
    assert set(by_name(rendered(newest_helm, VALUES))) & set(manifests) == set(SHARED)


def test_pods_of_both_are_secured_alike_and_look_for_storage_alike(newest_helm: Path, kubectl: Path) -> None:
    (job,) = [d for d in rendered(newest_helm, VALUES) if d["kind"] == "Job"]
    of_chart = job["spec"]["template"]["spec"]
    of_manifests = by_name(overlay(kubectl, "gpu"))["Job/tamis-pool"]["spec"]["template"]["spec"]
    for field in ("securityContext", "automountServiceAccountToken", "enableServiceLinks", "serviceAccountName"):
        assert of_chart[field] == of_manifests[field]
    (mine,), (theirs,) = of_chart["containers"], of_manifests["containers"]
    for field in ("securityContext", "terminationMessagePolicy", "imagePullPolicy", "image"):
        assert mine[field] == theirs[field]
    assert mine["envFrom"][0] == theirs["envFrom"][0]
    mounts = [
        {m["mountPath"] for m in c["volumeMounts"] if m["name"] not in ("models-list", "settings")}
        for c in (mine, theirs)
    ]
    assert mounts[0] == mounts[1]


def test_the_version_is_the_same_everywhere() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == tamis.__version__
    for entry in yaml.safe_load((MANIFESTS / "components/images/kustomization.yaml").read_text())["images"]:
        assert str(entry["newTag"]) == tamis.__version__
    for name in IMAGES:
        text = (ROOT / "images" / f"{name}.Containerfile").read_text()
        assert f"ARG VERSION={tamis.__version__}\n" in text


@pytest.mark.parametrize("name", IMAGES)
def test_components_chart_and_manifests_name_the_same_image(newest_helm: Path, kubectl: Path, name: str) -> None:
    named = image(name)
    assert f"-t {named} ." in (ROOT / "images" / f"{name}.Containerfile").read_text()
    of_kustomize = {
        c["image"] for o in ("kueue", "gpu") for d in overlay(kubectl, o) for p in pods(d) for c in containers(p)
    }
    assert named in of_kustomize
    helper = rendered(newest_helm, VALUES | {"vllm": {"services": {"a": {"model": "x/y"}}}})
    of_chart = {c["image"] for d in helper for p in pods(d) for c in containers(p)}
    assert of_chart <= {image(known) for known in IMAGES}
    if name in ("cpu", "rating"):
        assert named in of_chart


def test_an_image_can_be_named_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAMIS_IMAGE_CPU", "registry/mine@sha256:" + "0" * 64)
    assert image("cpu") == "registry/mine@sha256:" + "0" * 64
    assert image("rating").endswith(f"/tamis-rating:{tamis.__version__}")


def test_a_registry_of_ones_own_reaches_every_component() -> None:
    code = "from tamis.components import image; print(image('cpu'))"
    environment = {"TAMIS_IMAGE_REGISTRY": "registry.internal/x", "TAMIS_IMAGE_TAG": "9"}
    shown = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "registry.internal/x/tamis-cpu:9"


def test_every_image_named_in_a_component_is_built_here() -> None:
    named = set()
    for file in (ROOT / "components" / "tamis").glob("*/component.py"):
        named |= set(re.findall(r'@component\("(\w+)"', file.read_text()))
    assert named <= set(IMAGES)
    assert {path.name.split(".")[0] for path in (ROOT / "images").glob("*.Containerfile")} == set(IMAGES)
