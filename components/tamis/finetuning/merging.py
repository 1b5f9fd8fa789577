"""After training: merging the adapter into the base model, saving the result, and checking that it is sound."""

from __future__ import annotations

import logging
import math
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tamis.core.errors import ModelError
from tamis.core.models import Precision, dtype_of, load_causal_lm
from tamis.core.samples import Message
from tamis.core.templates import render
from tamis.finetuning.settings import FinetuningSettings
from tamis.finetuning.training import free_memory, load_base, weights_precision

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)
_PROBE = "Give three reasons why people keep a diary."
_SAMPLES, _TOKENS = 3, 256  # models are compared on this many samples of the subset, this many tokens of each
_MOST_LOST = 0.5  # share of training's effect that rounding may undo without a warning
_TOLERANCE = 1e-3  # a reloaded model's logits may differ by this share of the largest: other kernels, same weights
# Share of their size by which merging may move the logits. Half precision rounds the sum of base and adapter.
_MERGED_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05, "float16": 0.01}


def save_merged(
    settings: FinetuningSettings, tokenizer: PreTrainedTokenizerBase, *, work: Path, out: Path
) -> dict[str, float]:
    """Merge the adapter in `work`/trained into the base model, save the result in `out`, and check it.

    With the method `full` there is no adapter: `work`/trained is the model. The models are compared on a probe prompt
    and on the first samples of `work`/tokens.arrow.

    Returns:
        `probe_difference`: the largest absolute difference between the saved model's and the base model's logits on
        the probe prompt. With an adapter also `merge_error`: by how much merging moved the logits, as a share of how
        much training did (root mean squares).

    Raises:
        ModelError: when the adapter is empty, zero or not finite; when the result gives the same logits as the base
            model; or when merging or saving changed the logits.
    """
    trained, facts = work / "trained", dict[str, float]()
    prompts = [_probe(tokenizer), *_samples(work / "tokens.arrow")]
    model: Any = load_base(settings)
    if settings.method == "qlora":
        # The adapter was trained on top of the quantised weights, so it is merged into, and compared with, those.
        model = model.dequantize()
    base = _logits(model, prompts)
    if settings.method != "full":
        check_adapter(trained)
        adapted = _adapted(model, trained)
        answers = _logits(adapted, prompts)
        model = adapted.merge_and_unload(safe_merge=True)
        facts["merge_error"] = _check_merged(_logits(model, prompts), answers, base, weights_precision(settings))
    else:
        del model
        free_memory()
        model = load_causal_lm(str(trained), precision=weights_precision(settings))
    _check_difference(_logits(model, prompts[:1]), base, "the trained model")

    if settings.save_precision != "auto":
        # Only weights are cast: buffers, such as position embeddings, keep their precision, as when a model is loaded.
        for weight in model.parameters():
            weight.data = weight.data.to(dtype_of(settings.save_precision))
    before_saving = _logits(model, prompts)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    precision = settings.save_precision if settings.save_precision != "auto" else weights_precision(settings)
    del model
    free_memory()
    saved = _logits(load_causal_lm(str(out), precision=precision), prompts)
    moved = max(float((one - other).abs().max()) for one, other in zip(saved, before_saving, strict=True))
    if not moved <= _TOLERANCE * max(float(one.abs().max()) for one in before_saving):
        raise ModelError(
            f"the saved model's logits differ by {moved:.3g} from the logits before saving",
            action="please report this: the weights were not saved as they were trained",
        )
    return facts | {"probe_difference": _check_difference(saved, base, "the saved model")}


def check_adapter(folder: Path) -> None:
    """Check the adapter's tensors in `folder`.

    Raises:
        ModelError: when there are none, when one is not finite, or when all matrices that start at zero (B) are still
            zero.
    """
    from safetensors.torch import load_file

    tensors = load_file(folder / "adapter_model.safetensors")
    if not tensors or any(tensor.numel() == 0 for tensor in tensors.values()):
        raise ModelError(
            f"the adapter has {len(tensors)} tensors, and none may be missing or empty", action="please report this"
        )
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ModelError(
                f"the adapter's tensor {name} has values that are not finite", action="lower finetuning.learning_rate"
            )
    starts = ("lora_B", "lora_embedding_A")  # the factors that start at zero
    grown = {name: bool(tensor.any()) for name, tensor in tensors.items() if any(start in name for start in starts)}
    if not any(grown.values()):
        raise ModelError(
            f"training left all {len(grown)} B matrices of the adapter at zero, so nothing was learnt",
            action="raise finetuning.learning_rate or finetuning.epochs",
        )
    if not all(grown.values()):
        log.warning("%d of the adapter's %d B matrices are zero", list(grown.values()).count(False), len(grown))


