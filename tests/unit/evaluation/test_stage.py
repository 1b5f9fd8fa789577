"""The evaluation stage, with real models, against lm-eval's own command line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tamis.core.artifacts import Artifact, Manifest
from tamis.core.errors import MissingExtraError, ModelError, SettingsError, UnexpectedError
from tamis.core.settings import parse
from tamis.core.steps import Step
from tamis.core.tables import EVALUATION
from tamis.evaluation.settings import EvaluationSettings
from tamis.evaluation.stage import run
from tests.artifacts import NoSettings, make
from tests.unit.evaluation.benchmarks import read_lines
from tests.unit.evaluation.test_suite import DEMO, write_suite


def scores_in(out: Path) -> list[dict[str, Any]]:
    table = pq.read_table(out / "scores.parquet")
    assert table.schema == EVALUATION
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def evaluated(model: Path, out: Path, **values: Any) -> Manifest:
    return run(EvaluationSettings(model=str(model), **{"suite": str(DEMO / "suite.yaml")} | values), out=out)


@pytest.fixture
def artifact(tiny: Path, tmp_path: Path) -> Path:
    """A finished model called "ds2"."""

    def write(step: Step[NoSettings]) -> None:
        shutil.copytree(tiny, step.out, dirs_exist_ok=True)
        step.rows = 60

    make("model", tmp_path / "model", write, name="ds2")
    return tmp_path / "model"


def test_scores_and_answers_are_those_of_lm_eval_s_command_line(models: Path, tmp_path: Path) -> None:
    evaluated(models / "smollm2", tmp_path / "out", samples=8, batch_size=4)
    ours = {name: read_lines(tmp_path / "out" / f"samples_{name}.jsonl") for name in ("tamis_facts", "tamis_answers")}
    drawn = {name: [sample["doc_id"] for sample in samples] for name, samples in ours.items()}
    assert [len(rows) for rows in drawn.values()] == [8, 8]

    theirs_out = tmp_path / "theirs"
    expected = command_line(models / "smollm2", list(drawn), drawn, cwd=DEMO / "tasks", out=theirs_out)["results"]
    assert json.loads((tmp_path / "out/results.json").read_text())["results"] == expected
    for name, samples in ours.items():
        (file,) = (tmp_path / "theirs").rglob(f"samples_{name}_*.jsonl")
        theirs = {sample["doc_id"]: sample for sample in read_lines(file)}
        for sample in samples:
            assert sample["doc"] == theirs[sample["doc_id"]]["doc"]
            assert sample["prompt_hash"] == theirs[sample["doc_id"]]["prompt_hash"]
            assert stringified(sample["filtered_resps"]) == stringified(theirs[sample["doc_id"]]["filtered_resps"])

    facts, answers = scores_in(tmp_path / "out")
    assert (facts["value"], facts["stderr"]) == (
        expected["tamis_facts"]["acc,none"],
        expected["tamis_facts"]["acc_stderr,none"],
    )
    assert (answers["metric"], answers["value"]) == (
        "exact_match,first-line",
        expected["tamis_answers"]["exact_match,first-line"],
    )
    assert [(row["model"], row["task"], row["n"]) for row in (facts, answers)] == [
        ("base", "tamis_facts", 8),
        ("base", "tamis_answers", 8),
    ]
    assert facts["value"] > 0.4  # by chance: 0.25


def command_line(
    model: Path,
    tasks: list[str],
    samples: dict[str, list[int]],
    *,
    cwd: Path,
    out: Path,
    num_fewshot: int | None = None,
) -> dict[str, Any]:
    """What lm-eval's own command line gives for the rows `samples` of `tasks`, run in `cwd`."""
    command = f"-m lm_eval run --model hf --model_args pretrained={model},dtype=float32 --device cpu"
    command += f" --batch_size 4 --tasks {','.join(tasks)} --include_path . --seed 42 --log_samples --output_path {out}"
    command += "" if num_fewshot is None else f" --num_fewshot {num_fewshot}"
    arguments = [sys.executable, *command.split(), "--samples", json.dumps(samples)]
    ended = subprocess.run(arguments, check=False, cwd=cwd, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    (results,) = out.rglob("results_*.json")
    found: dict[str, Any] = json.loads(results.read_text())
    return found


def stringified(value: Any) -> Any:
    """Answers as lm-eval's own files hold them: numbers as text."""
    return [stringified(item) for item in value] if isinstance(value, list) else str(value)


def test_a_model_artifact_is_evaluated_under_its_name(artifact: Path, tmp_path: Path) -> None:
    manifest = run(
        EvaluationSettings(model="nowhere", suite=str(DEMO / "suite.yaml"), limit=2),
        model=artifact,
        out=tmp_path / "out",
    )
    assert (manifest.kind, manifest.name, manifest.rows) == ("evaluation", "ds2", 2)
    assert {row["model"] for row in scores_in(tmp_path / "out")} == {"ds2"}
    assert manifest.inputs["model"] == [Artifact.open(artifact, "model").manifest.content_hash]
    assert manifest.facts["tamis_facts"] == scores_in(tmp_path / "out")[0]["value"]


def test_a_limit_takes_the_first_of_each_task(tiny: Path, tmp_path: Path) -> None:
    evaluated(tiny, tmp_path / "out", limit=3)
    assert [row["n"] for row in scores_in(tmp_path / "out")] == [3, 3]
    assert [sample["doc_id"] for sample in read_lines(tmp_path / "out/samples_tamis_facts.jsonl")] == [0, 1, 2]


def test_equal_evaluations_give_equal_bytes_of_scores(tiny: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        evaluated(tiny, tmp_path / name, samples=5)
    one, two = ((tmp_path / name / "scores.parquet").read_bytes() for name in ("one", "two"))
    assert one == two


def test_changed_data_are_evaluated_anew(tiny: Path, tmp_path: Path) -> None:
    suite = write_suite(tmp_path)
    first = evaluated(tiny, tmp_path / "first", suite=str(suite), limit=1)
    data = tmp_path / "tasks/colours.jsonl"
    data.write_text(data.read_text().replace("blue", "green"))
    assert evaluated(tiny, tmp_path / "second", suite=str(suite), limit=1).key != first.key


def test_the_chat_template_is_applied_if_so_asked(tiny: Path, tmp_path: Path) -> None:
    evaluated(tiny, tmp_path / "out", limit=1, apply_chat_template=True)
    (sample,) = read_lines(tmp_path / "out/samples_tamis_answers.jsonl")
    prompt = sample["arguments"][0][0]
    assert prompt.count("<|im_start|>user") == 4  # three examples and the question
    assert prompt.endswith("<|im_start|>assistant\n")


@pytest.fixture
def plain(tiny: Path, tmp_path: Path) -> Path:
    """A base model: its tokenizer has no chat template."""
    base = shutil.copytree(tiny, tmp_path / "plain")
    (base / "chat_template.jinja").unlink()
    return base


def test_a_base_model_is_not_asked_in_a_chat_template_that_it_does_not_have(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tamis.evaluation.suite.load_entries", None)  # before any data are read
    with pytest.raises(SettingsError) as caught:
        evaluated(plain, tmp_path / "out", limit=1, apply_chat_template=True)
    assert caught.value.problem.startswith("evaluation.apply_chat_template")


def test_a_template_that_asks_for_the_date_gets_a_fixed_one(tiny: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny, tmp_path / "dated")
    template = base / "chat_template.jinja"
    template.write_text("{{ strftime_now('%Y-%m-%d') }} " + template.read_text())
    evaluated(base, tmp_path / "out", limit=1, apply_chat_template=True)
    (sample,) = read_lines(tmp_path / "out/samples_tamis_answers.jsonl")
    assert sample["arguments"][0][0].startswith("2024-07-26 ")


def test_answers_longer_than_the_model_are_refused_before_it_is_asked(tiny: Path, tmp_path: Path) -> None:
    generated = {"output_type": "generate_until", "generation_kwargs": {"max_gen_toks": 64, "until": ["."]}}
    metric = {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}
    task = generated | {"metric_list": [metric], "doc_to_choice": "choices"}
    suite = str(write_suite(tmp_path, task=task, tasks=[{"task": "colours", "metric": "exact_match"}]))
    with pytest.raises(SettingsError) as caught:
        evaluated(tiny, tmp_path / "out", suite=suite, limit=1, max_length=64)
    assert "max_gen_toks" in caught.value.action
    evaluated(tiny, tmp_path / "out", suite=suite, limit=1, max_length=128)


FAULTY = """
def results(doc, results):
    {}
"""


@pytest.mark.parametrize("fault", ["doc['nothing']", "assert False, 'no'", "raise ValueError('no number')"])
def test_what_ends_lm_eval_is_an_error_with_its_words_and_the_cell_s_alone(
    tiny: Path, tmp_path: Path, fault: str
) -> None:
    from kfp import dsl

    from tamis.core.failures import failure_in
    from tamis.evaluation.component import evaluate

    suite = str(write_suite(tmp_path))
    (tmp_path / "tasks/faulty.py").write_text(FAULTY.format(fault))
    with (tmp_path / "tasks/colours.yaml").open("a") as file:
        file.write("process_results: !function faulty.results\n")
    with pytest.raises(UnexpectedError) as caught:
        evaluated(tiny, tmp_path / "out", suite=suite, limit=1)
    assert "faulty.py" in caught.value.problem
    out = dsl.Dataset(uri=str(tmp_path / "cell"))
    out.name = "evaluation"
    settings = EvaluationSettings(model=str(tiny), suite=suite, limit=1).model_dump()
    evaluate.python_func(settings=settings, evaluation=out, metrics=dsl.Metrics(uri=str(tmp_path / "metrics")))
    failure = failure_in(tmp_path / "cell")
    assert failure is not None
    assert failure.code == "unexpected"


def test_a_model_that_is_nowhere_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere"):
        evaluated(tmp_path / "nowhere", tmp_path / "out", limit=1)
    assert not (tmp_path / "out").exists()


def test_what_only_vllm_knows_is_refused_elsewhere() -> None:
    for name, value in (("gpus", 2), ("gpu_memory_share", 0.5)):
        with pytest.raises(SettingsError, match=f"{name}.*backend: vllm"):
            parse(EvaluationSettings, {name: value}, where="test")
        assert parse(EvaluationSettings, {name: value, "backend": "vllm"}, where="test").backend == "vllm"


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed here")
def test_without_vllm_its_backend_names_what_to_install(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError) as caught:
        evaluated(tiny, tmp_path / "out", limit=1, backend="vllm")
    assert "tamis[vllm]" in caught.value.action
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
def test_vllm_answers_as_transformers_does(models: Path, tmp_path: Path) -> None:
    for backend, own in ("hf", {}), ("vllm", {"gpu_memory_share": 0.3}):
        out = tmp_path / backend
        evaluated(models / "smollm2", out, samples=12, backend=backend, max_length=1024, **own)
    one, other = (read_lines(tmp_path / backend / "samples_tamis_facts.jsonl") for backend in ("hf", "vllm"))
    for sample, again in zip(one, other, strict=True):
        assert sample["prompt_hash"] == again["prompt_hash"]
        first, second = ([float(answer[0]) for answer in s["filtered_resps"]] for s in (sample, again))
        assert first == pytest.approx(second, abs=0.05)
    facts = [scores_in(tmp_path / backend)[0]["value"] for backend in ("hf", "vllm")]
    assert facts[0] == pytest.approx(facts[1], abs=1 / 12)


def test_a_longer_prompt_than_the_limit_loses_its_start(
    tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = evaluated(tiny, tmp_path / "whole", limit=2)
    assert "Left truncation" not in caplog.text
    short = evaluated(tiny, tmp_path / "short", limit=2, max_length=64)
    assert "Left truncation applied" in caplog.text
    assert short.key != whole.key


def test_the_component_evaluates_the_base_and_reports(tiny: Path, tmp_path: Path) -> None:
    from kfp import dsl

    from tamis.evaluation.component import evaluate

    evaluation, metrics = dsl.Dataset(uri=str(tmp_path / "out")), dsl.Metrics(uri=str(tmp_path / "metrics"))
    settings = EvaluationSettings(model=str(tiny), suite=str(DEMO / "suite.yaml"), limit=2)
    evaluate.python_func(settings=settings.model_dump() | {"limit": 2.0}, evaluation=evaluation, metrics=metrics)
    assert (evaluation.metadata["name"], evaluation.metadata["rows"]) == ("base", 2)
    assert metrics.metadata["tamis_facts"] == scores_in(tmp_path / "out")[0]["value"]


def hub_rows(path: str, name: str | None) -> dict[str, list[dict[str, Any]]]:
    """Rows in the columns of the hub's data sets, which the tests cannot reach."""
    numbers = range(3)
    if path == "cais/mmlu":
        rows = [{"question": f"{i}+0?", "subject": name, "choices": list("0123"), "answer": i} for i in numbers]
        return {"test": rows, "dev": rows}
    if (path, name) == ("truthfulqa/truthful_qa", "generation"):
        answers = {"best_answer": "yes", "correct_answers": ["yes"], "incorrect_answers": ["no"]}
        return {"validation": [{"question": f"{i}?"} | answers for i in numbers]}
    if path == "truthfulqa/truthful_qa":
        targets = {"choices": ["yes", "no"], "labels": [1, 0]}
        return {"validation": [{"question": f"{i}?", "mc1_targets": targets, "mc2_targets": targets} for i in numbers]}
    if path == "openai/gsm8k":
        rows = [{"question": f"{i}+0?", "answer": f"It is {i}.\n#### {i}"} for i in numbers]
        return {"test": rows, "train": rows}
    if path == "SaylorTwift/bbh":
        return {"test": [{"input": f"{i}?", "target": str(i)} for i in numbers]}
    assert (path, name) == ("google-research-datasets/tydiqa", "secondary_task")
    languages = ("arabic", "bengali", "english", "finnish", "indonesian", "korean", "russian", "swahili", "telugu")
    rows = [
        {
            "id": f"{language}-{i}",
            "title": "t",
            "context": f"It is {i}.",
            "question": "What?",
            "answers": {"text": [str(i)], "answer_start": [6]},
        }
        for language in languages
        for i in numbers
    ]
    return {"train": rows, "validation": rows}


def test_the_paper_s_suite_gives_its_headlines(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def from_rows(path: str, name: str | None = None, **_: Any) -> datasets.DatasetDict:
        splits = hub_rows(path, name).items()
        return datasets.DatasetDict({split: datasets.Dataset.from_list(rows) for split, rows in splits})

    monkeypatch.setattr(datasets, "load_dataset", from_rows)
    evaluated(tiny, tmp_path / "out", suite="paper", samples=1, batch_size=16)
    scores = scores_in(tmp_path / "out")
    assert {row["task"]: row["n"] for row in scores} == {
        "mmlu": 57,
        "truthfulqa_mc2": 1,
        "truthfulqa_gen": 1,
        "gsm8k_cot": 1,
        "bbh": 27,
        "tydiqa_goldp_mean": 9,
    }
    assert all(0 <= row["value"] <= 1 for row in scores)
    shots = json.loads((tmp_path / "out/results.json").read_text())["n-shot"]
    used = [shots[name] for name in ("mmlu_anatomy", "gsm8k_cot", "bbh_cot_fewshot_navigate", "tydiqa_goldp_sw")]
    assert used == [0, 8, 3, 1]
    about = json.loads((tmp_path / "out/suite.json").read_text())
    assert (about["name"], about["version"]) == ("paper", "2")
    assert [task["num_fewshot"] for task in about["tasks"]] == [0, 0, 0, 8, 3, 1]
    assert [task["task"] for task in about["tasks"] if not task["in_mean"]] == ["truthfulqa_gen"]
    assert all(task["differs"] for task in about["tasks"])
