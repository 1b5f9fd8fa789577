"""A real cluster that the tests may change. The environment says which; without one these tests skip.

TAMIS_TEST_KUBECONFIG: kubeconfig of a cluster whose only node is this machine; it has the image `cpu` of this version.
TAMIS_TEST_HOST: address of this machine as pods see it, 10.244.0.1 by default.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.certificates import private_certificate
from tests.kubernetes.conftest import MANIFESTS, Objects, tools
from tests.kubernetes.conftest import helm as helm  # a fixture: both major versions
from tests.storage import seaweed
from tests.storage.seaweed import BUCKET, KEY, SECRET, Seaweed

HOST = os.environ.get("TAMIS_TEST_HOST", "10.244.0.1")
NAMESPACE = "tamis"


class Cluster:
    """kubectl with the cluster's administrator."""

    def __init__(self, kubectl: Path, kubeconfig: str) -> None:
        self._kubectl, self.environment = kubectl, os.environ | {"KUBECONFIG": kubeconfig}

    def __call__(self, *arguments: str | Path, given: str | None = None, check: bool = True) -> str:
        """Return what kubectl prints; with `check` it must succeed."""
        ended = subprocess.run(
            [self._kubectl, *arguments], input=given, capture_output=True, text=True, env=self.environment
        )
        assert not check or ended.returncode == 0, f"kubectl {arguments}: {ended.stderr}"
        return ended.stdout if check else ended.stdout + ended.stderr

    def get(self, *what: str) -> list[dict[str, Any]]:
        """Objects of the tests' namespace."""
        items: list[dict[str, Any]] = json.loads(self("-n", NAMESPACE, "get", *what, "-o", "json"))["items"]
        return items

    def images(self) -> set[str]:
        """Names of the images that the nodes have."""
        nodes = json.loads(self("get", "nodes", "-o", "json"))["items"]
        return {name for node in nodes for image in node["status"].get("images") or () for name in image["names"]}

    def apply(self, objects: Objects) -> None:
        """Create or change objects. A server older than the manifests expect drops fields that it does not know."""
        self("apply", "--validate=false", "-f", "-", given=yaml.safe_dump_all(objects))

    def pods(self, job: str) -> list[dict[str, Any]]:
        """The pods of a Job, the oldest first."""
        return sorted(self.get("pods", "-l", f"job-name={job}"), key=lambda pod: pod["metadata"]["creationTimestamp"])

    def evict(self, pod: str) -> None:
        """Ask for a pod's eviction, as `kubectl drain` does."""
        served = self("get", "--raw", "/apis/policy/v1", check=False)
        version = "policy/v1" if "APIResourceList" in served else "policy/v1beta1"
        body = {"apiVersion": version, "kind": "Eviction", "metadata": {"name": pod, "namespace": NAMESPACE}}
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction"
        self("create", "--raw", path, "-f", "-", given=json.dumps(body))

    def wait(self, until: Callable[[], Any], seconds: float, what: str) -> Any:
        """The first true value of `until`."""
        give_up = time.monotonic() + seconds
        while not (found := until()):
            if time.monotonic() > give_up:
                pytest.fail(f"after {seconds:.0f} s: no {what}\n{self('-n', NAMESPACE, 'get', 'pods,jobs,events')}")
            time.sleep(1)
        return found

    def ended(self, jobs: list[str], seconds: float = 600) -> dict[str, bool]:
        """Whether each Job succeeded, once all of them have ended or one has failed."""

        def states() -> dict[str, bool] | None:
            found = {}
            for job in self.get("jobs"):
                for condition in job["status"].get("conditions", ()):
                    if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
                        found[job["metadata"]["name"]] = condition["type"] == "Complete"
            return found if set(jobs) <= set(found) or not all(found.values()) else None

        result: dict[str, bool] = self.wait(states, seconds, f"end of {', '.join(jobs)}")
        return result


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    kubeconfig = os.environ.get("TAMIS_TEST_KUBECONFIG")
    if not kubeconfig:
        pytest.skip("no cluster: TAMIS_TEST_KUBECONFIG names none")
    found = Cluster(tools(3) / "kubectl", kubeconfig)
    assert "ok" in found("get", "--raw", "/readyz")
    return found


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """The namespace `tamis`, empty; removed afterwards."""
    cluster("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=true")
    cluster("create", "namespace", NAMESPACE)
    yield NAMESPACE
    cluster("delete", "namespace", NAMESPACE, "--wait=true")


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """An S3 server that pods reach at `HOST`, also by TLS, with a certificate that they do not know."""
    if seaweed.program() is None:
        pytest.skip("no `weed` (SeaweedFS) on this machine")
    folder = tmp_path_factory.mktemp("seaweedfs")
    certificate, ca = private_certificate(folder, HOST)
    server = Seaweed(folder, bind="0.0.0.0", certificate=certificate, ca=ca)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def model_folder(models: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the models `minilm`, `smollm2` and `tiny`, readable to the user of the pods."""
    folder = tmp_path_factory.mktemp("models")
    for model in (models / "minilm", models / "smollm2", tiny):
        shutil.copytree(model, folder / model.name.removesuffix("0"))
    for path in [folder, *folder.rglob("*"), *folder.parents]:
        if path.stat().st_uid == os.getuid():
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
    return folder


@pytest.fixture
def volume(cluster: Cluster, model_folder: Path) -> Iterator[None]:
    """A volume on the node with the models, for the claim `tamis-models`."""
    with _volume(cluster, model_folder):
        yield


@pytest.fixture
def empty_volume(cluster: Cluster, tmp_path: Path) -> Iterator[Path]:
    """A volume on the node for the claim `tamis-models`, and its folder, in which pods may write."""
    folder = tmp_path / "volume"
    folder.mkdir()
    folder.chmod(0o777)
    with _volume(cluster, folder):
        yield folder


@contextmanager
def _volume(cluster: Cluster, folder: Path) -> Iterator[None]:
    spec = {
        "capacity": {"storage": "200Gi"},
        "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
        "hostPath": {"path": str(folder)},
        "persistentVolumeReclaimPolicy": "Retain",
        "claimRef": {"name": "tamis-models", "namespace": NAMESPACE},
    }
    made = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "tamis-test-models"}, "spec": spec}
    cluster("delete", "pv", "tamis-test-models", "--ignore-not-found", "--wait=true")
    cluster.apply([made])
    yield
    cluster("delete", "pv", "tamis-test-models", "--wait=false")


def credentials(key: str = KEY, secret: str = SECRET) -> dict[str, Any]:
    """The Secret that stages take their credentials from."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "tamis-s3", "namespace": NAMESPACE},
        "stringData": {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret},
    }


