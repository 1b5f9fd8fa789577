"""The chart on a real cluster: installed, tested, upgraded, removed; and the rights of its accounts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.artifacts import conversation, make_pool
from tests.cluster.conftest import HOST, NAMESPACE, Cluster, credentials
from tests.kubernetes.conftest import CHART
from tests.kubernetes.conftest import newest_helm as newest_helm  # a fixture
from tests.kubernetes.test_chart import names_in_the_dashboard
from tests.pipeline.conftest import tamis
from tests.pipeline.server import KubeflowServer
from tests.storage.seaweed import BUCKET, Seaweed

pytestmark = [pytest.mark.timeout(1800)]


def values_for(storage: Seaweed) -> dict[str, Any]:
    s3 = {"endpoint": f"http://{HOST}:{storage.port}", "existingSecret": "tamis-s3", "addressingStyle": "path"}
    return {"storage": {"root": f"s3://{BUCKET}/chart", "s3": s3}, "kubeflow": {"enabled": True}}


@pytest.fixture(scope="module")
def chart(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The chart, and what helm must be told to install it on this cluster.

    An older server than the chart asks for is good enough here: it drops the fields that it does not know.
    """
    version = json.loads(cluster("version", "-o", "json"))["serverVersion"]
    if int(version["minor"].rstrip("+")) >= 28:
        return CHART, []
    folder = shutil.copytree(CHART, tmp_path_factory.mktemp("chart") / "tamis")
    text = (folder / "Chart.yaml").read_text()
    (folder / "Chart.yaml").write_text(re.sub(r"(?m)^kubeVersion:.*\n", "", text))
    return folder, ["--disable-openapi-validation"]


def run_helm(cluster: Cluster, helm: Path, *arguments: str | Path, values: dict[str, Any] | None = None) -> str:
    ended = subprocess.run(
        [helm, *arguments, "--namespace", NAMESPACE, *(("--values", "-") if values else ())],
        input=yaml.safe_dump(values) if values else None,
        capture_output=True,
        text=True,
        env=cluster.environment,
    )
    assert ended.returncode == 0, ended.stderr + ended.stdout
    return ended.stdout


def left(cluster: Cluster) -> set[str]:
    """Names of what is in the namespace, beside what every namespace has."""
    kinds = "all,configmaps,secrets,serviceaccounts,roles,rolebindings,pvc,networkpolicies"
    names = cluster("-n", NAMESPACE, "get", kinds, "-o", "name").split()
    return {name for name in names if "kube-root-ca" not in name and "default" not in name}


@pytest.mark.usefixtures("namespace", "volume")
def test_install_test_upgrade_and_uninstall(
    cluster: Cluster, helm: Path, chart: tuple[Path, list[str]], storage: Seaweed
) -> None:
    folder, options = chart
    if options and "helm-4" in str(helm):
        options = [*options, "--server-side=false"]
    cluster.apply([credentials()])
    before, values = left(cluster), values_for(storage)
    waiting = ["--wait", "--wait-for-jobs", "--timeout", "4m", *options]
    run_helm(cluster, helm, "install", "tamis", folder, *waiting, values=values)
    made = left(cluster)
    assert {"configmap/tamis-environment", "serviceaccount/tamis", "persistentvolumeclaim/tamis-models"} <= made
    assert "Succeeded" in run_helm(cluster, helm, "test", "tamis")
    accounts_have_the_rights_that_they_need_and_no_others(cluster)
    values["storage"]["s3"]["region"] = "eu-central-1"
    run_helm(cluster, helm, "upgrade", "tamis", folder, *waiting, values=values)
    environment = cluster("-n", NAMESPACE, "get", "configmap", "tamis-environment", "-o", "yaml")
    assert yaml.safe_load(environment)["data"]["AWS_DEFAULT_REGION"] == "eu-central-1"
    run_helm(cluster, helm, "uninstall", "tamis", "--wait")
    gone = cluster.wait(lambda: left(cluster) <= before or None, 60, "end of what the chart made")
    assert gone


