"""The rating stage with the real SmolLM2: what it writes, what it keeps, and that a kill costs nothing twice."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from tamis.core.artifacts import Artifact
from tamis.core.errors import ModelError
from tamis.core.settings import parse
from tamis.core.tables import RATINGS
from tamis.rating.settings import RatingSettings
from tamis.rating.stage import plan, run
from tests.artifacts import conversation, make_pool


def values(models: Path, **own: Any) -> dict[str, Any]:
    backend = {"kind": "transformers", "model": str(models / "smollm2")} | own.pop("backend", {})
    return {"name": "smol", "backend": backend} | own


def settings(models: Path, **own: Any) -> RatingSettings:
    return parse(RatingSettings, values(models, **own), where="here")


def stored_ids(store: Path) -> list[str]:
    return [json.loads(line)["id"] for part in store.glob("*/*.jsonl") for line in part.read_text().splitlines()]


def test_every_sample_gets_one_row_in_the_order_of_the_pool(models: Path, small_pool: Path, tmp_path: Path) -> None:
    manifest = run(settings(models), pool=small_pool, out=tmp_path / "out")
    table = Artifact.open(tmp_path / "out", "ratings").table()
    assert table.schema.equals(RATINGS)
    assert table["id"].to_pylist() == Artifact.open(small_pool).table(["id"])["id"].to_pylist()
    assert set(table["status"].to_pylist()) == {"ok"}
    assert pc.min_max(table["overall"]).as_py()["min"] >= 1
    assert all(1 <= value <= 10 for value in table["expected"].to_pylist())
    assert len(set(table["expected"].to_pylist())) > 1
    assert (manifest.name, manifest.rows) == ("smol", 6)
    facts = manifest.facts
    assert (facts["ok"], facts["asked"], facts["reused"]) == (6, 6, 0)
    assert facts["prompt"]["name"] == "ds2-v1"
    assert facts["prompt_tokens"] == sum(table["prompt_tokens"].to_pylist())
    assert sum(facts["overall_histogram"].values()) == 6
    assert manifest.models["rater"].startswith("sha256:")


def test_the_plan_counts_what_the_run_then_uses(models: Path, small_pool: Path, tmp_path: Path) -> None:
    mine = settings(models, store=str(tmp_path / "store"))
    before = plan(mine, pool=small_pool)
    manifest = run(mine, pool=small_pool, out=tmp_path / "out")
    assert (before.samples, before.stored, before.prompt_tokens) == (6, 0, manifest.facts["prompt_tokens"])
    after = plan(mine, pool=small_pool)
    assert (after.stored, after.prompt_tokens) == (6, 0)


@pytest.mark.parametrize("kept_by", ["store", "home"])
def test_other_pools_and_runs_share_what_is_rated(
    models: Path, tmp_path: Path, kept_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own: dict[str, Any] = {"temperature": 1}
    if kept_by == "home":
        monkeypatch.setenv("TAMIS_HOME", str(tmp_path / "home"))
    else:
        own["store"] = str(tmp_path / "store")
    samples = [conversation(f"What is {n} + {n}?", f"{2 * n}.") for n in range(6)]
    run(settings(models, **own), pool=make_pool(tmp_path / "first", samples[:4]), out=tmp_path / "a")
    second = make_pool(tmp_path / "second", samples[:1:-1])
    more = run(settings(models, **own, max_failure_share=0.5), pool=second, out=tmp_path / "b")
    assert (more.facts["reused"], more.facts["asked"]) == (2, 2)
    rows = {name: {row["id"]: row for row in Artifact.open(tmp_path / name).table().to_pylist()} for name in "ab"}
    shared = rows["a"].keys() & rows["b"].keys()
    assert len(shared) == 2
    assert all(rows["a"][sample] == rows["b"][sample] for sample in shared)
    other = run(settings(models, **(own | {"seed": 1})), pool=second, out=tmp_path / "c")
    assert other.facts["reused"] == 0


def test_too_many_failures_stop_the_stage_with_a_table_of_errors(
    models: Path, small_pool: Path, tmp_path: Path
) -> None:
    """Forty tokens are too few for this model's free answers, which begin with prose or are cut off."""
    mine = settings(
        models, temperature=1, max_attempts=2, store=str(tmp_path / "store"),
        backend={"structured": False, "max_new_tokens": 40, "max_sample_tokens": 64},
    )  # fmt: skip
    with pytest.raises(ModelError) as error:
        run(mine, pool=small_pool, out=tmp_path / "out")
    assert re.search(r"rater 'smol': [1-6] of 6 samples got no rating\n +[1-6]  unparsable  not", str(error.value))
    assert "5.0%" in error.value.allowed
    assert "max_failure_share" in error.value.allowed
    assert not (tmp_path / "out").exists()
    assert len(set(stored_ids(tmp_path / "store"))) == 6  # what was paid is kept

    tolerant = mine.model_copy(update={"max_failure_share": 1.0})
    manifest = run(tolerant, pool=small_pool, out=tmp_path / "out")
    assert manifest.facts["unparsable"] + manifest.facts["ok"] == 6
    assert manifest.facts["unparsable"] > 0
    assert sum(manifest.facts["errors"].values()) == manifest.facts["unparsable"]
    table = Artifact.open(tmp_path / "out").table()
    failed = table.filter(pc.equal(table["status"], "unparsable")).to_pylist()
    assert all(row["overall"] is None and row["error"] and row["attempts"] == 2 for row in failed)


def test_the_component_rates_and_describes_its_artifact(models: Path, small_pool: Path, tmp_path: Path) -> None:
    dsl = pytest.importorskip("kfp.dsl")
    from tamis.rating.component import rate

    ratings = dsl.Dataset(uri=str(tmp_path / "ratings"))
    metrics = dsl.Metrics(uri=str(tmp_path / "metrics"))
    pool = dsl.Dataset(uri=str(small_pool))
    rate.python_func(pool=pool, settings=values(models, seed=0.0), ratings=ratings, metrics=metrics)
    assert (ratings.metadata["kind"], ratings.metadata["name"], ratings.metadata["rows"]) == ("ratings", "smol", 6)
    assert metrics.metadata["ok"] == 6
    assert Artifact.open(tmp_path / "ratings", "ratings").manifest.content_hash == ratings.metadata["content_hash"]
