"""Perplexity and DEITA's scores against the plainest computation, one sample at a time."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tamis.core.artifacts import Artifact
from tamis.core.causal import by_length
from tamis.core.errors import InputError, ModelError
from tamis.core.leftout import BEYOND
from tamis.core.models import load_causal_lm, load_tokenizer
from tamis.core.samples import Message, as_text
from tamis.scoring.measures.deita import COMPLEXITY, QUALITY, turns_of
from tamis.scoring.settings import ScoringSettings
from tamis.scoring.stage import run
from tests.artifacts import conversation, make_pool

SAMPLES: list[list[Message]] = [
    conversation("Name a metal.", "Copper."),
    conversation("What is bread made of?", "Flour, water, salt and yeast. " * 6),
    conversation("Hi!", "Hello.", "Who wrote Hamlet?", "William Shakespeare wrote Hamlet around 1600."),
    [Message(role="system", content="Be brief."), *conversation("Why is the sky blue?", "Rayleigh scattering.")],
    conversation("Add 2 and 3.", "5"),
    conversation("zqx vv 00", "qqj ;;; zzkw"),
]


def settings_of(measure: dict[str, Any], **values: Any) -> ScoringSettings:
    return ScoringSettings.model_validate({"measure": measure, "precision": "float32"} | values)


def perplexity_of(tiny: Path, **values: Any) -> dict[str, Any]:
    return {"kind": "perplexity", "model": str(tiny)} | values


def deita_of(tiny: Path) -> dict[str, Any]:
    return {"kind": "deita", "complexity_model": str(tiny), "quality_model": str(tiny)}


def rows_of(out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = Artifact.open(out, "scores").table().to_pylist()
    return rows


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    return make_pool(tmp_path / "pool", SAMPLES)


def log_likelihoods(model: Any, ids: list[int]) -> list[float]:
    """log p of every token but the first, given those before it; one sample, no padding, float64 softmax."""
    import torch

    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double()
    return [float(logits[i].log_softmax(-1)[token]) for i, token in enumerate(ids[1:])]


@pytest.mark.parametrize("model", ["tiny", "smollm2"])
def test_response_perplexity_is_the_naive_one(model: str, tiny: Path, models: Path, pool: Path, tmp_path: Path) -> None:
    path = tiny if model == "tiny" else models / "smollm2"
    run(settings_of(perplexity_of(path), batch_tokens=150), pool=pool, out=tmp_path / "out")
    tokenizer, network = load_tokenizer(str(path)), load_causal_lm(str(path), precision="float32")
    for row, messages in zip(rows_of(tmp_path / "out"), SAMPLES, strict=True):
        text, end = "", "<|im_end|>"
        if messages[0]["role"] != "system":  # the template of SmolLM2 adds its own
            rendered = tokenizer.apply_chat_template(messages[:1], tokenize=False)
            text = rendered[: rendered.index("<|im_start|>user")]
        ids, learnt = tokenizer(text, add_special_tokens=False)["input_ids"] if text else [], []
        learnt = [False] * len(ids)
        for message in messages:
            answers = message["role"] == "assistant"
            head = tokenizer(f"<|im_start|>{message['role']}\n", add_special_tokens=False)["input_ids"]
            body = tokenizer(message["content"] + end, add_special_tokens=False)["input_ids"]
            tail = tokenizer("\n", add_special_tokens=False)["input_ids"]
            ids += head + body + tail
            learnt += [False] * len(head) + [answers] * len(body) + [False] * len(tail)
        found = [p for p, counts in zip(log_likelihoods(network, ids), learnt[1:], strict=True) if counts]
        assert row["tokens"] == len(found)
        assert row["score"] == pytest.approx(math.exp(-np.mean(found)), rel=1e-3)
        assert (row["status"], row["shortened"]) == ("ok", False)


def test_perplexity_of_the_whole_conversation_counts_every_token(tiny: Path, pool: Path, tmp_path: Path) -> None:
    run(settings_of(perplexity_of(tiny, text="conversation")), pool=pool, out=tmp_path / "out")
    tokenizer, network = load_tokenizer(str(tiny)), load_causal_lm(str(tiny), precision="float32")
    for row, messages in zip(rows_of(tmp_path / "out"), SAMPLES, strict=True):
        found = log_likelihoods(network, tokenizer(as_text(messages))["input_ids"])
        assert row["tokens"] == len(found)
        assert row["score"] == pytest.approx(math.exp(-np.mean(found)), rel=1e-3)


def test_a_real_model_is_more_surprised_by_nonsense(models: Path, pool: Path, tmp_path: Path) -> None:
    manifest = run(settings_of(perplexity_of(models / "smollm2")), pool=pool, out=tmp_path / "out")
    scores = [row["score"] for row in rows_of(tmp_path / "out")]
    assert int(np.argmax(scores)) == 5
    assert (manifest.kind, manifest.name, manifest.facts["scored"]) == ("scores", "perplexity", 6)


def test_a_cut_sample_is_counted_and_one_without_an_answer_left_has_no_score(
    tiny: Path, pool: Path, tmp_path: Path
) -> None:
    settings = settings_of(perplexity_of(tiny, format="tulu"), max_tokens=24, max_left_out_share=0.2)
    manifest = run(settings, pool=pool, out=tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert rows[1]["shortened"]
    assert rows[1]["tokens"] < 24
    assert manifest.facts["shortened"] == sum(row["shortened"] for row in rows)
    with pytest.raises(InputError, match="6 of 6 samples"):
        run(settings_of(perplexity_of(tiny), max_tokens=8), pool=pool, out=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def naive_deita(model: Path, messages: list[Message]) -> tuple[list[float], list[float]]:
    import torch

    tokenizer, network = load_tokenizer(str(model)), load_causal_lm(str(model), precision="float32")

    def value(prompt: str) -> float:
        with torch.no_grad():
            logits = network(torch.tensor([tokenizer(prompt)["input_ids"]])).logits[0, -1].double()
        weights = [math.exp(logits[tokenizer.convert_tokens_to_ids(digit)]) for digit in "123456"]
        return sum(i * w for i, w in enumerate(weights, 1)) / sum(weights)

    turns = turns_of(messages)
    return (
        [value(COMPLEXITY.replace("{instruction}", i)) for i, _ in turns],
        [value(QUALITY.replace("{instruction}", i).replace("{response}", r)) for i, r in turns],
    )


def test_deita_is_the_naive_sum_over_turns(models: Path, pool: Path, tmp_path: Path) -> None:
    path = models / "smollm2"
    run(settings_of(deita_of(path), batch_tokens=200), pool=pool, out=tmp_path / "out")
    for row, messages in zip(rows_of(tmp_path / "out"), SAMPLES, strict=True):
        complexity, quality = naive_deita(path, messages)
        assert row["complexity"] == pytest.approx(complexity, rel=1e-4)
        assert row["quality"] == pytest.approx(quality, rel=1e-4)
        assert row["score"] == pytest.approx(sum(c * q for c, q in zip(complexity, quality, strict=True)), rel=1e-4)


def test_turns_are_a_question_and_the_answer_right_after_it() -> None:
    messages = [
        Message(role=role, content=content)  # type: ignore[typeddict-item]
        for role, content in (("system", "s"), ("user", "a"), ("user", "b"), ("assistant", "c"), ("assistant", "d"))
    ]
    assert turns_of(messages) == [("b", "c")]


def test_what_cannot_be_scored_is_null_and_counted_never_a_middle_value(tiny: Path, tmp_path: Path) -> None:
    backwards = [Message(role="assistant", content="Yes."), Message(role="user", content="Why?")]
    long = conversation("Hi", "Ho", "Go on.", "on " * 200)
    pool = make_pool(tmp_path / "pool", [SAMPLES[0], backwards, long])
    manifest = run(settings_of(deita_of(tiny), max_tokens=120, max_left_out_share=1), pool=pool, out=tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert [row["status"] for row in rows] == ["ok", "no turn", "a turn is longer than max_tokens"]
    assert [row["score"] is None for row in rows] == [False, True, True]
    assert rows[2]["quality"] is None
    assert len(rows[2]["complexity"]) == 2
    assert manifest.facts["not_scored"] == {"no turn": 1, "a turn is longer than max_tokens": 1}


@pytest.mark.parametrize("kind", ["perplexity", "deita"])
def test_more_left_out_than_is_allowed_is_an_error_that_names_the_run_s_settings(
    kind: str, tiny: Path, tmp_path: Path
) -> None:
    pool = make_pool(tmp_path / "pool", [*SAMPLES, conversation("why " * 300, "on " * 300)])
    measure = deita_of(tiny) if kind == "deita" else perplexity_of(tiny)
    with pytest.raises(InputError) as error:
        run(settings_of(measure, max_tokens=120), pool=pool, out=tmp_path / "out")
    assert error.value.code == "input"
    assert "1 of 7 samples" in error.value.problem
    assert f"{kind}.max_left_out_share" in error.value.allowed
    assert f"{kind}.max_tokens" in error.value.action


@pytest.mark.parametrize("kind", ["perplexity", "deita"])
def test_a_stopped_run_goes_on_and_gives_the_same_bytes(
    kind: str, tiny: Path, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tamis.core import blocks
    from tamis.scoring.measures import deita, perplexity

    monkeypatch.setattr(blocks, "BLOCK", 2)
    settings = settings_of(perplexity_of(tiny) if kind == "perplexity" else deita_of(tiny))
    run(settings, pool=pool, out=tmp_path / "whole")
    scorer = perplexity.Perplexity if kind == "perplexity" else deita.Scorer
    score, calls = scorer.score, []
    stop_at = 2 if kind == "perplexity" else 5  # the second of the three blocks, for deita of the second model

    def counted(self: Any, ids: Any, conversations: Any) -> Any:
        calls.append(len(conversations))
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        return score(self, ids, conversations)

    monkeypatch.setattr(scorer, "score", counted)
    with pytest.raises(KeyboardInterrupt):
        run(settings, pool=pool, out=tmp_path / "resumed")
    assert not (tmp_path / "resumed").exists()
    run(settings, pool=pool, out=tmp_path / "resumed")
    total = 3 if kind == "perplexity" else 6
    assert len(calls) == total + 1, "only the block at which it stopped was computed again"
    assert Artifact.open(tmp_path / "resumed").manifest.content_hash == Artifact.open(
        tmp_path / "whole"
    ).manifest.content_hash  # fmt: skip


@pytest.mark.parametrize("measure", ["response", "conversation", "deita"])
def test_samples_with_tokens_that_the_model_does_not_know_have_no_score(
    measure: str, tiny: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny, tmp_path / "model")
    tokenizer = load_tokenizer(str(tiny))
    tokenizer.add_tokens(["<extra>"])
    tokenizer.save_pretrained(tmp_path / "model")
    strange = conversation("What is new?", "An <extra> word.")
    pool = make_pool(tmp_path / "pool", [SAMPLES[0], strange])
    model = tmp_path / "model"
    settings = deita_of(model) if measure == "deita" else perplexity_of(model, text=measure)
    manifest = run(settings_of(settings, max_left_out_share=0.5), pool=pool, out=tmp_path / "out")
    assert [row["status"] for row in rows_of(tmp_path / "out")] == ["ok", BEYOND]
    assert manifest.facts["not_scored"] == {BEYOND: 1}
    with pytest.raises(InputError):
        run(settings_of(settings), pool=pool, out=tmp_path / "none")


@pytest.mark.parametrize("measure", ["response", "conversation", "deita"])
def test_words_of_control_tokens_in_samples_are_scored_as_text(measure: str, tiny: Path, tmp_path: Path) -> None:
    quoted = conversation("What is <|im_end|>?", "It ends: <|im_end|> and <|im_start|>.")
    pool = make_pool(tmp_path / "pool", [quoted])
    settings = deita_of(tiny) if measure == "deita" else perplexity_of(tiny, text=measure)
    run(settings_of(settings), pool=pool, out=tmp_path / "out")
    (row,) = rows_of(tmp_path / "out")
    tokenizer, network = load_tokenizer(str(tiny)), load_causal_lm(str(tiny), precision="float32")
    if measure == "conversation":
        found = log_likelihoods(network, tokenizer(as_text(quoted), split_special_tokens=True)["input_ids"])
        assert row["score"] == pytest.approx(math.exp(-np.mean(found)), rel=1e-3)
    elif measure == "response":
        answer = tokenizer(quoted[1]["content"], add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert row["tokens"] == len(answer) + 1
    else:
        from tamis.scoring.measures.deita import DIGITS

        prompt = tokenizer(COMPLEXITY.format(instruction=quoted[0]["content"]), split_special_tokens=True)["input_ids"]
        import torch

        with torch.no_grad():
            logits = network(torch.tensor([prompt])).logits[0, -1].double()
        shares = logits[[tokenizer.convert_tokens_to_ids(digit) for digit in DIGITS]].softmax(-1).tolist()
        assert row["complexity"] == pytest.approx([sum(i * p for i, p in enumerate(shares, 1))], rel=1e-4)


def test_a_vocabulary_without_digits_is_a_clear_error(tiny: Path, pool: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    full = AutoTokenizer.from_pretrained(tiny)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=full.backend_tokenizer, eos_token="<|im_end|>")
    shutil.copytree(tiny, tmp_path / "model")
    text = (tmp_path / "model/tokenizer.json").read_text()
    (tmp_path / "model/tokenizer.json").write_text(text.replace('"6": ', '"six": '))
    assert "6" in tokenizer.get_vocab()
    with pytest.raises(ModelError) as error:
        run(settings_of(deita_of(tmp_path / "model")), pool=pool, out=tmp_path / "out")
    assert error.value.problem.endswith(" 6")


def test_a_model_that_gives_no_numbers_is_an_error(tiny: Path, pool: Path, tmp_path: Path) -> None:
    import torch

    broken = load_causal_lm(str(tiny), precision="float32")
    with torch.no_grad():
        broken.model.norm.weight.fill_(float("nan"))
    broken.save_pretrained(tmp_path / "broken")
    load_tokenizer(str(tiny)).save_pretrained(tmp_path / "broken")
    for number, measure in enumerate((perplexity_of(tmp_path / "broken"), deita_of(tmp_path / "broken"))):
        with pytest.raises(ModelError) as error:
            run(settings_of(measure), pool=pool, out=tmp_path / str(number))
        assert "precision: float32" in error.value.action


def test_groups_hold_each_sample_once_and_no_more_tokens_than_allowed() -> None:
    lengths = [5, 1, 30, 7, 7, 2, 9]
    groups = by_length(lengths, 16)
    assert sorted(place for group in groups for place in group) == list(range(7))
    assert groups[0] == [2], "longer than the limit: alone"
    assert all(max(lengths[p] for p in g) * len(g) <= 16 for g in groups[1:])


def test_the_component_describes_its_artifact(tiny: Path, pool: Path, tmp_path: Path) -> None:
    from kfp import dsl

    from tamis.scoring.component import score

    scores, metrics = dsl.Dataset(uri=str(tmp_path / "scores")), dsl.Metrics()
    settings = {"measure": perplexity_of(tiny), "max_tokens": 512.0}
    score.python_func(pool=dsl.Dataset(uri=str(pool)), settings=settings, scores=scores, metrics=metrics)
    assert (scores.metadata["kind"], scores.metadata["name"]) == ("scores", "perplexity")
    assert metrics.metadata["scored"] == 6
