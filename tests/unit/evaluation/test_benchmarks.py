"""The five benchmarks of the paper's suite on their real questions, against lm-eval's own command line."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from tamis.evaluation.settings import EvaluationSettings
from tamis.evaluation.stage import run
from tamis.evaluation.suite import SUITES
from tests.conftest import shared_data
from tests.unit.evaluation.benchmarks import LANGUAGES, lay_out, read_lines
from tests.unit.evaluation.test_stage import command_line, scores_in, stringified

SMALL = {"mmlu": "mmlu_anatomy", "bbh": "bbh_cot_fewshot_navigate", "tydiqa_goldp_mean": "tydiqa_goldp_en"}


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lay_out(shared_data("eval"), tmp_path_factory.mktemp("benchmarks"))


def suite(folder: Path, replaced: dict[str, list[str]], **lines: Any) -> Path:
    """The paper's suite with other tasks in place of groups, and `lines` over each of its lines."""
    paper = yaml.safe_load((SUITES / "paper.yaml").read_text())
    tasks = [
        line | {"task": name} | lines for line in paper["tasks"] for name in replaced.get(line["task"], [line["task"]])
    ]
    file = folder / "suite.yaml"
    file.write_text(yaml.safe_dump({"version": "1", "tasks": tasks}))
    return file


def check(model: Path, suite_file: Path, benchmarks: Path, out: Path) -> list[dict[str, Any]]:
    """Evaluate by Tamis and by lm-eval's command line; metrics, prompts and answers are equal. Returns scores."""
    settings = EvaluationSettings(model=str(model), suite=str(suite_file), data_dir=str(benchmarks), batch_size=4)
    run(settings, out=out / "ours")
    ours = json.loads((out / "ours/results.json").read_text())
    files = {file.stem.removeprefix("samples_"): read_lines(file) for file in (out / "ours").glob("samples_*.jsonl")}
    drawn = {name: [sample["doc_id"] for sample in samples] for name, samples in files.items()}
    # Without a number, the tasks of lm-eval have the suite's numbers of examples, but for TyDiQA.
    tasks = [line["task"] for line in yaml.safe_load(suite_file.read_text())["tasks"]]
    for number, named in ((None, [t for t in tasks if "tydiqa" not in t]), (1, [t for t in tasks if "tydiqa" in t])):
        asked = {name: rows for name, rows in drawn.items() if name.startswith(tuple(named))}
        theirs = command_line(model, named, asked, cwd=benchmarks, out=out / f"theirs-{number}", num_fewshot=number)
        for task in theirs["results"]:
            assert ours["results"][task] == theirs["results"][task], task
        for name in asked:
            (file,) = (out / f"theirs-{number}").rglob(f"samples_{name}_*.jsonl")
            other = {(sample["doc_id"], sample["filter"]): sample for sample in read_lines(file)}
            for sample in files[name]:
                again = other[sample["doc_id"], sample["filter"]]
                assert sample["prompt_hash"] == again["prompt_hash"], name
                assert stringified(sample["filtered_resps"]) == stringified(again["filtered_resps"]), name
    return scores_in(out / "ours")


@pytest.mark.skipif(
    "TAMIS_TEST_BENCHMARKS" not in os.environ, reason="takes more than a minute; TAMIS_TEST_BENCHMARKS=1 runs it"
)
def test_one_task_of_each_benchmark_on_a_small_model(tiny: Path, benchmarks: Path, tmp_path: Path) -> None:
    file = suite(tmp_path, {group: [task] for group, task in SMALL.items()}, samples=2)
    scores = check(tiny, file, benchmarks, tmp_path)
    assert [(row["task"], row["n"]) for row in scores] == [
        ("mmlu_anatomy", 2),
        ("truthfulqa_mc2", 2),
        ("truthfulqa_gen", 2),
        ("gsm8k_cot", 2),
        ("bbh_cot_fewshot_navigate", 2),
        ("tydiqa_goldp_en", 2),
    ]
    questions = [row["question"] for row in read_lines(shared_data("eval", "gsm8k", "test.jsonl"))]
    drawn = sorted(random.Random(42).sample(range(len(questions)), 2))
    asked = read_lines(tmp_path / "ours/samples_gsm8k_cot.jsonl")
    assert list(dict.fromkeys(sample["doc"]["question"] for sample in asked)) == [questions[row] for row in drawn]


@pytest.mark.skipif(
    "TAMIS_TEST_BENCHMARKS" not in os.environ, reason="takes about an hour; TAMIS_TEST_BENCHMARKS=1 runs it"
)
@pytest.mark.timeout(7200)
def test_all_five_benchmarks_on_a_real_model(models: Path, benchmarks: Path, tmp_path: Path) -> None:
    languages = [f"tydiqa_goldp_{code}" for code in LANGUAGES]
    file = suite(tmp_path, {"tydiqa_goldp_mean": languages}, samples=1)
    scores = check(models / "smollm2", file, benchmarks, tmp_path)
    assert {row["task"]: row["n"] for row in scores} == {
        "mmlu": 57,
        "truthfulqa_mc2": 1,
        "truthfulqa_gen": 1,
        "gsm8k_cot": 1,
        "bbh": 27,
        **dict.fromkeys(languages, 1),
    }
