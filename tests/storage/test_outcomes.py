"""Marks and outcomes of runs on Kubeflow in real object storage."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("kfp")

from tamis.cluster.outcomes import read_outcomes
from tamis.core.errors import InputError, ModelError
from tamis.core.run_place import OUTCOMES, RETRIES
from tests.unit.cluster.replayed import Run


def run_with(storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run with its outcomes in `storage`; its artifacts are there too, if it is one that Kubeflow has."""
    monkeypatch.setattr("kfp.dsl.types.artifact_types._S3_LOCAL_MOUNT_PREFIX", f"{tmp_path}/s3/")
    for name in (OUTCOMES, RETRIES, "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    root = f"{storage}/root" if storage.startswith("s3://") else str(tmp_path / "root")
    return Run(root, f"{storage}/outcomes", monkeypatch)


def test_marks_and_outcome_are_in_object_storage(remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_with(remote, tmp_path, monkeypatch)
    run.start()
    assert [outcome.state for outcome in read_outcomes(run.outcomes)] == ["UNFINISHED"]
    run.step("embed", ModelError("the first attempt"), None)
    run.step("rate", InputError("no such model"))
    assert run.note("RUNNING").startswith("# FAILED\n")
    (outcome,) = read_outcomes(run.outcomes)
    assert (outcome.run, outcome.name, outcome.workflow, outcome.state) == (run.id, run.name, run.workflow, "FAILED")
    assert [step.step for step in outcome.steps_failed] == ["rate"]
    again = Run(run.root, run.outcomes, monkeypatch)
    again.start()
    again.step("rate", None)
    assert again.require()
    assert again.note("RUNNING").startswith("# SUCCEEDED\n")
    assert {one.run: one.state for one in read_outcomes(run.outcomes)} == {run.id: "FAILED", again.id: "SUCCEEDED"}


def test_with_wrong_credentials_the_page_still_says_what_is_wrong(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_with(s3, tmp_path, monkeypatch)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "this-is-not-the-key")
    with pytest.raises(SystemExit):
        run.start()
    run.step("pool", InputError("the request signature does not match"))
    page = run.note("FAILED")
    assert page.startswith("# FAILED\n")
    assert run.outcomes in page
    assert not run.require()
