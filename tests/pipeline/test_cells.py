"""An experiment in which the model of one subset cannot be trained: the others go on, and the report says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tamis.core.artifacts import Artifact
from tests.pipeline.conftest import tamis

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_cell_that_fails_leaves_the_others_and_their_report(
    continued_run: dict[str, Any], tiny: Path, tmp_path: Path
) -> None:
    settings, file = continued_run, tmp_path / "run.yaml"
    settings["subsets"] = [
        {"name": "endless", "strategy": "length", "size": 2},
        {"name": "random", "strategy": "random", "size": 10, "seed": 1},
    ]
    settings["finetuning"] = {"model": str(tiny), "max_tokens": 128, "epochs": 1, "learning_rate": 0.01}
    settings["evaluation"] = {"model": str(tiny), "suite": str(ROOT / "examples/demo/suite.yaml"), "limit": 2}
    file.write_text(yaml.safe_dump(settings))

    ended = tamis("run", file)

    assert ended.returncode == 1, ended.stderr
    assert "error: 1 of the experiment's cells failed" in ended.stderr
    assert "endless, model: " in ended.stderr
    work = tmp_path / "work"
    assert sorted(path.name for path in (work / "models").iterdir()) == ["random"]
    assert sorted(path.name for path in (work / "evaluations").iterdir()) == ["base", "random"]
    Artifact.open(work / "report", "report").verify()
    said = (work / "report/results.md").read_text()
    assert "endless has no scores. model: " in said
    assert "no scores" not in said.replace("endless has no scores", "")
