"""The chart on a real cluster: installed, tested, upgraded, removed; and the rights of its accounts."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.conftest import HOST, NAMESPACE, Cluster, credentials
from tests.kubernetes.conftest import CHART
from tests.storage.seaweed import BUCKET, Seaweed

pytestmark = pytest.mark.slow


def values_for(storage: Seaweed) -> dict[str, Any]:
    s3 = {"endpoint": f"http://{HOST}:{storage.port}", "existingSecret": "tamis-s3", "addressingStyle": "path"}
    return {"storage": {"root": f"s3://{BUCKET}/chart", "s3": s3}, "kubeflow": {"enabled": True}}


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
def test_install_test_upgrade_and_uninstall(cluster: Cluster, helm: Path, storage: Seaweed) -> None:
    cluster.apply([credentials()])
    before, values = left(cluster), values_for(storage)
    run_helm(cluster, helm, "install", "tamis", CHART, "--wait", "--wait-for-jobs", "--timeout", "5m", values=values)
    made = left(cluster)
    assert {"configmap/tamis-environment", "serviceaccount/tamis", "persistentvolumeclaim/tamis-models"} <= made
    told = run_helm(cluster, helm, "test", "tamis", "--logs")
    assert "Succeeded" in told
    assert f"s3://{BUCKET}/chart" in told
    accounts_have_the_rights_that_they_need_and_no_others(cluster)
    values["storage"]["s3"]["region"] = "eu-central-1"
    run_helm(cluster, helm, "upgrade", "tamis", CHART, "--wait", values=values)
    environment = cluster("-n", NAMESPACE, "get", "configmap", "tamis-environment", "-o", "yaml")
    assert yaml.safe_load(environment)["data"]["AWS_DEFAULT_REGION"] == "eu-central-1"
    run_helm(cluster, helm, "uninstall", "tamis", "--wait")
    gone = cluster.wait(lambda: left(cluster) <= before or None, 60, "end of what the chart made")
    assert gone


def accounts_have_the_rights_that_they_need_and_no_others(cluster: Cluster) -> None:
    def may(account: str, *what: str) -> bool:
        user = f"--as=system:serviceaccount:{NAMESPACE}:{account}"
        return cluster("-n", NAMESPACE, "auth", "can-i", *what, user, check=False).strip().endswith("yes")

    allowed = [
        ("create", "workflowtaskresults.argoproj.io"),
        ("patch", "workflowtaskresults.argoproj.io"),
        ("get", "configmaps/kfp-launcher"),
        ("get", "secrets/mlpipeline-minio-artifact"),
        ("list", "pods"),
    ]
    refused = [
        ("get", "secrets/tamis-s3"),
        ("list", "secrets"),
        ("get", "configmaps/tamis-environment"),
        ("create", "pods"),
        ("delete", "pods"),
        ("create", "pods/exec"),
        ("list", "pods", "--all-namespaces"),
        ("list", "nodes"),
    ]
    for what in allowed:
        assert may("tamis-pipeline", *what), what
        assert not may("tamis", *what), what
    for what in refused:
        assert not may("tamis-pipeline", *what), what
        assert not may("tamis", *what), what
