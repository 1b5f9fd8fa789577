"""A small run that takes no language model: ratings are imported, embeddings are real."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from subprocess import CompletedProcess, run

import pytest
import yaml

SUBJECTS = ("the Moon", "copper", "bread", "the Nile", "owls", "glass", "chess", "rain", "salt", "bees")


@pytest.fixture
def settings_file(models: Path, tmp_path: Path) -> Path:
    """Settings of a run that has not been started; its `work_dir` is `work` beside the file."""
    return write_settings(tmp_path, models)


@pytest.fixture(scope="module")
def finished_run(models: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CompletedProcess[str]]:
    """Settings of a run that has ended well, and what it said."""
    file = write_settings(tmp_path_factory.mktemp("finished"), models)
    return file, tamis("run", file)


def tamis(*arguments: str | Path) -> CompletedProcess[str]:
    """Run the command as a process of its own."""
    command = [sys.executable, "-m", "tamis", *map(str, arguments)]
    return run(command, capture_output=True, text=True, timeout=250)


def write_settings(folder: Path, models: Path) -> Path:
    """Settings of a run over 40 samples in four qualities, by one imported rater; paths are absolute."""
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
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file