def parts_in_the_store(storage: Seaweed, run: str) -> list[str]:
    """Keys of the parts in which a run's ratings are kept."""
    listed = storage.client().list_objects_v2(Bucket=BUCKET, Prefix=f"{run}/finished-ratings/")
    return [found["Key"] for found in listed.get("Contents", ()) if found["Key"].endswith(".jsonl")]


def ratings_in(storage: Seaweed, parts: list[str]) -> list[str]:
    """Ids of the ratings of these parts, once for each time that one is there."""
    texts = [storage.client().get_object(Bucket=BUCKET, Key=part)["Body"].read() for part in parts]
    return [json.loads(line)["id"] for text in texts for line in text.splitlines()]


def selection(
    storage: Seaweed,
    settings: dict[str, Any],
    run: str,
    environment: dict[str, str] | None = None,
    components: Sequence[str] = (),
) -> Objects:
    """The objects of the overlay `cpu`, with the address of this machine's S3 server and other settings of stages.

    `components` of the manifests are added. The namespace is left out, since it is there, and the requests for CPUs are
    small: the node may be, too.
    """
    objects = [made for made in _built("cpu", components) if made["kind"] != "Namespace"]
    for made in objects:
        name = made["metadata"]["name"]
        if name == "tamis-environment":
            made["data"] |= {"AWS_ENDPOINT_URL_S3": f"http://{HOST}:{storage.port}", "HF_HUB_OFFLINE": "1"}
            made["data"] |= environment or {}
        elif name.startswith("tamis-run"):
            made["data"]["TAMIS_RUN"] = f"s3://{BUCKET}/{run}"
        elif name.startswith("tamis-settings"):
            made["data"] |= {f"{stage}.yaml": yaml.safe_dump(values) for stage, values in settings.items()}
        elif made["kind"] == "Job":
            for container in made["spec"]["template"]["spec"]["containers"]:
                container["resources"]["requests"] |= {"cpu": "50m", "memory": "256Mi"}
    return [credentials(), *objects]


def _built(overlay: str, components: Sequence[str]) -> Objects:
    """Return the objects of an overlay with further components, whose paths kustomize needs to be relative."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        manifests = Path("../" * len(folder.parts[1:])) / str(MANIFESTS).lstrip("/")
        kustomization = {
            "resources": [str(manifests / "overlays" / overlay)],
            "components": [str(manifests / "components" / name) for name in components],
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        command = [tools(4) / "kubectl", "kustomize", folder]
        built = subprocess.run(command, capture_output=True, text=True, check=True)
    return list(yaml.safe_load_all(built.stdout))


def only(objects: Objects, *jobs: str) -> Objects:
    """Return the same objects without the other Jobs; each remaining Job fails at its first failure."""
    kept = [copy.deepcopy(made) for made in objects if made["kind"] != "Job" or made["metadata"]["name"] in jobs]
    for made in kept:
        if made["kind"] == "Job":
            made["spec"]["backoffLimit"] = 0
    return kept
