"""An experiment in which the model of one subset cannot be trained: the others go on, and the report says why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tamis.core.artifacts import Artifact
from tests.pipeline.conftest import tamis, write_settings

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_cell_that_fails_leaves_the_others_and_their_report(models: Path, tiny: Path, tmp_path: Path) -> None:
    file = write_settings(tmp_path, models)
    # Two samples whose question alone is longer than what is trained on: no token of an answer is left.
    with (tmp_path / "data.jsonl").open("a") as data:
        for number in range(2):
            row = {"instruction": f"{number} " + "why " * 300, "output": "because " * 100, "rating": 5}
            data.write(json.dumps(row) + "\n")
    settings = yaml.safe_load(file.read_text())
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
