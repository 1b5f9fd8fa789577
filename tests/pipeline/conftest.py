"""A small run that takes no language model: ratings are imported, embeddings are real."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

SUBJECTS = ("the Moon", "copper", "bread", "the Nile", "owls", "glass", "chess", "rain", "salt", "bees")


@pytest.fixture
def settings_file(models: Path, tmp_path: Path) -> Path:
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
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    backend = {"kind": "import", "path": str(data), "by": "row", "source": "facts", "overall": "rating"}
    settings = {
        "work_dir": str(tmp_path / "work"),
        "pool": {"sources": [{"name": "facts", "path": str(data), "schema": "instruction"}]},
        "raters": [{"name": "imported", "backend": backend}],
        "embedding": {"model": str(models / "minilm")},
        "subsets": [
            {"name": "best", "strategy": "ds2", "size": 10},
            {"name": "random", "strategy": "random", "size": 10},
        ],
    }
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file
