"""Jobs and TrainJobs give up at once when a pod ends with the exit code for what no further pod can help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tamis.core.errors import PERMANENT
from tests.kubernetes.binaries import ROOT
from tests.kubernetes.cases import CASES
from tests.kubernetes.conftest import CHART, MANIFESTS, OVERLAYS, Objects, overlay, rendered
from tests.kubernetes.objects import name_of
from tests.kubernetes.test_manifests import built

ON_EXIT = {"operator": "In", "values": [PERMANENT]}
FAIL_JOB = {"action": "FailJob", "onExitCodes": ON_EXIT, "onPodConditions": []}
IGNORE = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
# All components that add Jobs and are in no overlay, with what their Jobs need.
MORE = ("rating-shards", "finetuning", "evaluation", "judging", "pod", "gpu", "models-from-storage", "images")


def check(objects: Objects) -> int:
    """Check every Job and TrainingRuntime; returns their number."""
    jobs = [document for document in objects if document["kind"] in ("Job", "CronJob")]
    runtimes = [document for document in objects if document["kind"].endswith("TrainingRuntime")]
    for document in jobs:
        spec = document["spec"] if document["kind"] == "Job" else document["spec"]["jobTemplate"]["spec"]
        assert spec["podFailurePolicy"]["rules"] == [FAIL_JOB, IGNORE], name_of(document)
        assert spec["template"]["spec"]["restartPolicy"] == "Never", name_of(document)
    for document in runtimes:
        check_runtime(document)
    return len(jobs) + len(runtimes)


def check_runtime(runtime: dict[str, Any]) -> None:
    """A node's permanent failure fails its Job for that reason, and the reason fails the whole JobSet."""
    spec = runtime["spec"]["template"]["spec"]
    for job in spec["replicatedJobs"]:
        # A disrupted node must not be replaced alone: all nodes restart together.
        assert job["template"]["spec"]["podFailurePolicy"]["rules"] == [FAIL_JOB], job["name"]
        assert job["template"]["spec"]["template"]["spec"]["restartPolicy"] == "Never", job["name"]
    (rule,) = spec["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])


@pytest.mark.parametrize("name", OVERLAYS)
def test_jobs_of_the_overlays_give_up_at_once(kubectl: Path, name: str) -> None:
    assert check(overlay(kubectl, name)) > 0


def test_jobs_of_the_components_give_up_at_once(kubectl: Path, tmp_path: Path) -> None:
    assert check(built(kubectl, tmp_path, *MORE)) > 10


@pytest.mark.parametrize("case", CASES)
def test_jobs_of_the_chart_give_up_at_once(newest_helm: Path, case: str) -> None:
    check(rendered(newest_helm, CASES[case]))


def test_every_job_of_the_chart_is_in_a_case(newest_helm: Path) -> None:
    made = [one for values in CASES.values() for one in rendered(newest_helm, values)]
    kinds = {one["metadata"]["labels"]["app.kubernetes.io/component"] for one in made if one["kind"] == "Job"}
    templates = {file.name: file.read_text() for file in (CHART / "templates").rglob("*.*")}
    assert len(kinds) == "".join(templates.values()).count('include "tamis.job"') > 0
    assert [name for name, text in templates.items() if "kind: Job" in text or "kind: CronJob" in text] == [
        "_helpers.tpl"
    ]
    assert {one["kind"] for one in made} >= {"TrainingRuntime"}


def test_no_file_has_a_job_that_these_tests_do_not_build() -> None:
    """Each manifest with a Job belongs to a component, or to the selection, that an overlay or a test above builds."""
    folders = [MANIFESTS / "selection", *(MANIFESTS / "components").iterdir()]
    with_jobs = {
        folder.name for folder in folders for file in folder.rglob("*.yaml") if "kind: Job" in file.read_text()
    }
    used = "\n".join(file.read_text() for file in (MANIFESTS / "overlays").rglob("kustomization.yaml"))
    unbuilt = {name for name in with_jobs if f"/{name}\n" not in f"{used}\n" and name not in MORE}
    assert unbuilt <= {"work-volume", "storage-ca", "monitoring"}, "these only patch Jobs"
    others = [path for path in ROOT.rglob("*.yaml") if path.parts[len(ROOT.parts)] in ("examples", "images", ".ci")]
    assert not [path for path in others if "kind: Job" in path.read_text()]
