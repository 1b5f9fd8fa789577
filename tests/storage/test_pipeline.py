"""The pipeline through `kfp.local` with its data, its ratings and the note on its end in real object storage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from kfp import dsl
from kfp.dsl import PipelineTaskFinalStatus

from tamis.cluster.component import note_outcome
from tamis.core.artifacts import Artifact
from tamis.core.storage import locate, upload
from tests.pipeline.conftest import FinishedRun, tamis


@pytest.mark.slow
def test_a_run_elsewhere_with_its_data_in_object_storage_gives_the_same_bytes(
    s3: str, finished_run: FinishedRun, tmp_path: Path
) -> None:
    file, first = finished_run
    assert first.returncode == 0, first.stderr
    upload(file.parent / "data.jsonl", locate(f"{s3}/data.jsonl"))
    remote = yaml.safe_load(file.read_text())
    remote["pool"]["sources"][0]["path"] = f"{s3}/data.jsonl"
    remote["raters"][0]["backend"]["path"] = f"{s3}/data.jsonl"
    remote["work_dir"] = str(tmp_path)
    other = tmp_path / "remote.yaml"
    other.write_text(yaml.safe_dump(remote))
    ended = tamis("run", other)
    assert ended.returncode == 0, ended.stderr
    for kind in ("pool", "ratings/imported", "neighbors", "curation", "selections/best", "selections/random"):
        here, there = (Artifact.open(work / kind).manifest for work in (file.parent / "work", tmp_path))
        assert here.content_hash == there.content_hash, kind


@pytest.mark.parametrize(("state", "error"), [("SUCCEEDED", ""), ("FAILED", "rate: OOMKilled")])
def test_the_end_of_a_run_is_noted_in_object_storage(s3: str, tmp_path: Path, state: str, error: str) -> None:
    status = PipelineTaskFinalStatus(
        state=state,
        pipeline_job_resource_name="run-1",
        pipeline_task_name="steps",
        error_code=None,
        error_message=error or None,
    )
    page = tmp_path / "outcome.md"
    outcome = dsl.Markdown(name="outcome", uri=str(page))
    note_outcome.python_func(status=status, outcome=outcome, outcomes=f"{s3}/outcomes")
    noted = json.loads(locate(f"{s3}/outcomes/run-1.json").read_bytes())
    assert (noted["run"], noted["state"], noted["error"]) == ("run-1", state, error)
    assert page.read_text().startswith(f"# {state}\n")
    assert error in page.read_text()
