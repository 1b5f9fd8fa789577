"""The training loop: order of samples, loss, refusals."""

from __future__ import annotations

import json
import re
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.core.conversations import IGNORED, chat_tokenizer
from tamis.core.errors import MissingExtraError, ModelError, SettingsError
from tamis.core.settings import parse
from tamis.finetuning.checkpoints import newest_checkpoint
from tamis.finetuning.conversations import write_tokens
from tamis.finetuning.settings import FinetuningSettings
from tamis.finetuning.training import Batches, check_machine, loss_on_cpu, train
from tests.unit.finetuning.conftest import samples


def settings_of(model: Path, **values: Any) -> FinetuningSettings:
    quick = {"model": str(model), "format": "chat", "epochs": 1, "batch_size": 4, "micro_batch_size": 2}
    quick |= {"learning_rate": 0.01, "lora": {"rank": 4}}
    return parse(FinetuningSettings, quick | values, where="test")


def trained(settings: FinetuningSettings, folder: Path, count: int = 12) -> list[dict[str, Any]]:
    """The history of training on `count` samples in `folder`."""
    folder.mkdir()
    lines = [json.dumps({"id": str(i), "messages": messages}) + "\n" for i, messages in enumerate(samples(count))]
    (folder / "subset.jsonl").write_text("".join(lines))
    tokenizer = chat_tokenizer(settings.model, None, settings.format)
    write_tokens(folder / "subset.jsonl", tokenizer, settings, folder)
    return train(settings, tokenizer, folder).history


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=40),
    passes=st.integers(1, 4),
    share=st.integers(2, 5),
    epoch=st.integers(0, 3),
)
def test_several_processes_get_the_same_steps_filled_up_with_blanks(
    lengths: list[int], passes: int, share: int, epoch: int
) -> None:
    alone, shared = (Batches(np.array(lengths), passes * share, 0, share=size) for size in (1, share))
    alone.set_epoch(epoch)
    shared.set_epoch(epoch)
    blanks = -len(lengths) % share
    assert list(shared) == list(alone) + [len(lengths)] * blanks
    assert len(shared) == len(lengths) + blanks


def test_a_batch_that_the_processes_cannot_share_is_refused() -> None:
    settings = FinetuningSettings(batch_size=24, micro_batch_size=4)
    assert [settings.accumulation(processes) for processes in (1, 2, 3, 6)] == [6, 3, 2, 1]
    with pytest.raises(SettingsError) as caught:
        settings.accumulation(4)
    assert re.search(r"\b24\b.*\b4 processes", caught.value.problem)
    assert "1, 2, 3, 6 processes" in caught.value.allowed


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=40),
    batch_size=st.integers(1, 10),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 3),
)
def test_a_step_has_the_samples_that_shuffling_gives_it_from_long_to_short(
    lengths: list[int], batch_size: int, seed: int, epoch: int
) -> None:
    batches = Batches(np.array(lengths), batch_size, seed)
    batches.set_epoch(epoch)
    order, shuffled = list(batches), np.random.default_rng([seed, epoch]).permutation(len(lengths)).tolist()
    assert len(batches) == len(lengths)
    for start in range(0, len(lengths), batch_size):
        step = order[start : start + batch_size]
        assert sorted(step) == sorted(shuffled[start : start + batch_size])
        assert [lengths[i] for i in step] == sorted((lengths[i] for i in step), reverse=True)


def test_seed_and_epoch_change_the_order() -> None:
    first, again, other = (Batches(np.ones(50, dtype=int), 5, seed) for seed in (1, 1, 2))
    assert list(first) == list(again) != list(other)
    before = list(first)
    first.set_epoch(1)
    assert list(first) != before


def test_the_loss_on_a_cpu_is_that_of_trl(tiny: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM
    from trl.trainer.utils import add_fused_lm_head

    torch.manual_seed(0)
    tokens = torch.randint(5, 40_000, (3, 20))
    mask = torch.ones_like(tokens)
    mask[1, 15:] = 0
    labels = tokens.masked_fill(mask == 0, IGNORED)
    labels[:, :4], labels[2, 8:12] = IGNORED, IGNORED
    inputs = {"input_ids": tokens, "attention_mask": mask, "labels": labels}

    ours = AutoModelForCausalLM.from_pretrained(tiny)
    loss = loss_on_cpu(ours, inputs, num_items_in_batch=37)
    loss.backward()
    theirs = AutoModelForCausalLM.from_pretrained(tiny)
    add_fused_lm_head(theirs)
    expected = -theirs(**inputs, fused_lm_head=True, use_cache=False).log_probs.sum() / 37
    expected.backward()

    torch.testing.assert_close(loss, expected)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-6, rtol=1e-4)


