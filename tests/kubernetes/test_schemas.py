"""Every object against the schemas of Kubernetes 1.28 to 1.37 and of the custom resources."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.kubernetes.cases import CASES
from tests.kubernetes.conftest import OVERLAYS, Objects, overlay, rendered
from tests.kubernetes.objects import name_of
from tests.kubernetes.schemas import check_builtin, errors_of_custom, is_custom

UNKNOWN = {"PodMonitor"}  # its definition is Prometheus Operator's; no copy of it is at hand


def check(objects: Objects) -> None:
    for document in objects:
        if not is_custom(document):
            check_builtin(document)


def check_custom(objects: Objects) -> int:
    custom = [document for document in objects if is_custom(document) and document["kind"] not in UNKNOWN]
    for document in custom:
        assert list(errors_of_custom(document)) == [], name_of(document)
    return len(custom)


@pytest.mark.parametrize("case", CASES)
def test_objects_of_the_chart_are_valid(newest_helm: Path, case: str) -> None:
    check(rendered(newest_helm, CASES[case]))


@pytest.mark.parametrize("name", OVERLAYS)
def test_objects_of_the_manifests_are_valid(kubectl: Path, name: str) -> None:
    check(overlay(kubectl, name))


@pytest.mark.parametrize("case", ["kueue", "a queue on others' quota", "a trainer"])
def test_custom_objects_of_the_chart_are_valid(newest_helm: Path, case: str) -> None:
    assert check_custom(rendered(newest_helm, CASES[case])) > 0


@pytest.mark.parametrize("name", ["kueue", "trainer"])
def test_custom_objects_of_the_manifests_are_valid(kubectl: Path, name: str) -> None:
    assert check_custom(overlay(kubectl, name)) > 0


def test_the_schemas_find_a_misspelt_field(newest_helm: Path) -> None:
    import kubernetes_validate

    job = next(d for d in rendered(newest_helm, CASES["a filled model cache"]) if d["kind"] == "Job")
    wrong: dict[str, Any] = copy.deepcopy(job)
    wrong["spec"]["backofLimit"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        check_builtin(wrong)


def test_the_custom_schemas_find_a_misspelt_field(newest_helm: Path) -> None:
    queue = next(d for d in rendered(newest_helm, CASES["kueue"]) if d["kind"] == "ClusterQueue")
    wrong: dict[str, Any] = copy.deepcopy(queue)
    wrong["spec"]["queueingStrategi"] = "StrictFIFO"
    assert any("queueingStrategi" in error for error in errors_of_custom(wrong))
