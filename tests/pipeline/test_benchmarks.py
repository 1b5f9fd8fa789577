"""`tamis doctor` and the tasks of lm-eval that a suite names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("kfp")
pytest.importorskip("lm_eval")

from tamis.evaluation import listing
from tamis.evaluation.listing import Listed, datasets_of, nearest
from tamis_pipelines.checks import benchmarks as checks
from tamis_pipelines.checks.check import Check
from tamis_pipelines.settings import RunSettings, load_run

KNOWN = {
    "arc_easy": Listed((), "allenai/ai2_arc"),
    "arc_challenge": Listed((), "allenai/ai2_arc"),
    "ai2_arc": Listed(("arc_challenge", "arc_easy"), None),
    "written_in_python": Listed((), None),
}


@pytest.fixture
def lists(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """How often lm-eval was asked for its list, and whether anew; its tasks are `KNOWN`."""
    asked: list[bool] = []

    def tasks(*, anew: bool = False) -> dict[str, Listed]:
        asked.append(anew)
        return KNOWN

    monkeypatch.setattr(checks, "tasks_of_lm_eval", tasks)
    return asked


def examined(
    folder: Path, *tasks: dict[str, Any], model: str | Path = "some/model", max_length: int | None = None, **suite: Any
) -> list[Check]:
    file = folder / "suite.yaml"
    file.write_text(yaml.safe_dump({"version": "1", "tasks": list(tasks)} | suite))
    return list(checks.benchmarks(settings_of(folder, file, str(model), max_length)))


def settings_of(folder: Path, suite: Path, model: str, max_length: int | None) -> RunSettings:
    data = folder / "data.jsonl"
    data.write_text('{"prompt": "a", "completion": "b"}\n')
    settings = {
        "work_dir": str(folder / "work"),
        "pool": {"sources": [{"name": "mine", "path": str(data)}]},
        "raters": [{"name": "one", "backend": {"kind": "transformers", "model": "some/model"}}],
        "subsets": [{"name": "best", "strategy": "ds2", "size": 1}],
        "finetuning": {"model": model},
        "evaluation": {"model": model, "suite": str(suite), "max_length": max_length},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    return load_run(folder / "run.yaml")


def test_a_name_that_lm_eval_has_not_fails_with_the_nearest(tmp_path: Path, lists: list[bool]) -> None:
    checked = examined(tmp_path, {"task": "arc_esy", "metric": "acc"}, {"task": "ai2_arc", "metric": "acc"})
    assert [check.level for check in checked] == ["failed", "note"]
    assert "arc_easy" in checked[0].seen
    assert lists == [False, True]  # a kept list is not believed where a name is missing


def test_data_that_are_not_here_are_a_note_that_says_so(tmp_path: Path, lists: list[bool]) -> None:
    tasks = [{"task": name, "metric": "acc"} for name in ("ai2_arc", "written_in_python")]
    checked = examined(tmp_path, *tasks)
    assert [check.level for check in checked] == ["ok", "note"]
    assert "not checked" in checked[1].seen
    assert "allenai/ai2_arc" in checked[1].seen
    assert lists == [False]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A task of the suite's own whose data set is a local folder."""
    (tmp_path / "set").mkdir()
    rows = [{"question": "1 + 1", "answer": "2"}, {"question": "2 + 2", "answer": "4"}]
    (tmp_path / "set" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tasks").mkdir()
    return tmp_path


def write_task(folder: Path, **changed: Any) -> None:
    task = {
        "task": "sums",
        "dataset_path": str(folder / "set"),
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "answer",
        "generation_kwargs": {"max_gen_toks": 5, "until": ["\n"]},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    (folder / "tasks" / "sums.yaml").write_text(yaml.safe_dump(task | changed))


@pytest.mark.parametrize(
    ("changed", "metric", "level"),
    [
        ({}, "exact_match", "ok"),
        ({"test_split": "no_such"}, "exact_match", "failed"),
        ({"doc_to_target": "no_such"}, "exact_match", "failed"),
        ({}, "acc", "failed"),
    ],
)
def test_splits_fields_and_metrics_of_data_that_are_here_are_looked_at(
    own: Path, lists: list[bool], changed: dict[str, Any], metric: str, level: str
) -> None:
    write_task(own, **changed)
    checked = examined(own, {"task": "sums", "metric": metric}, include_path="tasks")
    assert [check.level for check in checked] == ["ok", level]
    assert lists == []  # lm-eval's own are not needed


@pytest.mark.parametrize(("tokens", "level"), [(63, "ok"), (64, "failed"), (4096, "failed")])
@pytest.mark.parametrize("by", ["max_length", "model"])
def test_answers_that_leave_the_model_no_room_for_a_question_fail(
    own: Path, lists: list[bool], tokens: int, level: str, by: str
) -> None:
    write_task(own, generation_kwargs={"max_gen_toks": tokens})
    model = own / "model"
    model.mkdir()
    context = 64 if by == "model" else 2048
    (model / "config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": context}))
    limit = {} if by == "model" else {"max_length": 64}
    checked = examined(own, {"task": "sums", "metric": "exact_match"}, include_path="tasks", model=model, **limit)
    assert [check.level for check in checked] == ["ok", level]
    assert checked[1].code == ("settings" if level == "failed" else "")
    assert ("max_gen_toks" in checked[1].action) == (level == "failed")


def test_groups_and_tags_have_the_data_of_what_is_in_them() -> None:
    tasks = KNOWN | {"all": Listed(("ai2_arc", "written_in_python", "all"), None)}
    assert datasets_of("all", tasks) == {"allenai/ai2_arc", None}
    assert nearest("arc_esay", tasks)[0] == "arc_easy"


def test_the_list_is_kept_for_the_version_that_it_is_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval import tasks

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "own").mkdir()
    write = {"task": "one", "dataset_path": "some/set", "test_split": "test", "output_type": "loglikelihood"}
    (tmp_path / "own" / "one.yaml").write_text(yaml.safe_dump(write))
    (tmp_path / "own" / "group.yaml").write_text(yaml.safe_dump({"group": "both", "task": ["one", {"task": "two"}]}))
    made: list[int] = []
    usual = tasks.TaskManager

    def small() -> Any:
        made.append(1)
        return usual(include_path=str(tmp_path / "own"), include_defaults=False)

    monkeypatch.setattr(tasks, "TaskManager", small)
    first = listing.tasks_of_lm_eval()
    assert first == {"one": Listed((), "some/set"), "both": Listed(("one", "two"), None)}
    assert listing.tasks_of_lm_eval() == first
    assert len(made) == 1
    listing.tasks_of_lm_eval(anew=True)
    monkeypatch.setattr(listing, "version", lambda _: "another")
    listing.tasks_of_lm_eval()
    assert len(made) == 3
