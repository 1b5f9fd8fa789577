"""The compiled Kubeflow pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tamis.core.kubeflow import image
from tamis_pipelines.packages import compile_all
from tamis_pipelines.settings import RunSettings, load_run


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    paths = compile_all(tmp_path_factory.mktemp("packages"))
    return {path.stem: next(yaml.safe_load_all(path.read_text())) for path in paths}


def test_every_step_runs_in_an_image_of_tamis_and_installs_nothing(packages: dict[str, dict[str, Any]]) -> None:
    images = {image(name) for name in ("cpu", "rating", "training", "evaluation")}
    for package in packages.values():
        for executor in package["deploymentSpec"]["executors"].values():
            assert executor["container"]["image"] in images
            assert "pip install" not in " ".join(executor["container"]["command"])


def test_the_parameters_are_the_sections_of_the_settings(packages: dict[str, dict[str, Any]]) -> None:
    sections = set(RunSettings.model_fields) - {"work_dir"}
    assert set(packages["experiment"]["root"]["inputDefinitions"]["parameters"]) == sections
    without_models = sections - {"finetuning", "evaluation"}
    assert set(packages["data-selection"]["root"]["inputDefinitions"]["parameters"]) == without_models


def test_compiling_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    one, other = compile_all(tmp_path / "one"), compile_all(tmp_path / "other")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


@pytest.mark.parametrize("example", ["demo.yaml", "alpaca-rated.yaml"])
def test_the_examples_are_valid_settings(example: str) -> None:
    settings = load_run(Path(__file__).parents[2] / "examples" / example)
    assert settings.pipeline == ("experiment" if example == "demo.yaml" else "data-selection")
    assert set(settings.arguments()) <= set(RunSettings.model_fields)
