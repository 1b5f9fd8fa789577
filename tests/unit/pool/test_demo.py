"""The demo's pool: made without network, the same every time, and a valid source."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.unit.pool.making import Row, make

DEMO = ROOT / "examples" / "demo"


def prepare(folder: Path, *options: str) -> str:
    command = [sys.executable, "-W", "error", str(DEMO / "prepare.py"), "--pool-only", *options, str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    prepare(folder)
    return folder


def rows_of(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_same_bytes_are_made_every_time(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    prepare(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["docstrings.jsonl", "written.jsonl"]
    for name in os.listdir(tmp_path):
        assert (tmp_path / name).read_bytes() == (prepared / name).read_bytes()


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "written.jsonl").write_text("mine")
    assert "written" not in prepare(tmp_path)
    assert (tmp_path / "written.jsonl").read_text() == "mine"


def test_docstrings_are_of_useful_length_and_not_graded(prepared: Path) -> None:
    rows = rows_of(prepared / "docstrings.jsonl")
    assert len({row["key"] for row in rows}) == 60
    for row in rows:
        question, answer = (message["content"] for message in row["messages"])
        assert row["key"] in question
        assert 80 <= len(answer) <= 1200
        assert (row["grade"], row["topic"]) == (None, "python library")


def test_without_docstrings_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    with pytest.raises(subprocess.CalledProcessError) as error:
        prepare(tmp_path)
    assert "this Python leaves docstrings out; to do" in error.value.stderr


def test_near_duplicates_name_samples_that_exist(prepared: Path) -> None:
    rows = rows_of(prepared / "written.jsonl")
    keys = {row["key"] for row in rows}
    assert len(keys) == len(rows)
    assert all(row["near"] in keys - {row["key"]} for row in rows if row["trait"] == "near_duplicate")


def test_the_readme_counts_the_traits_and_grades_as_they_are(prepared: Path) -> None:
    rows = rows_of(prepared / "written.jsonl")
    table = re.findall(r"^\| `(\w+)` \| (\d+) \| (\d+) to (\d+) \|", (DEMO / "README.md").read_text(), re.MULTILINE)
    counts = Counter(row["trait"] for row in rows)
    assert {trait: int(count) for trait, count, _, _ in table} == counts
    for trait, _, lowest, highest in table:
        grades = [row["grade"] for row in rows if row["trait"] == trait]
        assert (min(grades), max(grades)) == (int(lowest), int(highest)), trait


def test_the_demos_settings_make_a_pool_of_all_of_it(prepared: Path, tmp_path: Path) -> None:
    sources = yaml.safe_load((DEMO.parent / "demo.yaml").read_text())["pool"]["sources"]
    here = [source | {"path": str(prepared / Path(source["path"]).name)} for source in sources]
    manifest, rows = make(tmp_path / "pool", *here)
    assert (manifest.rows, manifest.facts["rejected"], manifest.facts["duplicates"]) == (400, 0, 0)
    assert json.loads(rows[0]["metadata"]).keys() == {"key", "topic", "trait", "grade", "checked"}
    assert json.loads(rows[-1]["metadata"])["topic"] == "python library"
