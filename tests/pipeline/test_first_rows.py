"""`tamis doctor` and the first rows of sources that are no files of this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("kfp")
pytest.importorskip("datasets")

import datasets

from tamis_pipelines.checks.check import Check
from tamis_pipelines.checks.data import data
from tamis_pipelines.checks.models import _dataset
from tamis_pipelines.settings import load_run

GOOD = {"prompt": "a", "completion": "b"}


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of data sets that is empty, and no hub."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    return tmp_path / "cache"


def examined(folder: Path, **source: Any) -> Check:
    settings = {
        "work_dir": str(folder / "work"),
        "pool": {"sources": [{"name": "mine"} | source]},
        "raters": [{"name": "one", "backend": {"kind": "transformers", "model": "some/model"}}],
        "subsets": [{"name": "best", "strategy": "ds2", "size": 1}],
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    (check,) = [one for one in data(load_run(folder / "run.yaml")) if one.what == "pool.sources.mine"]
    return check


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def prepare(cache: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """Leave a data set in the cache as the `datasets` library does."""
    file = cache.parent / "rows.jsonl"
    file.write_text(lines(rows))
    datasets.load_dataset("json", data_files=str(file), cache_dir=str(cache / "made"))
    (made,) = (cache / "made" / "json").glob("*/*/*/json-train.arrow")
    place = cache / name.replace("/", "___") / "default" / "0.0.0" / ("a" * 40)
    place.mkdir(parents=True)
    (made.rename(place / f"{name.partition('/')[2]}-train.arrow"))
    info = json.loads((made.parent / "dataset_info.json").read_text())
    info |= {"builder_name": "parquet", "dataset_name": name.partition("/")[2], "config_name": "default"}
    info["splits"]["train"]["dataset_name"] = info["dataset_name"]
    (place / "dataset_info.json").write_text(json.dumps(info))


@pytest.mark.parametrize(
    ("rows", "level"),
    [([GOOD] * 3, "ok"), ([GOOD, {"prompt": "a", "completion": ""}], "failed"), ([{"text": "a"}], "failed")],
)
@pytest.mark.parametrize("cached", [False, True])
def test_rows_of_a_folder_and_of_a_data_set_in_the_cache_are_looked_at(
    rows: list[dict[str, Any]], level: str, cached: bool, tmp_path: Path, caches: Path
) -> None:
    if cached:
        prepare(caches, "some/set", rows)
    else:
        (tmp_path / "set").mkdir()
        (tmp_path / "set" / "train.jsonl").write_text(lines(rows))
    check = examined(tmp_path, dataset="some/set" if cached else str(tmp_path / "set"))
    assert check.level == level
    assert check.code == ("input" if level == "failed" else "")
    assert ("the first 3 rows" in check.seen) == (level == "ok")


def test_a_split_that_a_folder_does_not_have_fails(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_text(lines([GOOD]))
    check = examined(tmp_path, dataset=str(tmp_path / "set"), split="no_such")
    assert (check.level, check.code) == ("failed", "input")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"dataset": "some/set"}, "some/set"),
        ({"recipe": "dolly"}, "databricks/databricks-dolly-15k"),
        ({"path": "s3://bucket/data.jsonl"}, "object storage"),
    ],
)
def test_what_is_not_on_this_machine_is_a_note_that_says_so(
    source: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tamis_pipelines.checks.data.exists", lambda location: True)
    check = examined(tmp_path, **source)
    assert check.level == "note"
    assert said in check.seen


@pytest.mark.parametrize("offline", [False, True])
def test_of_a_data_set_to_download_is_said_that_a_gated_one_needs_a_token(
    offline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", str(int(offline)))
    check = _dataset("pool.sources.mine.dataset", "some/set")
    assert (check.level, check.code) == (("failed", "input") if offline else ("ok", ""))
    assert "HF_TOKEN" in check.seen
    assert check.action.startswith("hf download --repo-type dataset some/set")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_x")
    assert "HF_TOKEN" not in _dataset("pool.sources.mine.dataset", "some/set").seen
