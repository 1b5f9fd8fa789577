"""Suites: what they name, what is drawn, what is refused."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from tamis.core.errors import InputError, SettingsError
from tamis.core.settings import parse
from tamis.evaluation import outside
from tamis.evaluation.checks import check_room
from tamis.evaluation.settings import EvaluationSettings
from tamis.evaluation.suite import SUITES, Entry, draw, index_of, load_entries, open_suite

DEMO = Path(__file__).parents[3] / "components/tamis/demo"
COLOURS = [{"question": f"Colour number {i}?", "choices": ["red", "blue"], "answer": i % 2} for i in range(30)]


def write_suite(folder: Path, *, task: dict[str, Any] | None = None, **suite: Any) -> Path:
    """A suite with one own task, "colours" of thirty rows, in `folder`; returns the suite's file."""
    tasks = folder / "tasks"
    tasks.mkdir(parents=True, exist_ok=True)
    (tasks / "colours.jsonl").write_text("".join(json.dumps(row) + "\n" for row in COLOURS))
    own = {
        "task": "colours",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": "colours.jsonl"}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    }
    (tasks / "colours.yaml").write_text(yaml.safe_dump(own | (task or {})))
    lines = {"version": "1", "include_path": "tasks", "tasks": [{"task": "colours", "metric": "acc"}]} | suite
    (folder / "suite.yaml").write_text(yaml.safe_dump(lines))
    return folder / "suite.yaml"


def entries_of(file: Path, **values: Any) -> list[Entry]:
    suite, places = open_suite(EvaluationSettings(suite=str(file), **values))
    return load_entries(index_of(suite, places), suite, places)


@pytest.mark.parametrize("name", ["quick", "paper"])
def test_the_shipped_suites_are_whole(name: str) -> None:
    suite, places = open_suite(EvaluationSettings(suite=name))
    assert places.file == SUITES / f"{name}.yaml"
    assert suite.tasks[0].task == "mmlu"
    assert len(suite.notes) > 100


def test_the_quick_suite_asks_less_of_the_paper_s_tasks_and_nothing_else() -> None:
    quick, paper = (open_suite(EvaluationSettings(suite=name))[0] for name in ("quick", "paper"))
    lines = {(line.task, line.metric, line.num_fewshot): line.samples for line in paper.tasks}
    for line in quick.tasks:
        whole = lines[line.task, line.metric, line.num_fewshot]
        assert line.samples is not None
        assert whole is None or line.samples < whole


def test_the_demo_s_questions_are_distinct_and_their_right_answers_evenly_spread() -> None:
    rows = [json.loads(line) for line in (DEMO / "tasks/tamis_facts.jsonl").read_text().splitlines()]
    assert len({row["question"] for row in rows}) == len(rows) == 60
    assert all(len(set(row["choices"])) == 4 for row in rows)
    assert Counter(row["answer"] for row in rows) == {0: 15, 1: 15, 2: 15, 3: 15}


def test_a_suite_s_own_tasks_are_loaded_with_its_number_of_examples(tmp_path: Path) -> None:
    (entry,) = entries_of(write_suite(tmp_path, tasks=[{"task": "colours", "metric": "acc", "num_fewshot": 2}]))
    assert (entry.name, entry.tasks[0].config.num_fewshot, len(entry.tasks[0].eval_docs)) == ("colours", 2, 30)


def test_data_can_lie_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = write_suite(tmp_path / "suite")
    (tmp_path / "data").mkdir()
    (tmp_path / "suite/tasks/colours.jsonl").rename(tmp_path / "data/colours.jsonl")
    with pytest.raises(InputError, match="'colours'"):
        entries_of(suite)
    monkeypatch.chdir(tmp_path)
    (entry,) = entries_of(suite, data_dir="data")
    assert entry.tasks[0].eval_docs[1]["choices"] == ["red", "blue"]
    assert Path.cwd() == tmp_path


def test_the_drawn_rows_are_those_of_random_sample_in_ascending_order(tmp_path: Path) -> None:
    suite = write_suite(tmp_path, tasks=[{"task": "colours", "metric": "acc", "samples": 7}])
    entries = entries_of(suite)
    drawn = draw(entries, EvaluationSettings(seed=42))
    assert drawn == {"colours": sorted(random.Random(42).sample(range(30), 7))}
    assert draw(entries, EvaluationSettings(seed=43)) != drawn
    assert len(draw(entries, EvaluationSettings(samples=3))["colours"]) == 3
    assert draw(entries, EvaluationSettings(samples=30)) == {}


@pytest.mark.parametrize(
    ("lines", "seen"),
    [
        ([{"task": "colour", "metric": "acc"}], "'colour'[\\s\\S]*colours"),
        ([{"task": "colours", "metric": "f1"}], "'f1,none'[\\s\\S]*acc,none"),
        ([{"task": "colours", "metric": "acc,strict"}], "'acc,strict'"),
    ],
)
def test_an_unknown_task_or_metric_is_refused_before_the_work(
    tmp_path: Path, lines: list[dict[str, str]], seen: str
) -> None:
    with pytest.raises(SettingsError, match=seen):
        entries_of(write_suite(tmp_path, tasks=lines))


GENERATED = {
    "output_type": "generate_until",
    "doc_to_choice": None,
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}
EXACT = {"tasks": [{"task": "colours", "metric": "exact_match"}]}


@pytest.mark.parametrize(
    "task",
    [
        {"doc_to_target": "anwser"},
        {"doc_to_text": "qestion"},
        {"doc_to_choice": "choicess"},
        {"doc_to_target": "{{anwser}}"},
        {"doc_to_text": "{{qestion}}"},
        {"doc_to_choice": "{{choicess}}"},
        {"doc_to_target": "question"},  # there, but none of the choices
        {"doc_to_target": "{{answer + 2}}"},
        {"doc_to_target": -1},
        {"doc_to_target": [0, 2]},
        {"test_split": "tset"},
        {"fewshot_split": "train"},
        GENERATED | {"doc_to_target": "anwser"},
        GENERATED | {"doc_to_target": "nothing"},
    ],
)
def test_a_task_whose_data_lack_what_it_names_is_refused_before_the_work(tmp_path: Path, task: dict[str, Any]) -> None:
    task = {name: value for name, value in task.items() if value is not None}
    file = write_suite(tmp_path, task=task, **(EXACT if "output_type" in task else {}))
    if "output_type" in task:
        own = yaml.safe_load((tmp_path / "tasks/colours.yaml").read_text())
        (tmp_path / "tasks/colours.yaml").write_text(
            yaml.safe_dump({k: v for k, v in own.items() if k != "doc_to_choice"})
        )
    rows = [row | {"nothing": None} for row in COLOURS]
    (tmp_path / "tasks/colours.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(SettingsError) as caught:
        entries_of(file)
    assert caught.value.code == "settings"
    assert "colours" in caught.value.problem


@pytest.mark.parametrize(
    "task",
    [
        {"doc_to_target": "{{choices[answer]}}"},
        {"doc_to_target": 1},
        {"doc_to_target": [0, 1]},
        {"doc_to_target": "{{answer}}", "doc_to_choice": ["red", "blue"]},
        {"doc_to_text": "Which colour?"},
    ],
)
def test_the_ways_to_name_a_right_answer_pass(tmp_path: Path, task: dict[str, Any]) -> None:
    assert len(entries_of(write_suite(tmp_path, task=task))) == 1


@pytest.mark.parametrize(
    ("settings", "context", "fits"),
    [({}, 257, True), ({}, 256, False), ({"max_gen_toks": 64}, 64, False), ({"max_new_tokens": 64}, 65, True)],
)
def test_answers_that_leave_no_room_for_a_question_are_refused(
    settings: dict[str, Any], context: int, fits: bool
) -> None:
    if fits:
        check_room("colours", settings, context, Path("suite.yaml"))
    else:
        with pytest.raises(SettingsError):
            check_room("colours", settings, context, Path("suite.yaml"))


@pytest.mark.parametrize(
    ("suite", "seen"),
    [
        ({"tasks": []}, "suite.yaml[\\s\\S]*tasks"),
        ({"tasks": [{"task": "colours"}]}, "tasks.0.metric"),
        ({"tasks": [{"task": "colours", "metric": "acc", "shots": 2}]}, "tasks.0.shots"),
        ({"include_path": "elsewhere"}, "suite.yaml.*elsewhere"),
        ({"data_dir": "nowhere"}, "suite.yaml.*nowhere"),
    ],
)
def test_a_wrong_suite_is_refused(tmp_path: Path, suite: dict[str, Any], seen: str) -> None:
    with pytest.raises(SettingsError, match=seen):
        open_suite(EvaluationSettings(suite=str(write_suite(tmp_path, **suite))))


def test_a_suite_that_is_not_there_is_refused() -> None:
    with pytest.raises(SettingsError, match="'fast'") as caught:
        open_suite(EvaluationSettings(suite="fast"))
    assert "paper, quick" in caught.value.allowed


def test_limit_and_samples_exclude_each_other() -> None:
    with pytest.raises(SettingsError, match=r"limit.*samples"):
        parse(EvaluationSettings, {"limit": 3, "samples": 3}, where="test")


@pytest.mark.parametrize("how", ["absolute", "relative", "pattern", "folder", "include"])
def test_data_outside_the_suite_s_folders_are_noticed(tmp_path: Path, how: str) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    told: dict[str, dict[str, Any]] = {
        "absolute": {"dataset_kwargs": {"data_files": {"test": str(other / "c.jsonl")}}},
        "relative": {"dataset_kwargs": {"data_files": {"test": ["../../elsewhere/c.jsonl"]}}},
        "pattern": {"dataset_kwargs": {"data_files": "../../elsewhere/*.jsonl"}},
        "folder": {"dataset_path": str(other), "dataset_kwargs": {}},
        "include": {"include": "../../elsewhere/c.jsonl"},
    }
    suite = write_suite(tmp_path / "suite", task=told[how])
    places = open_suite(EvaluationSettings(suite=str(suite)))[1]
    seen = []
    for text in ("{}\n", "{ }\n"):
        (other / "c.jsonl").write_text(text)
        seen.append(outside.fingerprints(places))
    assert len(seen[0]) == 1
    assert seen[0] != seen[1]


def test_data_in_the_suite_s_folders_and_tags_of_lm_eval_add_nothing_to_the_key(tmp_path: Path) -> None:
    suite = write_suite(tmp_path)
    with (tmp_path / "tasks/colours.yaml").open("a") as file:
        file.write("process_docs: !function helpers.process\n")
    places = open_suite(EvaluationSettings(suite=str(suite)))[1]
    assert outside.fingerprints(places) == {}