def test_a_micro_batch_of_blanks_adds_nothing_and_reaches_every_weight(tiny: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    tokens = torch.full((2, 1), 2)
    blank = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": tokens * 0 + IGNORED}
    model = AutoModelForCausalLM.from_pretrained(tiny)
    loss = loss_on_cpu(model, blank, num_items_in_batch=37)
    loss.backward()
    assert loss == 0
    assert all(weight.grad is not None and not weight.grad.any() for weight in model.parameters())


def test_micro_batches_do_not_change_training(tiny: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file
    from torch.testing import assert_close

    lora = {"rank": 4, "dropout": 0}
    one = trained(settings_of(tiny, lora=lora, micro_batch_size=4), tmp_path / "one")
    two = trained(settings_of(tiny, lora=lora, micro_batch_size=1), tmp_path / "two")
    np.testing.assert_allclose([row["loss"] for row in one], [row["loss"] for row in two], rtol=1e-5)
    weights = [load_file(tmp_path / name / "trained" / "adapter_model.safetensors") for name in ("one", "two")]
    for name, weight in weights[0].items():
        assert_close(weight, weights[1][name], atol=1e-4, rtol=1e-3)


def test_packed_samples_do_not_see_each_other(tiny: Path, tmp_path: Path) -> None:
    whole = {"batch_size": 12, "micro_batch_size": 12, "lora": {"rank": 4, "dropout": 0}, "max_tokens": 256}
    apart = trained(settings_of(tiny, **whole), tmp_path / "apart")
    packed = trained(settings_of(tiny, **whole, packing=True), tmp_path / "packed")
    assert len(apart) == len(packed) == 1
    assert packed[0]["loss"] == pytest.approx(apart[0]["loss"], rel=1e-5)
    assert packed[0]["gradient_norm"] == pytest.approx(apart[0]["gradient_norm"], rel=1e-3)


def test_only_the_last_layers_get_an_adapter_if_so_asked(tiny: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    trained(settings_of(tiny, lora={"rank": 4, "layers": 1}), tmp_path / "out")
    with safe_open(tmp_path / "out" / "trained" / "adapter_model.safetensors", "pt") as file:
        assert {name.split(".layers.")[1].split(".")[0] for name in file.keys()} == {"1"}  # noqa: SIM118


def test_a_few_steps_are_not_spent_on_warming_up(tiny: Path, tmp_path: Path) -> None:
    rates = [row["learning_rate"] for row in trained(settings_of(tiny), tmp_path / "out")]
    np.testing.assert_allclose(rates, [0.01, 0.01 * 2 / 3, 0.01 / 3])


def test_a_loss_that_is_no_number_ends_training(tiny: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.fill_(float("inf"))
    model.save_pretrained(tmp_path / "broken")
    AutoTokenizer.from_pretrained(tiny).save_pretrained(tmp_path / "broken")
    with pytest.raises(ModelError, match=r"\bstep 1\b.*\bnan\b"):
        trained(settings_of(tmp_path / "broken"), tmp_path / "out")
    for thread in threading.enumerate():
        if thread.name == "progress of finetuning":  # it tells no more of what has ended
            thread.join(10)
            assert not thread.is_alive()


@pytest.mark.parametrize(
    ("values", "seen"),
    [
        ({"batch_size": 10, "micro_batch_size": 4}, r"batch_size\b.*\b10\b.*micro_batch_size 4"),
        ({"deepspeed": "zero4"}, r"deepspeed.*zero2, zero3.*\.yaml"),
        ({"lora": {"rank": 0}}, r"lora\.rank.*\b0\b"),
        ({"preset": "papers"}, "'papers'.*paper, paper-alpaca"),
        ({"preset": "paper", "lora": None}, "lora.*None"),
        ({"lora": {"targets": []}}, "lora.targets"),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, Any], seen: str) -> None:
    with pytest.raises(SettingsError, match=seen):
        parse(FinetuningSettings, values, where="test")


def test_the_defaults_are_the_paper_s() -> None:
    settings = FinetuningSettings()
    assert (settings.lora.rank, settings.lora.alpha, settings.lora.dropout) == (64, 16, 0.1)
    assert (settings.learning_rate, settings.epochs, settings.batch_size, settings.max_tokens) == (1e-4, 5, 128, 2048)
    assert (settings.schedule, settings.warmup_ratio, settings.weight_decay, settings.seed) == ("linear", 0.03, 0, 42)
    assert settings.accumulation(1) * settings.micro_batch_size == 128


def test_a_preset_gives_what_is_not_given() -> None:
    paper = parse(FinetuningSettings, {"preset": "paper"}, where="test")
    assert paper.model_dump(exclude={"preset", "precision"}) == FinetuningSettings().model_dump(
        exclude={"preset", "precision"}
    )
    alpaca = parse(
        FinetuningSettings, {"preset": "paper-alpaca", "epochs": 1, "lora": {"alpha": 32}, "model": "m"}, where="test"
    )
    assert (alpaca.method, alpaca.batch_size, alpaca.deepspeed) == ("qlora", 512, "zero3")
    assert (alpaca.model, alpaca.epochs, alpaca.lora.rank, alpaca.lora.alpha) == ("m", 1, 64, 32)
    assert parse(FinetuningSettings, alpaca.model_dump(), where="test") == alpaca


def test_half_precision_is_refused_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError) as caught:
        check_machine(FinetuningSettings(precision="float16"))
    assert caught.value.problem.startswith("finetuning.precision")
    assert "float32" in caught.value.allowed


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed here")
def test_qlora_without_bitsandbytes_is_refused() -> None:
    with pytest.raises(MissingExtraError) as caught:
        check_machine(FinetuningSettings(method="qlora"))
    assert "bitsandbytes" in caught.value.problem
    assert "tamis[qlora]" in caught.value.action


@pytest.mark.skipif(find_spec("deepspeed") is not None, reason="DeepSpeed is installed here")
def test_deepspeed_that_is_not_installed_is_refused() -> None:
    with pytest.raises(MissingExtraError) as caught:
        check_machine(FinetuningSettings(deepspeed="zero2"))
    assert "tamis[deepspeed]" in caught.value.action


def test_only_a_checkpoint_that_was_written_to_its_end_is_taken_up(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path, 1) is None
    for step in (5, 10, 20):
        (tmp_path / f"checkpoint-{step}").mkdir()
    (tmp_path / "checkpoint-5" / "complete").write_text("2")
    (tmp_path / "checkpoint-10" / "complete").write_text("2")
    found = newest_checkpoint(tmp_path, 2)
    assert found is not None
    assert found.name == "checkpoint-10"
    with pytest.raises(SettingsError, match=r"checkpoint-10\b.*\b2\b.*\b4\b"):
        newest_checkpoint(tmp_path, 4)
