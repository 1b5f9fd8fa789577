"""A small run without a language model: ratings are imported, embeddings are real."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess, run
from typing import Any

import pytest
import yaml

from tests.conftest import one_at_a_time
from tests.pipeline.recorded import Case, RecordedServer, Serve

SUBJECTS = ("the Moon", "copper", "bread", "the Nile", "owls", "glass", "chess", "rain", "salt", "bees")


@pytest.fixture
def settings_file(models: Path, tmp_path: Path) -> Path:
    """Settings of a run that has not been started; its `work_dir` is `work` beside the file."""
    return write_settings(tmp_path, models)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Serve]:
    """Replays a recorded run of Kubeflow on a server of its own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KF_PIPELINES_ENDPOINT", "TAMIS_KUBEFLOW_TOKEN", "TAMIS_KUBEFLOW_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    running: list[RecordedServer] = []

    def start(name: str, **changes: object) -> tuple[Case, RecordedServer]:
        case = Case(name, **changes)  # type: ignore[arg-type]
        running.append(RecordedServer(case))
        return case, running[-1]

    yield start
    for server in running:
        server.close()


FinishedRun = tuple[Path, CompletedProcess[str]]


@pytest.fixture(scope="session")
def finished_run(models: Path, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """Settings and output of a run that has succeeded; all test processes share one run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "finished-run"
    said = folder / "said.json"
    with one_at_a_time("finished-run"):
        if not said.exists():
            folder.mkdir()
            ended = tamis("run", write_settings(folder, models))
            said.write_text(json.dumps([ended.returncode, ended.stdout, ended.stderr]))
    return folder / "run.yaml", CompletedProcess(["tamis", "run"], *json.loads(said.read_text()))


@pytest.fixture
def continued_run(finished_run: FinishedRun, tmp_path: Path) -> dict[str, Any]:
    """Settings of a copy of `finished_run` in a separate folder, which a test may change."""
    file, first = finished_run
    assert first.returncode == 0, first.stderr
    shutil.copytree(file.parent / "work", tmp_path / "work")
    settings: dict[str, Any] = yaml.safe_load(file.read_text()) | {"work_dir": str(tmp_path / "work")}
    return settings


def tamis(*arguments: str | Path, timeout: float = 250) -> CompletedProcess[str]:
    """Run the command in a separate process, with a time limit in seconds."""
    command = [sys.executable, "-m", "tamis", *map(str, arguments)]
    return run(command, capture_output=True, text=True, timeout=timeout)


def write(folder: Path, settings: dict[str, Any]) -> Path:
    """The settings as a file in `folder`."""
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


def write_settings(folder: Path, models: Path) -> Path:
    """Settings of a run over 40 samples of four qualities, with one imported rater; paths are absolute.

    Two more samples have a question longer than `max_tokens` of a model that is trained on 128: nothing to learn.
    """
    answers = ("{} is known.", "{} matters to many people, and there is much to say of it.", "No.", "Ask me about {}.")
    rows = [
        {
            "instruction": f"Tell me something about {subject}, please ({number}).",
            "output": answer.format(subject.capitalize()),
            "rating": 9 - 2 * number,
        }
        for subject in SUBJECTS
        for number, answer in enumerate(answers)
    ]
    endless = {"output": "because " * 100, "rating": 5}
    rows += [{"instruction": f"{number} " + "why " * 300, **endless} for number in range(2)]
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    backend = {"kind": "import", "path": str(data), "by": "row", "source": "facts", "overall": "rating"}
    settings = {
        "work_dir": str(folder / "work"),
        "pool": {"sources": [{"name": "facts", "path": str(data), "schema": "instruction"}]},
        "raters": [{"name": "imported", "backend": backend}],
        "embedding": {"model": str(models / "minilm")},
        "subsets": [
            {"name": "best", "strategy": "ds2", "size": 10},
            {"name": "random", "strategy": "random", "size": 10},
        ],
    }
    return write(folder, settings)