@pytest.mark.usefixtures("namespace")
def test_models_are_fetched_and_pipelines_brought_to_kubeflow(
    cluster: Cluster,
    newest_helm: Path,
    chart: tuple[Path, list[str]],
    storage: Seaweed,
    empty_volume: Path,
    tiny: Path,
) -> None:
    for file in tiny.iterdir():
        storage.client().upload_file(str(file), BUCKET, f"models/tiny/{file.name}")
    cluster.apply([credentials()])
    kubeflow = KubeflowServer(address=HOST)
    values = values_for(storage)
    values["modelCache"] = {
        "prefetch": {"models": [{"kind": "storage", "uri": f"s3://{BUCKET}/models/tiny", "folder": "/cache/hf/tiny"}]}
    }
    settings = {
        "work_dir": "unused",
        "pool": {"sources": [{"name": "facts", "path": "s3://data/facts.jsonl"}]},
        "raters": [{"name": "r", "backend": {"kind": "transformers", "model": "/cache/hf/tiny"}}],
        "subsets": [{"name": "best", "strategy": "ds2", "size": 10}],
    }
    values["kubeflow"] |= {
        "server": {"host": kubeflow.url, "tokenAudience": "pipelines.kubeflow.org"},
        "upload": True,
        "schedules": [{"name": "nightly", "cron": "0 0 3 * * *", "settings": settings}],
    }
    folder, options = chart
    options = [*options, *(["--server-side=false"] if options else [])]
    try:
        run_helm(cluster, newest_helm, "install", "tamis", folder, "--wait", "--wait-for-jobs", *options, values=values)
        assert {pipeline["display_name"] for pipeline in kubeflow.state.pipelines} >= {"data-selection", "experiment"}
        (schedule,) = kubeflow.state.schedules
        assert schedule["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * *"
        assert schedule["service_account"] == "tamis-pipeline"
    finally:
        kubeflow.close()
    fetched = {file.name: file.read_bytes() for file in (empty_volume / "tiny").iterdir()}
    assert fetched == {file.name: file.read_bytes() for file in tiny.iterdir()}
    run_helm(cluster, newest_helm, "uninstall", "tamis", "--wait")


@pytest.mark.usefixtures("namespace")
def test_the_trial_server_stores(cluster: Cluster, newest_helm: Path, chart: tuple[Path, list[str]]) -> None:
    """In two steps, so that a cluster without a proxy will do: the pod's own address takes its Service's place."""
    image = yaml.safe_load((CHART / "values.yaml").read_text())["seaweedfs"]["image"]
    if image not in cluster.images():
        pytest.skip(f"the node does not have {image}")
    folder, options = chart
    options = [*options, *(["--server-side=false"] if options else [])]
    before = left(cluster)
    values: dict[str, Any] = {
        "storage": {"root": f"s3://{BUCKET}/trial"},
        "seaweedfs": {"enabled": True, "persistence": False},
        "modelCache": {"enabled": False},
    }
    run_helm(cluster, newest_helm, "install", "tamis", folder, *options, values=values)
    cluster("-n", NAMESPACE, "rollout", "status", "statefulset/tamis-seaweedfs", "--timeout=600s")
    (pod,) = cluster.get("pods", "-l", "app.kubernetes.io/component=seaweedfs")
    values["storage"]["s3"] = {"endpoint": f"http://{pod['status']['podIP']}:8333"}
    waiting = ["--wait", "--wait-for-jobs", *options]
    run_helm(cluster, newest_helm, "upgrade", "tamis", folder, *waiting, values=values)
    assert "Succeeded" in run_helm(cluster, newest_helm, "test", "tamis")
    run_helm(cluster, newest_helm, "uninstall", "tamis", "--wait")
    assert cluster.wait(lambda: left(cluster) <= before or None, 120, "end of what the chart made")


@pytest.mark.usefixtures("namespace", "volume")
def test_a_model_is_served_and_rates(
    cluster: Cluster, newest_helm: Path, chart: tuple[Path, list[str]], storage: Seaweed, tmp_path: Path
) -> None:
    """A real vLLM in the chart's Deployment; its Service is passed by, so that a cluster without a proxy will do."""
    registry = os.environ.get("TAMIS_TEST_VLLM_REGISTRY")
    if not registry:
        pytest.skip("TAMIS_TEST_VLLM_REGISTRY names no registry of a tamis-rating whose vLLM runs on the node")
    model = {
        "model": "/cache/hf/smollm2",
        "servedModelName": "small",
        "maxModelLen": 2048,
        # On a CPU, what torch compiles wants a C++ compiler, which the image does not have.
        "extraEnv": [
            {"name": "VLLM_CPU_KVCACHE_SPACE", "value": "1"},
            {"name": "TORCHDYNAMO_DISABLE", "value": "1"},
        ],
        "extraArgs": ["--dtype=float32", "--enforce-eager"],
        "shmSize": "1Gi",
        "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"memory": "10Gi"}},
    }
    values = values_for(storage) | {"vllm": {"services": {"small": model}}, "tests": {"storage": False}}
    values |= {"image": {"registry": registry}, "hub": {"offline": True}}
    cluster.apply([credentials()])
    folder, options = chart
    options = [*options, *(["--server-side=false"] if options else [])]
    run_helm(cluster, newest_helm, "install", "tamis", folder, "--wait", "--timeout=15m", *options, values=values)
    (pod,) = cluster.get("pods", "-l", "tamis.dev/vllm=small")
    assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    address = f"http://{pod['status']['podIP']}:8000"
    with urllib.request.urlopen(f"{address}/metrics") as answer:
        served = set(re.findall(r"(?m)^(vllm:\w+)\{", answer.read().decode()))
    assert names_in_the_dashboard("vllm:") <= served
    pool = make_pool(tmp_path / "pool", [conversation(f"What is {n} + {n}?", f"{n + n}.") for n in range(4)])
    backend = {"kind": "openai", "model": "small", "base_url": f"{address}/v1", "api_key_env": None}
    (tmp_path / "rater.yaml").write_text(yaml.safe_dump({"name": "small", "backend": backend}))
    ended = tamis("rate", "--settings", tmp_path / "rater.yaml", "--pool", pool, "--out", tmp_path / "ratings")
    assert ended.returncode == 0, ended.stderr
    run_helm(cluster, newest_helm, "uninstall", "tamis", "--wait")


def accounts_have_the_rights_that_they_need_and_no_others(cluster: Cluster) -> None:
    """As `kubectl auth can-i` asks, which itself knows only resources that this cluster has."""

    def may(
        account: str, verb: str, resource: str, *, name: str = "", group: str = "", namespace: str = NAMESPACE
    ) -> bool:
        kind, _, part = resource.partition("/")
        asked = {"verb": verb, "resource": kind, "subresource": part, "name": name, "group": group}
        spec = {
            "user": f"system:serviceaccount:{NAMESPACE}:{account}",
            "groups": ["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}", "system:authenticated"],
            "resourceAttributes": asked | {"namespace": namespace},
        }
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        answer = json.loads(cluster("create", "-f", "-", "-o", "json", given=json.dumps(review)))
        return bool(answer["status"]["allowed"])

    needed: list[dict[str, str]] = [
        {"verb": "create", "resource": "workflowtaskresults", "group": "argoproj.io"},
        {"verb": "patch", "resource": "workflowtaskresults", "group": "argoproj.io"},
        {"verb": "get", "resource": "workflows", "group": "argoproj.io"},
        {"verb": "get", "resource": "configmaps", "name": "kfp-launcher"},
        {"verb": "get", "resource": "secrets", "name": "mlpipeline-minio-artifact"},
        {"verb": "list", "resource": "pods"},
    ]
    refused: list[dict[str, str]] = [
        {"verb": "get", "resource": "secrets", "name": "tamis-s3"},
        {"verb": "list", "resource": "secrets"},
        {"verb": "patch", "resource": "workflows", "group": "argoproj.io"},
        {"verb": "get", "resource": "configmaps", "name": "tamis-environment"},
        {"verb": "create", "resource": "pods"},
        {"verb": "delete", "resource": "pods"},
        {"verb": "create", "resource": "pods/exec"},
        {"verb": "list", "resource": "pods", "namespace": "default"},
        {"verb": "list", "resource": "nodes", "namespace": ""},
    ]
    for what in needed:
        assert may("tamis-pipeline", **what), what
        assert not may("tamis", **what), what
    for what in refused:
        assert not may("tamis-pipeline", **what), what
        assert not may("tamis", **what), what
