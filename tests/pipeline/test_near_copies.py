"""The step against near-copies in a run on this machine, in plans, and in compiled pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import tamis as package
from tamis.core.artifacts import Artifact
from tamis.core.errors import SettingsError
from tamis.core.settings import parse
from tamis_pipelines.definitions import pipeline
from tamis_pipelines.plan import plan
from tamis_pipelines.settings import RunSettings, load_run
from tests.pipeline.conftest import tamis, write

NEAR_COPIES = {"text": "instruction", "threshold": 0.6, "keep": "longest"}


def test_a_run_rates_and_selects_from_the_pool_without_near_copies(
    continued_run: dict[str, Any], tmp_path: Path
) -> None:
    for subset in continued_run["subsets"]:
        subset["size"] = 4
    settings_file = write(tmp_path, continued_run | {"near_copies": NEAR_COPIES})
    made = tamis("run", settings_file)
    assert made.returncode == 0, made.stderr
    work = tmp_path / "work"
    whole, pool = Artifact.open(work / "pool/with-near-copies", "pool"), Artifact.open(work / "pool", "pool")
    dropped = pq.read_table(work / "pool/clusters.parquet")["id"].to_pylist()
    assert dropped
    assert sorted([*pool.table()["id"].to_pylist(), *dropped]) == sorted(whole.table()["id"].to_pylist())
    for place in ("ratings/imported", "embeddings", "selections/best"):
        assert Artifact.open(work / place).manifest.inputs["pool"] == [pool.manifest.content_hash]
    assert "Samples dropped as near-copies" in (work / "report/report.html").read_text()
    assert len(package.load(work)) == pool.manifest.rows
    settings = load_run(settings_file)
    seen = plan(settings)
    assert seen.samples == pool.manifest.rows
    assert [(line.step, line.done) for line in seen.lines if line.step == "near-copies"] == [("near-copies", 1)]


@pytest.mark.parametrize("name", ["data-selection", "experiment"])
def test_the_step_is_compiled_in_where_settings_drop_near_copies(name: str, continued_run: dict[str, Any]) -> None:
    settings = parse(RunSettings, continued_run | {"near_copies": NEAR_COPIES}, where="settings")
    assert settings.compiled.near_copies
    assert settings.arguments()["near_copies"] == NEAR_COPIES
    spec = pipeline(name, settings.compiled).pipeline_spec
    assert "near_copies" in spec.root.input_definitions.parameters
    assert "exec-drop-near-copies" in spec.deployment_spec["executors"]
    without = parse(RunSettings, continued_run, where="settings")
    assert "near_copies" not in without.arguments()
    assert "exec-drop-near-copies" not in pipeline(name, without.compiled).pipeline_spec.deployment_spec["executors"]


def test_a_step_that_is_compiled_in_without_settings_is_refused(continued_run: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        parse(RunSettings, continued_run | {"kubeflow": {"compiled": {"near_copies": True}}}, where="settings")
