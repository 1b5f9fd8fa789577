"""The manifests and the chart as a real API server takes them, and the rights that its accounts get there."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kubernetes.api_server import ApiServer, Unavailable, programs
from tests.kubernetes.cases import CASES
from tests.kubernetes.conftest import MANIFESTS, OVERLAYS, Objects, overlay, rendered


def argo(kind: str) -> dict[str, Any]:
    """A resource of Argo's: `auth can-i` knows only resources that the server has."""
    plural = f"{kind.lower()}s"
    schema = {"openAPIV3Schema": {"type": "object"}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.argoproj.io"},
        "spec": {
            "group": "argoproj.io",
            "names": {"kind": kind, "plural": plural},
            "scope": "Namespaced",
            "versions": [{"name": "v1alpha1", "served": True, "storage": True, "schema": schema}],
        },
    }


@pytest.fixture(scope="module")
def server(kubectl: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server with the namespace `tamis` ; it knows no custom resources but Argo's."""
    try:
        programs()
    except Unavailable as error:
        pytest.skip(str(error))
    with ApiServer(tmp_path_factory.mktemp("server"), kubectl) as started:
        started("create", "-f", "-", given=as_list([argo("WorkflowTaskResult"), argo("Workflow")]))
        started("create", "namespace", "tamis")
        yield started


def assert_accepted(said: str, objects: int) -> None:
    assert len(re.findall(r"(?m) \(server dry run\)$", said)) == objects, said
    assert "would violate PodSecurity" not in said, said


def validation(server: ApiServer) -> list[str]:
    """An older server than the objects are written for may drop the fields that it does not know."""
    return [] if server.minor() >= 28 else ["--validate=false"]


def known(server: ApiServer, objects: Objects) -> Objects:
    """Those of kinds that the server has; the others' schemas are `test_schemas.py`'s."""
    kinds = server.kinds()
    return [document for document in objects if (document["apiVersion"], document["kind"]) in kinds]


def as_list(objects: Objects) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


def test_every_overlay_is_accepted(server: ApiServer, kubectl: Path) -> None:
    options = ["--dry-run=server", *validation(server)]
    for name in OVERLAYS:
        objects = overlay(kubectl, name)
        taken = known(server, objects)
        assert {"Job", "ConfigMap"} <= {document["kind"] for document in taken}
        if taken == objects:
            said = server("apply", "-k", MANIFESTS / "overlays" / name, *options)
        else:
            said = server("apply", "-f", "-", *options, given=as_list(taken))
        assert_accepted(said, len(taken))


def test_what_the_chart_makes_of_every_case_is_accepted(server: ApiServer, newest_helm: Path) -> None:
    objects = known(server, [document for values in CASES.values() for document in rendered(newest_helm, values)])
    options = ["--dry-run=server", "--namespace=tamis", *validation(server)]
    assert_accepted(server("apply", "-f", "-", *options, given=as_list(objects)), len(objects))


def test_accounts_may_do_what_they_need_and_nothing_else(server: ApiServer, newest_helm: Path) -> None:
    kinds = ("ServiceAccount", "Role", "RoleBinding")
    made = [document for document in rendered(newest_helm, CASES["kubeflow"]) if document["kind"] in kinds]
    server("apply", "-f", "-", "--namespace=tamis", given=as_list(made))

    def may(account: str, *question: str) -> bool:
        who = f"--as=system:serviceaccount:tamis:{account}"
        return server("auth", "can-i", *question, who, "--namespace=tamis", check=False).startswith("yes")

    needed = [
        ("create", "workflowtaskresults.argoproj.io"),
        ("patch", "workflowtaskresults.argoproj.io"),
        ("get", "workflows.argoproj.io"),
        ("get", "configmaps/kfp-launcher"),
        ("get", "secrets/mlpipeline-minio-artifact"),
        ("list", "pods"),
    ]
    refused = [
        ("get", "secrets/tamis-s3"),
        ("list", "secrets"),
        ("get", "configmaps/tamis-environment"),
        ("patch", "workflows.argoproj.io"),
        ("create", "pods"),
        ("create", "pods/exec"),
        ("list", "pods", "--all-namespaces"),
        ("*", "*"),
    ]
    for question in needed:
        give_up = time.monotonic() + 30  # the server heeds new roles a moment after it has stored them
        while not may("tamis-pipeline", *question):
            assert time.monotonic() < give_up, question
        assert not may("tamis", *question), question
    for question in refused:
        assert not may("tamis-pipeline", *question), question
        assert not may("tamis", *question), question
