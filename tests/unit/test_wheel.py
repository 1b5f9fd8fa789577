"""The wheel: it holds every file of the package, installs, and works outside a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tamis import __version__
from tests.conftest import ROOT

PACKAGES = ("components/tamis", "pipelines/tamis_pipelines")


def run(*command: str | Path, folder: Path) -> str:
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=outside, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built of a copy of the package: setuptools leaves files of its own beside the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, folder, folder=folder)
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of an environment with the wheel, above this environment's other packages."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (packages / "parent.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    run(folder / "bin/pip", "install", "--no-deps", "--no-index", "--force-reinstall", wheel, folder=folder)
    return folder / "bin"


def test_it_holds_every_file_of_the_package_and_the_licence(wheel: Path) -> None:
    files = {
        file.relative_to((ROOT / name).parent).as_posix()
        for name in PACKAGES
        for file in (ROOT / name).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    held = set(zipfile.ZipFile(wheel).namelist())
    assert files <= held
    assert f"tamis-{__version__}.dist-info/licenses/LICENSE" in held


def test_installed_it_runs_outside_a_checkout(installed: Path, tmp_path: Path) -> None:
    where = "import tamis, tamis_pipelines; print(tamis.__file__, tamis_pipelines.__file__, sep='\\n')"
    files = run(installed / "python", "-c", where, folder=tmp_path).splitlines()
    assert [Path(file).is_relative_to(installed.parent) for file in files] == [True, True]
    assert run(installed / "tamis", "--version", folder=tmp_path).split()[-1] == __version__
    assert " demo " in run(installed / "tamis", "--help", folder=tmp_path)
    assert "--prepare" in run(installed / "tamis", "demo", "--help", folder=tmp_path)
    run(installed / "tamis", "demo", "--prepare", "data", folder=tmp_path)
    folder = tmp_path / "tamis-demo"
    made = {file.relative_to(folder).as_posix() for file in folder.rglob("*.*")}
    assert {"written.jsonl", "docstrings.jsonl", "settings.yaml", "suite.yaml", "tasks/tamis_facts.yaml"} <= made
