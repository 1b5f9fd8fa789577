"""The pipeline that Kubeflow runs, with steps for several cells, in kfp.local with the real steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import local

from tamis.cells import parts
from tamis.core.artifacts import Artifact
from tamis.core.failures import failure_in
from tamis.core.settings import parse
from tamis_pipelines.definitions import pipeline
from tamis_pipelines.groups import grouped
from tamis_pipelines.local import places_of
from tamis_pipelines.pods import CompileSettings
from tamis_pipelines.settings import RunSettings
from tests.pipeline.conftest import FinishedRun

pytestmark = [
    pytest.mark.filterwarnings("ignore:You may be attemping"),
    pytest.mark.filterwarnings("ignore:Task '.*'. settings .* have no effect"),
]


@pytest.fixture
def runs(continued_run: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where artifacts go. The steps of a finished local run are reused."""
    home = Path(continued_run["work_dir"]) / ".tamis"
    for name, value in places_of(home).items():
        monkeypatch.setenv(name, value)
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "runs"))
    return tmp_path / "runs"


def run(values: dict[str, Any], outcomes: Path) -> None:
    settings = parse(RunSettings, values, where="test")
    arguments = grouped(settings.arguments())
    pipeline(settings.pipeline, CompileSettings())(**arguments, outcomes=str(outcomes))


def test_subsets_that_are_selected_in_one_pod_are_those_of_a_local_run(
    continued_run: dict[str, Any], finished_run: FinishedRun, runs: Path, tmp_path: Path
) -> None:
    run(continued_run, tmp_path / "outcomes")
    (made,) = runs.glob("*/select/selection")
    alone = finished_run[0].parent / "work" / "selections"
    there = [Artifact.open(place).manifest for place in parts(str(made))]
    assert [one.name for one in there] == ["best", "random"]
    for one in there:
        assert one.content_hash == Artifact.open(alone / one.name).manifest.content_hash
    (report,) = runs.glob("*/report/report")
    assert Artifact.open(report).manifest.facts["failed"] == []


def test_a_subset_that_cannot_be_selected_leaves_the_others_and_the_report_and_the_run_fails(
    continued_run: dict[str, Any], runs: Path, tmp_path: Path
) -> None:
    many = {"name": "many", "strategy": "random", "size": 5000}
    with pytest.raises(RuntimeError):
        run(continued_run | {"subsets": [many, *continued_run["subsets"]]}, tmp_path / "outcomes")
    (made,) = runs.glob("*/select/selection")
    assert [failure_in(place) is None for place in parts(str(made))] == [False, True, True]
    (report,) = runs.glob("*/report/report")
    assert [failed["name"] for failed in Artifact.open(report).manifest.facts["failed"]] == ["many"]
    (outcome,) = (tmp_path / "outcomes").glob("*.json")
    noted = yaml.safe_load(outcome.read_text())
    assert noted["state"] == "FAILED"
    assert [cell["cell"] for cell in noted["cells_failed"]] == ["many"]
