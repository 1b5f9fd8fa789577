"""Sizes of runs on Kubeflow: the model against recorded workflows, and what fits below the limits."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tamis.core.errors import SettingsError
from tamis.core.settings import parse
from tamis_pipelines.packages import compile_one
from tamis_pipelines.pods import CompileSettings
from tamis_pipelines.settings import RunSettings, load_run
from tamis_pipelines.workflow import size_of
from tamis_pipelines.workflow.figures import MOST_ARGUMENT, MOST_BYTES
from tamis_pipelines.workflow.fitting import Fitted, fitted
from tamis_pipelines.workflow.size import Package

ROOT = Path(__file__).parents[2]
BASIS: dict[str, Any] = {
    "work_dir": "unused",
    "pool": {"sources": [{"name": "alpaca", "path": "s3://tamis/data/rated.parquet", "schema": "instruction"}]},
    "raters": [
        {
            "name": name,
            "backend": {"kind": "import", "path": "s3://tamis/data/rated.parquet", "by": "row", "overall": name},
        }
        for name in ("gpt", "mistral")
    ],
}
TRAINED: dict[str, Any] = {
    "finetuning": {"model": "meta-llama/Llama-3.1-8B"},
    "evaluation": {"model": "meta-llama/Llama-3.1-8B", "suite": "paper"},
    "judging": {
        "prompts": [{"name": "vicuna", "path": "s3://tamis/prompts/vicuna.jsonl"}],
        "against": {"kind": "artifact", "path": "s3://tamis/lima/llama"},
        "judge": {"backend": {"kind": "openai", "model": "gpt-4o-mini"}},
        "price": {"input": 0.15, "output": 0.6},
        "max_cost": 20,
        "store": "s3://tamis/judging",
    },
    "kubeflow": {"compiled": {"work_volume": True, "parallelism": 16}},
}


def selection(count: int) -> RunSettings:
    subsets = [
        {"name": f"ds2-{size}", "strategy": "ds2", "rater": "gpt", "size": size} for size in range(10, 10 + count)
    ]
    return parse(RunSettings, BASIS | {"subsets": subsets}, where="test")


def experiment(cells: int, **changed: Any) -> RunSettings:
    """An experiment in which every cell is judged."""
    grid = {"strategies": ["ds2", "random"], "raters": ["gpt"], "sizes": [10_000], "seeds": [*range(cells // 2)]}
    return parse(RunSettings, BASIS | TRAINED | {"experiment": grid} | changed, where="test")


def fit(settings: RunSettings, folder: Path) -> Fitted:
    compiled = settings.compiled.model_copy(update={"outcomes": "s3://tamis/outcomes"})
    return fitted(settings, compiled, folder)


@pytest.mark.parametrize(("case", "status"), [("experiment", 207_940), ("sharded-pod-deleted", 111_820)])
def test_the_size_of_a_recorded_workflow_is_met_within_a_tenth(
    case: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = os.environ.get("TAMIS_TEST_KUBEFLOW")
    if not folder:
        pytest.skip("TAMIS_TEST_KUBEFLOW names no folder with recorded answers")
    spec = importlib.util.spec_from_file_location("workflow_figures", ROOT / "scripts/workflow_figures.py")
    assert spec is not None
    assert spec.loader is not None
    figures = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, figures)
    spec.loader.exec_module(figures)
    recorded = figures.recorded(Path(folder, case, "v1beta1.json.gz"))
    size = recorded.package.size(recorded.arguments)
    assert len(recorded.packed) == status
    assert size.status == pytest.approx(status, rel=0.1)
    assert size.spec == pytest.approx(len(figures.text(recorded.spec)), rel=0.05)
    if case == "experiment":
        assert size.bytes == pytest.approx(369_000, rel=0.1), "the server's own figure, of three cells"


def test_pods_and_levels_of_a_small_selection(tmp_path: Path) -> None:
    size = fit(selection(3), tmp_path).size
    assert size.pods == 24, "33 before steps worked for groups"
    assert size.sequence == 18, "20 before"
    assert size.levels <= 8
    assert fit(selection(500), tmp_path).size.pods == 24


def test_the_settings_of_pods_take_less_room_when_they_are_compiled_in(tmp_path: Path) -> None:
    settings = experiment(6)
    compiled = fit(settings, tmp_path).size
    as_parameters = fitted(settings, settings.compiled, tmp_path, constant=False).size
    assert compiled.bytes < 0.9 * as_parameters.bytes


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(lambda: experiment(208), id="208 judged cells"),
        pytest.param(lambda: selection(500), id="500 subsets"),
        pytest.param(lambda: load_run(ROOT / "examples/paper.yaml"), id="the paper's experiment"),
    ],
)
def test_large_runs_fit_on_a_stock_kubeflow(settings: Any, tmp_path: Path) -> None:
    run: RunSettings = settings()
    made = fit(run, tmp_path)
    size = size_of(made.package, made.arguments)
    assert size == made.size
    assert size.bytes < 0.9 * MOST_BYTES
    assert size.argument < 0.9 * MOST_ARGUMENT
    if "cells" in made.arguments:
        names = [subset["name"] for group in made.arguments["cells"] for subset in group["subset"]]
        assert names == [cell.name for cell in run.cells]
        assert {len(group["subset"]) for group in made.arguments["cells"][:-1]} == {made.cells_per_pod}


def test_no_more_cells_share_a_pod_than_must(tmp_path: Path) -> None:
    assert fit(experiment(6), tmp_path).cells_per_pod == 1
    made = fit(experiment(60), tmp_path)
    assert made.cells_per_pod > 1
    fewer = experiment(60, kubeflow={"compiled": {"work_volume": True, "cells_per_pod": made.cells_per_pod - 1}})
    with pytest.raises(SettingsError, match="cells_per_pod"):
        fit(fewer, tmp_path)


def test_a_pod_of_several_cells_has_the_time_of_all_of_them(tmp_path: Path) -> None:
    made = fit(experiment(60), tmp_path)
    seconds = Package.read(made.package).platform["exec-finetune"]["activeDeadlineSeconds"]
    assert int(seconds) == made.cells_per_pod * CompileSettings().timeouts.training


def test_cells_do_not_share_pods_where_a_retry_would_make_finished_ones_again(tmp_path: Path) -> None:
    for compiled in ({"work_volume": True}, {"finished": "s3://tamis/finished"}):
        assert fit(experiment(60, kubeflow={"compiled": compiled}), tmp_path).cells_per_pod > 1
    with pytest.raises(SettingsError, match="finished"):
        fit(experiment(60, kubeflow={}), tmp_path)


def test_what_cannot_fit_is_refused_with_the_largest_number_that_can(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        fit(selection(4000), tmp_path)
    largest = int("".join(filter(str.isdigit, str(refused.value.allowed))))
    assert 500 < largest < 4000
    assert fit(selection(largest), tmp_path).size.fits
    package = compile_one("data-selection", tmp_path, CompileSettings())
    assert not size_of(package, selection(largest + 20).cluster_arguments()).fits


def test_where_not_even_one_cell_fits_fewer_cells_are_no_advice(tmp_path: Path) -> None:
    backends = [{"kind": "openai", "model": f"a-model-{number}"} for number in range(400)]
    raters = [{"name": f"rater-{number}", "backend": backend} for number, backend in enumerate(backends)]
    raters += BASIS["raters"]
    with pytest.raises(SettingsError) as refused:
        fit(experiment(2, raters=raters), tmp_path)
    assert "raters" in refused.value.action
    assert "0" not in refused.value.allowed
