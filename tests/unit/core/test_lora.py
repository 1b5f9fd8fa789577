"""What LoRA can adapt, found out without weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tamis.core.errors import ModelError, SettingsError
from tamis.core.lora import check_lora
from tamis.finetuning.settings import LoraSettings


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of a GPT-2 of two layers: no weights are needed."""
    from transformers import GPT2Config

    folder = tmp_path_factory.mktemp("gpt2")
    GPT2Config(n_layer=2, n_embd=32, n_head=2, vocab_size=100).save_pretrained(folder)
    return folder


def checked(model: Path, lora: dict[str, Any], **caller: bool) -> None:
    check_lora(LoraSettings(**lora), str(model), None, where="section.lora", **caller)


@pytest.mark.parametrize(
    "lora", [{"targets": ["c_attn", "wte"]}, {"targets": "all-linear"}, {"targets": ["h.1.mlp.c_fc"]}]
)
def test_linear_modules_and_embeddings_can_be_adapted(gpt2: Path, lora: dict[str, Any]) -> None:
    checked(gpt2, lora, embeddings=True)


@pytest.mark.parametrize(
    ("lora", "where"),
    [
        ({"targets": ["c_attn", "query"]}, "section.lora.targets"),
        ({"targets": ["ln_1"]}, "section.lora.targets"),
        ({"targets": ["c_attn", "mlp"]}, "section.lora.targets"),
        ({"targets": ["lm_head"]}, "section.lora.targets"),
        ({"targets": ["c_attn", "wte"], "layers": 1}, "section.lora.targets"),
        ({"targets": ["c_attn"], "layers": 3}, "section.lora.layers"),
    ],
)
def test_a_target_that_cannot_be_trained_is_refused_with_those_that_can(
    gpt2: Path, lora: dict[str, Any], where: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        checked(gpt2, lora, embeddings=True)
    assert caught.value.problem.startswith(where)
    if where.endswith("targets"):
        assert caught.value.allowed == "c_attn, c_fc, c_proj, wpe, wte"


def test_what_a_caller_cannot_train_is_not_allowed_there(gpt2: Path) -> None:
    checked(gpt2, {"targets": ["lm_head"]}, head=True)
    with pytest.raises(SettingsError) as caught:
        checked(gpt2, {"targets": ["wte"]}, head=True)
    assert caught.value.allowed == "c_attn, c_fc, c_proj, lm_head"


def test_what_peft_knows_not_to_work_is_refused(tmp_path: Path) -> None:
    """Mamba's kernels read the weights of some linear modules themselves: an adapter there would have no effect."""
    from transformers import MambaConfig

    MambaConfig(num_hidden_layers=1, hidden_size=16, vocab_size=50, state_size=4).save_pretrained(tmp_path)
    with pytest.raises(SettingsError):
        checked(tmp_path, {"targets": ["out_proj"]})


def test_a_model_that_is_no_language_model_is_a_clear_error(tmp_path: Path) -> None:
    from transformers import CLIPVisionConfig

    CLIPVisionConfig().save_pretrained(tmp_path)
    with pytest.raises(ModelError):
        checked(tmp_path, {"targets": "all-linear"})
