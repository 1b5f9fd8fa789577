"""What is found out of models and tasks before a run, without weights."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tamis.core.errors import TamisError
from tests.pipeline.conftest import write, write_settings
from tests.unit.evaluation.test_suite import write_suite

pytest.importorskip("kfp")


@pytest.fixture
def settings(tiny: Path, tmp_path: Path) -> dict[str, Any]:
    """Settings of a run that trains the tiny model and asks it the suite's own task."""
    found: dict[str, Any] = yaml.safe_load(write_settings(tmp_path, tmp_path).read_text())
    suite = write_suite(tmp_path / "suite")
    trained = {"finetuning": {"model": str(tiny)}, "evaluation": {"suite": str(suite)}}
    return found | {"embedding": {"model": "some/embedder"}} | trained


def looked_at(folder: Path, settings: dict[str, Any]) -> dict[str, str | TamisError]:
    from tamis_pipelines.checks.trainable import looked_at
    from tamis_pipelines.settings import load_run

    return dict(looked_at(load_run(write(folder, settings), ())))


def test_what_fits_is_said(settings: dict[str, Any], tiny: Path, tmp_path: Path) -> None:
    found = looked_at(tmp_path, settings)
    assert list(found) == [f"{tiny}: tokenizer", f"{tiny}: LoRA", "evaluation.suite: its tasks"]
    assert not [problem for problem in found.values() if isinstance(problem, TamisError)]


def test_all_that_does_not_fit_is_found_in_one_go(settings: dict[str, Any], tiny: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    base = shutil.copytree(tiny, tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.save_pretrained(base)
    (base / "chat_template.jinja").unlink()
    settings["finetuning"] = {"model": str(base), "lora": {"targets": ["lm_head"]}}
    suite = write_suite(tmp_path / "other", task={"doc_to_target": "anwser"})
    settings["evaluation"] = {"suite": str(suite), "apply_chat_template": True}
    found = looked_at(tmp_path, settings)
    codes = {where: problem.code for where, problem in found.items() if isinstance(problem, TamisError)}
    assert codes == {
        f"{base}: tokenizer": "model",
        f"{base}: LoRA": "settings",
        "evaluation.apply_chat_template": "settings",
        "evaluation.suite: its tasks": "settings",
    }


def test_models_that_answer_or_score_are_looked_at_as_those_that_are_trained(
    settings: dict[str, Any], tiny: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(tiny, tmp_path / "base")
    (base / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content + 1 }}{% endfor %}")
    small = shutil.copytree(tiny, tmp_path / "small")
    config = (small / "config.json").read_text()
    (small / "config.json").write_text(config.replace('"vocab_size": 49152', '"vocab_size": 49000'))
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Why?"}\n')
    model = {"kind": "model", "model": str(base)}
    settings["raters"] = [
        *settings["raters"],
        {"name": "broken", "backend": {"kind": "transformers", "model": str(base)}},
        {"name": "small", "backend": {"kind": "transformers", "model": str(small)}},
    ]
    settings["judging"] = {
        "prompts": [{"name": "p", "path": str(tmp_path / "prompts.jsonl")}],
        "judge": {"backend": {"kind": "transformers", "model": str(tiny)}},
        "against": model | {"format": "tulu"},
        "opponents": {"other": model},
    }
    settings["subsets"] = [{"name": "d", "strategy": "deita", "size": 5}]
    settings["deita"] = {"measure": {"complexity_model": str(small), "quality_model": str(tiny)}}
    found = looked_at(tmp_path, settings)
    codes = {where: problem.code for where, problem in found.items() if isinstance(problem, TamisError)}
    assert codes == {
        "raters.broken.backend: tokenizer": "model",
        "judging.opponents.other: tokenizer": "model",
    }
    for where in ("raters.small.backend", "deita.complexity_model"):
        assert re.search(r"49,152 tokens.*\b152 are not", str(found[f"{where}: tokenizer"]))
    for where in ("judging.judge.backend", "judging.against", "deita.quality_model"):
        assert re.match(r"49,152 tokens, all\b", str(found[f"{where}: tokenizer"]))


@pytest.mark.parametrize(
    "task",
    [
        {"test_split": "tset"},
        {
            "output_type": "generate_until",
            "generation_kwargs": {"max_gen_toks": 4096},
            "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        },
    ],
)
def test_a_task_s_split_and_the_length_of_its_answers_are_looked_at(
    settings: dict[str, Any], tmp_path: Path, task: dict[str, Any]
) -> None:
    metric = "exact_match" if "output_type" in task else "acc"
    suite = write_suite(tmp_path / "other", task=task, tasks=[{"task": "colours", "metric": metric}])
    found = looked_at(tmp_path, settings | {"evaluation": {"suite": str(suite)}})["evaluation.suite: its tasks"]
    assert isinstance(found, TamisError)
    assert found.code == "settings"


def test_a_run_looks_again_only_where_models_are_missing(settings: dict[str, Any], tmp_path: Path) -> None:
    from tamis_pipelines.doctor import examine
    from tamis_pipelines.settings import load_run

    parsed = load_run(
        write(tmp_path, settings | {"finetuning": {**settings["finetuning"], "lora": {"targets": ["x"]}}}), ()
    )
    assert [check.what for check in examine(parsed, quick=True) if check.what.endswith("LoRA") and not check.passed]
    for cell in parsed.cells:
        (parsed.results / "models" / cell.name).mkdir(parents=True)
    assert not [check for check in examine(parsed, quick=True) if check.what.endswith("LoRA")]
    assert [check for check in examine(parsed) if check.what.endswith("LoRA")]
