"""The package in `examples/extension`: a strategy with a score of its own, a backend and a rater, by entry points."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from tamis.core.errors import RegistryError, SettingsError
from tamis.core.samples import as_text, sample_id
from tamis.core.settings import hash_of, parse
from tamis.selection.settings import SelectionSettings
from tamis_pipelines.settings import _refuse_names_of_sections
from tests.artifacts import conversation, make_pool

EXAMPLE = Path(__file__).parents[2] / "examples/extension"
SAMPLES = [conversation(f"question {n}", "word " * n + f"answer {n * 7919 % 101}") for n in range(1, 10)]
Python = Callable[..., str]


@pytest.fixture
def python(tmp_path: Path) -> Python:
    """Runs Python with the example installed: found on its path, with the entry points of its pyproject.toml."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    info = tmp_path / "site" / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        line
        for group, points in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {place}" for name, place in points.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join([*lines, ""]))
    path = os.pathsep.join(map(str, (EXAMPLE, info.parent, *filter(None, sys.path))))

    def run(*arguments: object) -> str:
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": path},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    return make_pool(tmp_path / "pool", SAMPLES)


def test_a_strategy_ranks_by_the_score_that_the_package_brings(python: Python, pool: Path, tmp_path: Path) -> None:
    scores, subset = tmp_path / "scores", tmp_path / "subset"
    measured = ["--set", "measure.kind=density", "--set", "measure.level=1"]
    python("-m", "tamis", "score", "--pool", pool, *measured, "--out", scores)
    chosen = [f"--set={given}" for given in ("name=m", "strategy=middle", "size=3", "around=0")]
    python("-m", "tamis", "select", "--pool", pool, "--scores", scores, *chosen, "--out", subset)
    texts = {sample_id(messages): as_text(messages).encode() for messages in SAMPLES}
    densities = {sample: len(zlib.compress(text, 1)) / len(text) for sample, text in texts.items()}
    lowest = sorted(densities, key=densities.__getitem__)[:3]
    picked = pq.read_table(subset / "selection.parquet")
    assert set(picked["id"].to_pylist()) == set(lowest)
    assert picked["score"].to_pylist() == pytest.approx(sorted((densities[one] for one in lowest), reverse=True))


def test_a_rater_of_the_package_is_asked_by_its_backend(python: Python, pool: Path, tmp_path: Path) -> None:
    given = ["rater=vocabulary-50", "backend.most=5", f"store={tmp_path / 'store'}"]
    rating = [f"--set={one}" for one in given]
    python("-m", "tamis", "rate", "--pool", pool, *rating, "--out", tmp_path / "ratings")
    (part,) = (tmp_path / "ratings").glob("*.parquet")
    rows = pq.read_table(part).to_pylist()
    assert {row["rater"] for row in rows} == {"vocabulary-50"}
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["overall"] for row in rows} == {10}, "every sample has five different words"


def test_another_version_of_the_package_is_asked_again(python: Python, pool: Path, tmp_path: Path) -> None:
    rating = ["--set=rater=vocabulary-50", "--set=backend.most=5", f"--set=store={tmp_path / 'store'}"]
    python("-m", "tamis", "rate", "--pool", pool, *rating, "--out", tmp_path / "first")
    (info,) = (tmp_path / "site").glob("*.dist-info")
    metadata = (info / "METADATA").read_text()
    (info / "METADATA").write_text(metadata.replace("\nVersion: ", "\nVersion: 1!"))
    for out, asked in (("second", len(SAMPLES)), ("third", 0)):
        python("-m", "tamis", "rate", "--pool", pool, *rating, "--out", tmp_path / out)
        assert json.loads((tmp_path / out / "manifest.json").read_text())["facts"]["asked"] == asked


@pytest.mark.parametrize("name", ["embedding", "judging", "work_dir", "Density", "my-measure"])
def test_a_measure_with_the_name_of_a_section_or_a_name_that_is_no_parameter_is_refused(name: str) -> None:
    with pytest.raises(RegistryError) as caught:
        _refuse_names_of_sections(["perplexity", name])
    assert name in caught.value.problem


def test_a_run_has_the_section_and_the_step(python: Python, tmp_path: Path) -> None:
    settings = {
        "work_dir": str(tmp_path / "run"),
        "pool": {"sources": [{"name": "a", "path": "a.jsonl"}]},
        "raters": [{"name": "v", "backend": {"kind": "vocabulary"}}],
        "density": {"measure": {"level": 3}},
        "subsets": [{"name": "m", "strategy": "middle", "size": 3, "around": 0.25}],
    }
    script = f"""
import json
from pathlib import Path
from tamis.core.settings import parse
from tamis_pipelines.packages import compile_one
from tamis_pipelines.results import _places_of
from tamis_pipelines.settings import RunSettings

settings = parse(RunSettings, {settings!r}, where="test")
package = compile_one(settings.pipeline, Path("packages"), settings.compiled).read_text()
print(json.dumps([settings.arguments(), settings.scores, _places_of(settings), package]))
"""
    arguments, scores, places, package = json.loads(python("-c", script))
    assert scores == ["density"]
    assert arguments["density"] == {"measure": {"kind": "density", "level": 3}}
    assert arguments["subsets"] == settings["subsets"]
    assert "scores/density" in places
    pipeline, _ = yaml.safe_load_all(package)
    assert "density" in pipeline["root"]["inputDefinitions"]["parameters"]
    assert "density" in pipeline["components"]["comp-select"]["inputDefinitions"]["artifacts"]
    source = pipeline["deploymentSpec"]["executors"]["exec-select"]["container"]["command"][-1]
    assert "scores=[given.path for given in (perplexity, deita, influence, density) if given]" in source


def test_the_help_tells_of_what_the_package_brings(python: Python) -> None:
    assert "middle: quantile of the scores" in " ".join(python("-m", "tamis", "select", "--help").split())
    assert "measure.kind: density" in python("-m", "tamis", "score", "--help")
    assert "backend.kind: vocabulary" in python("-m", "tamis", "rate", "--help")


def test_keys_of_other_subsets_stay_what_they_are(python: Python) -> None:
    given = {"name": "s", "strategy": "ds2", "size": 3}
    here = hash_of(parse(SelectionSettings, given, where="test").model_dump(mode="json"))
    script = f"""
from tamis.core.settings import hash_of, parse
from tamis.selection.settings import SelectionSettings
from tamis_pipelines.settings import _refuse_names_of_sections

print(hash_of(parse(SelectionSettings, {given!r}, where="test").model_dump(mode="json")))
"""
    assert python("-c", script).strip() == here


@pytest.mark.parametrize("given", [{"strategy": "middle"}, {"strategy": "random", "around": 0.3}])
def test_without_the_package_its_settings_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(SelectionSettings, {"name": "s", "size": 3} | given, where="test")
    assert caught.value.code == "settings"


def test_with_it_a_setting_of_the_strategy_is_refused_for_another(python: Python) -> None:
    script = """
from tamis.core.errors import RegistryError, SettingsError
from tamis.core.settings import parse
from tamis.selection.settings import SelectionSettings
from tamis_pipelines.settings import _refuse_names_of_sections

try:
    parse(SelectionSettings, {"name": "s", "strategy": "random", "size": 3, "around": 0.3}, where="test")
except SettingsError as error:
    print(error.code)
"""
    assert python("-c", script).strip() == "settings"
