"""The marks and the outcome of runs in kfp.local, with the real steps in processes of their own."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("kfp")

from kfp import dsl, local

from tamis.cluster.component import note_outcome, start_run
from tamis.core.marks import FINISHED, STARTED
from tamis.core.run_place import OUTCOMES
from tamis.pool.component import pool


@dsl.pipeline
def beginning(outcomes: str, settings: dict) -> None:
    end = note_outcome(name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER, outcomes=outcomes)
    with dsl.ExitHandler(end, name="steps"):
        begun = start_run(name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER, outcomes=outcomes)
        pool(settings=settings).after(begun)


@pytest.mark.filterwarnings("ignore:You may be attemping")
def test_a_step_that_fails_tells_the_last_step_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OUTCOMES, str(tmp_path / "outcomes"))  # as `tamis submit --outcomes` compiles it into a package
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "runs"))
    missing = {"sources": [{"name": "mine", "path": str(tmp_path / "missing.jsonl")}]}
    with pytest.raises(RuntimeError):
        beginning(outcomes=str(tmp_path / "outcomes"), settings=missing)
    (file,) = (tmp_path / "outcomes").glob("*.json")
    noted: dict[str, Any] = json.loads(file.read_text())
    (folder,) = (tmp_path / "runs").iterdir()
    assert (noted["run"], noted["name"], noted["state"]) == (folder.name, folder.name, "FAILED")
    (step,) = noted["steps_failed"]
    assert (step["step"], step["what"], step["attempt"]) == ("pool", "pool", 1)
    assert "missing.jsonl" in step["words"]
    marks = {file.name for file in (tmp_path / "outcomes" / noted["run"]).iterdir()}
    assert STARTED in marks
    assert FINISHED not in marks
    assert marks == {file.name for file in (folder / "tamis-marks").iterdir()}
    page = (folder / "note-outcome" / "outcome").read_text()
    assert page.startswith("# FAILED\n")
    assert "missing.jsonl" in page