def _probe(tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    import torch

    text = render(tokenizer, [Message(role="user", content=_PROBE)], prompt=True)
    return torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])


def _samples(tokens: Path) -> list[torch.Tensor]:
    """Return the beginnings of the first samples in the training data."""
    import pyarrow as pa
    import torch

    with pa.OSFile(str(tokens)) as file, pa.ipc.open_stream(file) as stream:
        rows = stream.read_next_batch()["input_ids"].slice(0, _SAMPLES).to_pylist()
    return [torch.tensor([row[:_TOKENS]]) for row in rows]


def _adapted(base: PreTrainedModel, adapter: Path) -> PeftModel:
    """Return the base model with its adapter, ready for merging.

    If input embeddings and output head share one matrix, and one of them has an adapter, each gets its own matrix.
    Otherwise merging would change both.
    """
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch import nn

    with warnings.catch_warnings(action="ignore", category=UserWarning):  # about tied embeddings
        model = PeftModel.from_pretrained(base, str(adapter))
    owners = Counter(id(weight) for _, weight in base.named_parameters(remove_duplicate=False))
    adapted: list[Any] = [module for module in base.modules() if isinstance(module, BaseTunerLayer)]
    for layer in (module.get_base_layer() for module in adapted):
        if owners[id(layer.weight)] > 1:
            layer.weight = nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
            for config in (base.config, base.config.get_text_config()):
                config.tie_word_embeddings = False
            base.all_tied_weights_keys = base.get_expanded_tied_weights_keys(all_submodels=True)
            log.info("an embedding has an adapter: the model is saved with separate input embeddings and output head")
    return model


def _logits(model: Any, prompts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return (1, T, V) float32 logits for each prompt, on the CPU."""
    import torch

    model.eval()
    with torch.inference_mode():
        return [model(tokens.to(model.device)).logits.float().cpu() for tokens in prompts]


def _check_merged(
    merged: Sequence[torch.Tensor], adapted: Sequence[torch.Tensor], base: Sequence[torch.Tensor], precision: Precision
) -> float:
    """Return by how much merging moved the logits, as a share of how much training did."""
    size, error = _rms(adapted), _rms([one - other for one, other in zip(merged, adapted, strict=True)])
    if not error <= _MERGED_TOLERANCE[precision] * size:
        raise ModelError(
            f"on samples of the subset, the merged model's logits differ by {error:.3g} from those of the base model "
            f"with its adapter, whose size is {size:.3g} (root mean squares)",
            allowed=f"a difference of at most {_MERGED_TOLERANCE[precision]:.1%} of their size",
            action="choose other finetuning.lora.targets, or train in float32",
        )
    share = error / max(_rms([one - other for one, other in zip(adapted, base, strict=True)]), 1e-30)
    if share > _MOST_LOST:
        log.warning(
            "rounding to %s in merging moved the logits by %.0f%% of what training did. Raise finetuning.epochs or "
            "learning_rate, or set finetuning.precision: float32", precision, 100 * share,
        )  # fmt: skip
    return share


def _rms(tables: Sequence[torch.Tensor]) -> float:
    total = sum(float(table.double().square().sum()) for table in tables)
    return math.sqrt(total / sum(table.numel() for table in tables))


def _check_difference(logits: Sequence[torch.Tensor], base: Sequence[torch.Tensor], what: str) -> float:
    """Return the largest difference from the base model's logits on the first prompt, the probe."""
    difference = float((logits[0] - base[0]).abs().max())
    if not 0 < difference < float("inf"):
        raise ModelError(
            f"on a test prompt, the logits of {what} differ from the base model's by {difference}",
            allowed="a finite difference above 0: the same logits mean that training had no effect",
            action="raise finetuning.learning_rate or finetuning.epochs, or train and save in float32",
        )
    return difference
