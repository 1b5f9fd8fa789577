"""After training: is there anything in the adapter, and does the merged model do something that the base does not?"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tamis.core.errors import ModelError
from tamis.core.models import dtype_of, load_causal_lm
from tamis.finetuning.settings import FinetuningSettings
from tamis.finetuning.training import free_memory, load_base, weights_precision

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)
_PROBE = "Give three reasons why people keep a diary."
_TOLERANCE = 1e-3  # share of the largest logit by which a reloaded model may differ: kernels, not weights


def save_merged(settings: FinetuningSettings, tokenizer: PreTrainedTokenizerBase, *, trained: Path, out: Path) -> float:
    """Merge what lies in `trained` into the base model, save it with the tokenizer in `out`, and prove it by a probe.

    Returns:
        How far the saved model's logits differ from the base model's on a probe prompt (largest absolute difference).

    Raises:
        ModelError: when the adapter is empty, zero or not finite, or the merged model answers as the base does, or not
            as it did before it was saved.
    """
    probe = _probe(tokenizer)
    model: Any = load_base(settings)
    if settings.method == "qlora":
        # The adapter was trained beside the rounded weights: it is merged into them, and measured against them.
        model = model.dequantize()
    base = _logits(model, probe)
    if settings.method != "full":
        check_adapter(trained)
        model = _merge(model, trained)
    else:
        del model
        free_memory()
        model = load_causal_lm(str(trained), precision=weights_precision(settings))
    _check_difference(_logits(model, probe), base, "the trained model")

    if settings.save_precision != "auto":
        # Weights only: buffers, such as those of the positions, keep their precision, as in a model that is loaded.
        for weight in model.parameters():
            weight.data = weight.data.to(dtype_of(settings.save_precision))
    before_saving = _logits(model, probe)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    precision = settings.save_precision if settings.save_precision != "auto" else weights_precision(settings)
    del model
    free_memory()
    saved = _logits(load_causal_lm(str(out), precision=precision), probe)
    moved = (saved - before_saving).abs().max()
    if not moved <= _TOLERANCE * before_saving.abs().max():
        raise ModelError(
            f"the saved model's logits differ by {moved:.3g} from those before it was saved",
            action="report this: the weights were not saved as they were trained",
        )
    return _check_difference(saved, base, "the saved model")


def check_adapter(folder: Path) -> None:
    """Look at the adapter's tensors in `folder`.

    Raises:
        ModelError: when there is none, one is not finite, or all B matrices, which start at zero, still are zero.
    """
    from safetensors.torch import load_file

    tensors = load_file(folder / "adapter_model.safetensors")
    if not tensors or any(tensor.numel() == 0 for tensor in tensors.values()):
        raise ModelError(f"the adapter has {len(tensors)} tensors, some of them empty", action="report this")
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ModelError(
                f"the adapter's {name} holds values that are not finite", action="lower finetuning.learning_rate"
            )
    grown = {name: bool(tensor.any()) for name, tensor in tensors.items() if "lora_B" in name}
    if not any(grown.values()):
        raise ModelError(
            f"training left all {len(grown)} B matrices of the adapter at zero: nothing was learnt",
            action="raise finetuning.learning_rate or finetuning.epochs",
        )
    if not all(grown.values()):
        log.warning("%d of %d B matrices of the adapter are zero", list(grown.values()).count(False), len(grown))


def _probe(tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    import torch

    text: Any = tokenizer.apply_chat_template(
        [{"role": "user", "content": _PROBE}], tokenize=False, add_generation_prompt=True
    )
    return torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])


def _merge(base: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    from peft import PeftModel

    merged: PreTrainedModel = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload(safe_merge=True)
    return merged


def _logits(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    import torch

    with torch.inference_mode():
        logits: torch.Tensor = model.eval()(tokens.to(model.device)).logits.float().cpu()
    return logits


def _check_difference(logits: torch.Tensor, base: torch.Tensor, what: str) -> float:
    difference = float((logits - base).abs().max())
    if not 0 < difference < float("inf"):
        raise ModelError(
            f"on a probe prompt the logits of {what} differ from the base model's by {difference}",
            allowed="a finite difference above 0",
            action="raise finetuning.learning_rate or finetuning.epochs, or train and save in float32",
        )
    return difference
