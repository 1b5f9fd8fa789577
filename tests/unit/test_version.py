"""The version stands in one place; every other place is written from it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tamis import __version__
from tests.conftest import ROOT

# Compiled pipelines are compared with what the code compiles in tests/pipeline.
FOLDERS = ("components", "pipelines/tamis_pipelines", "images", "manifests", "helm", "docs", "examples", "tests")


def write_version(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(root / "scripts/version.py"), *options], capture_output=True, text=True, check=False
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("scripts", "images", "manifests", "helm", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "components/tamis").mkdir(parents=True)
    shutil.copy(ROOT / "components/tamis/__init__.py", tmp_path / "components/tamis")
    return tmp_path


def files_with(root: Path, version: str) -> set[str]:
    return {
        path.relative_to(root).as_posix()
        for folder in FOLDERS
        for path in (root / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc" and re.search(rf"(?<![\d.]){re.escape(version)}", read(path))
    }


def read(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace")


def test_every_place_has_the_version() -> None:
    done = write_version(ROOT, "--check")
    assert done.returncode == 0, done.stdout


def test_a_new_version_replaces_the_old_one_everywhere(checkout: Path) -> None:
    held = files_with(checkout, __version__)
    assert write_version(checkout, "--check").returncode == 0
    assert write_version(checkout, "98.7.6").returncode == 0
    assert files_with(checkout, __version__) == set()
    assert files_with(checkout, "98.7.6") == held
    assert {"components/tamis/__init__.py", "helm/tamis/Chart.yaml", "images/cpu.Containerfile"} < held


def test_a_place_that_was_forgotten_is_named(checkout: Path) -> None:
    chart = checkout / "helm/tamis/Chart.yaml"
    chart.write_text(chart.read_text().replace(f"version: {__version__}", "version: 0.0.1"))
    done = write_version(checkout, "--check")
    assert (done.returncode, done.stdout) == (1, "differs: helm/tamis/Chart.yaml\n")


def test_code_and_tests_do_not_repeat_the_version() -> None:
    repeated = files_with(ROOT, __version__) - files_with_places()
    assert repeated == {"components/tamis/__init__.py"}


def files_with_places() -> set[str]:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import version
    finally:
        sys.path.pop(0)
    return {path.relative_to(ROOT).as_posix() for path in version.placed(__version__)}


@pytest.mark.parametrize("wrong", ["1.2", "v1.2.3", "1.2.3-rc1"])
def test_what_is_no_version_is_refused(checkout: Path, wrong: str) -> None:
    assert write_version(checkout, wrong).returncode == 2
    assert write_version(checkout, "--check").returncode == 0
