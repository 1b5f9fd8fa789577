"""An experiment in which cells fail, is killed, and goes on: the others are there, and the report says why."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tamis.core.artifacts import Artifact
from tests.pipeline.conftest import tamis, write_settings

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture
def experiment(models: Path, tiny: Path, tmp_path: Path) -> Path:
    """Settings of one strategy with two seeds, of which seed 3 draws what cannot be trained on."""
    file = write_settings(tmp_path, models)
    # Samples whose question alone is longer than what is trained on: no token of an answer is left.
    with (tmp_path / "data.jsonl").open("a") as data:
        for number in range(40):
            row = {"instruction": f"{number} " + "why " * 60, "output": "because " * 10, "rating": 5}
            data.write(json.dumps(row) + "\n")
    settings: dict[str, Any] = yaml.safe_load(file.read_text())
    del settings["subsets"]
    settings["experiment"] = {"strategies": ["random"], "sizes": [1], "seeds": [2, 3]}
    settings["finetuning"] = {"model": str(tiny), "max_tokens": 48, "epochs": 1, "learning_rate": 0.01}
    settings["evaluation"] = {"model": str(tiny), "suite": str(ROOT / "examples/demo/suite.yaml"), "limit": 2}
    file.write_text(yaml.safe_dump(settings))
    return file


def test_a_failed_cell_leaves_the_others_and_a_killed_run_goes_on(experiment: Path) -> None:
    work = experiment.parent / "work"
    command = [sys.executable, "-m", "tamis", "run", str(experiment)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "evaluation: started (random-1-s2)" in line:
                process.send_signal(signal.SIGKILL)
                break
    assert not (work / "report").exists()

    ended = tamis("run", experiment)

    assert ended.returncode == 1, ended.stderr
    assert "error: 1 of the experiment's cells failed" in ended.stderr
    assert "random-1-s3, model: " in ended.stderr
    assert [path.name for path in (work / "models").iterdir()] == ["random-1-s2"]
    assert sorted(path.name for path in (work / "evaluations").iterdir()) == ["base", "random-1-s2"]
    # What was finished before the kill, the shared steps and the first cell's model, was done once.
    assert set(done(ended.stderr)) <= {"evaluation", "selection", "reporting"}, ended.stderr
    said = (work / "report/results.md").read_text()
    assert re.search(r"\| random-1-s3 \| random \| 3 \| model \|.*token", said), said
    assert re.search(r"\| random \| \S+ \| 1 \| 1 of 2 \|", said), said
    Artifact.open(work / "report", "report").verify()


def done(output: str) -> list[str]:
    return re.findall(r"tamis\.core\.steps (\w+): done", output)


def test_a_subset_that_cannot_be_made_leaves_the_others(models: Path, tmp_path: Path) -> None:
    file = write_settings(tmp_path, models)
    ended = tamis(
        "run",
        file,
        "--set",
        "subsets=[{name: all, strategy: random, size: 99}, {name: few, strategy: random, size: 5}]",
    )
    assert ended.returncode == 1, ended.stderr
    assert "error: 1 of the experiment's cells failed" in ended.stderr
    assert "all, selection: " in ended.stderr
    assert [path.name for path in (tmp_path / "work/selections").iterdir()] == ["few"]
    assert "| all | random | 42 | selection |" in (tmp_path / "work/report/results.md").read_text()
