"""What `tamis doctor` says of files that a run reads late."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tamis_pipelines.checks.given import given
from tamis_pipelines.settings import load_run
from tests.pipeline.conftest import write, write_settings


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    """Settings of a run with a match, and with a list of samples to leave out."""
    found: dict[str, Any] = yaml.safe_load(write_settings(tmp_path, tmp_path).read_text())
    for name in ("prompts", "answers"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"prompt": "Why?", "answer": "So."}) + "\n")
    (tmp_path / "task.jsonl").write_text('{"prompt": "One?", "completion": "1"}\n')
    (tmp_path / "ids.txt").write_text("0" * 32 + "\n")
    found["embedding"] = {"model": "some/embedder"}
    found["finetuning"], found["evaluation"] = {"model": "some/model"}, {"suite": "ds2"}
    found["subsets"] = [{"name": "a", "strategy": "less", "size": 5, "exclude": str(tmp_path / "ids.txt")}]
    found["influence"] = {"model": "some/model", "tasks": [{"name": "t", "path": str(tmp_path / "task.jsonl")}]}
    found["judging"] = {
        "prompts": [{"name": "p", "path": str(tmp_path / "prompts.jsonl")}],
        "judge": {"backend": {"kind": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"}},
        "against": {"kind": "answers", "name": "other", "path": str(tmp_path / "answers.jsonl")},
    }
    return found


def checked(folder: Path, settings: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {check.what: (check.level, check.code) for check in given(load_run(write(folder, settings), ()))}


PLACES = ["judging.prompts.p", "judging.against", "influence.tasks.t", "a: exclude"]


def test_good_files_are_counted(settings: dict[str, Any], tmp_path: Path) -> None:
    assert checked(tmp_path, settings) == dict.fromkeys(PLACES, ("ok", ""))


def test_wrong_fields_rows_and_ids_are_found(settings: dict[str, Any], tmp_path: Path) -> None:
    settings["judging"]["prompts"][0]["fields"] = ["question"]
    settings["judging"]["against"]["answer"] = "output"
    (tmp_path / "task.jsonl").write_text('{"question": "One?"}\n')
    (tmp_path / "ids.txt").write_text("zzz\n")
    assert checked(tmp_path, settings) == dict.fromkeys(PLACES, ("failed", "input"))


def test_files_in_object_storage_are_said_to_be_unread(settings: dict[str, Any], tmp_path: Path) -> None:
    settings["judging"]["prompts"][0]["path"] = "s3://bucket/prompts.jsonl"
    assert checked(tmp_path, settings)["judging.prompts.p"] == ("note", "")
