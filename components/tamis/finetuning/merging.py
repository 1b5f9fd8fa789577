"""After training: is there anything in the adapter, and does the merged model do something that the base does not?"""

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
_SAMPLES, _TOKENS = 3, 256  # of the subset, on which models are compared: of so many samples so many tokens
_MOST_LOST = 0.5  # share of what training did that rounding may undo without a warning
_TOLERANCE = 1e-3  # share of the largest logit by which a reloaded model may differ: kernels, not weights
# Of the logits' size: how far merging may move them. Half precisions round the sum of base and adapter.
_MERGED_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05, "float16": 0.01}


def save_merged(
    settings: FinetuningSettings, tokenizer: PreTrainedTokenizerBase, *, work: Path, out: Path
) -> dict[str, float]:
    """Merge what lies in `work`/trained into the base model, save it with the tokenizer in `out`, and prove it.

    The models are compared on a probe prompt and on the first samples of `work`/tokens.arrow.

    Returns:
        `probe_difference`: how far the saved model's logits differ from the base model's on the probe prompt (largest
        absolute difference). With an adapter also `merge_error`: how far they differ between base with adapter and
        merged model, as a share of how far training has moved them (root mean squares).

    Raises:
        ModelError: when the adapter is empty, zero or not finite, or the merged model answers as the base does, or not
            as the base with its adapter, or not as it did before it was saved.
    """
    trained, facts = work / "trained", dict[str, float]()
    prompts = [_probe(tokenizer), *_samples(work / "tokens.arrow")]
    model: Any = load_base(settings)
    if settings.method == "qlora":
        # The adapter was trained beside the rounded weights: it is merged into them, and measured against them.
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
        # Weights only: buffers, such as those of the positions, keep their precision, as in a model that is loaded.
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
            f"the saved model's logits differ by {moved:.3g} from those before it was saved",
            action="report this: the weights were not saved as they were trained",
        )
    return facts | {"probe_difference": _check_difference(saved, base, "the saved model")}


def check_adapter(folder: Path) -> None:
    """Look at the adapter's tensors in `folder`.

    Raises:
        ModelError: when there is none, one is not finite, or all matrices that start at zero (B) still are zero.
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
    starts = ("lora_B", "lora_embedding_A")  # the factors that start at zero
    grown = {name: bool(tensor.any()) for name, tensor in tensors.items() if any(start in name for start in starts)}
    if not any(grown.values()):
        raise ModelError(
            f"training left all {len(grown)} B matrices of the adapter at zero: nothing was learnt",
            action="raise finetuning.learning_rate or finetuning.epochs",
        )
    if not all(grown.values()):
        log.warning("%d of %d B matrices of the adapter are zero", list(grown.values()).count(False), len(grown))


def _probe(tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    import torch

    text = render(tokenizer, [Message(role="user", content=_PROBE)], prompt=True)
    return torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])


def _samples(tokens: Path) -> list[torch.Tensor]:
    """The beginnings of the first samples that were trained on."""
    import pyarrow as pa
    import torch

    with pa.OSFile(str(tokens)) as file, pa.ipc.open_stream(file) as stream:
        rows = stream.read_next_batch()["input_ids"].slice(0, _SAMPLES).to_pylist()
    return [torch.tensor([row[:_TOKENS]]) for row in rows]


def _adapted(base: PreTrainedModel, adapter: Path) -> PeftModel:
    """The base model with its adapter, so that it can be merged.

    Where input embeddings and output head are one matrix, and one of them has an adapter, each gets its own: merged
    into the common one, the adapter would change the other too.
    """
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch import nn

    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of tied embeddings
        model = PeftModel.from_pretrained(base, str(adapter))
    owners = Counter(id(weight) for _, weight in base.named_parameters(remove_duplicate=False))
    adapted: list[Any] = [module for module in base.modules() if isinstance(module, BaseTunerLayer)]
    for layer in (module.get_base_layer() for module in adapted):
        if owners[id(layer.weight)] > 1:
            layer.weight = nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
            for config in (base.config, base.config.get_text_config()):
                config.tie_word_embeddings = False
            base.all_tied_weights_keys = base.get_expanded_tied_weights_keys(all_submodels=True)
            log.info("the adapter unties input embeddings and output head: the model is saved with both")
    return model


def _logits(model: Any, prompts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """(1, T, V) float32 logits of each prompt, on the CPU."""
    import torch

    model.eval()
    with torch.inference_mode():
        return [model(tokens.to(model.device)).logits.float().cpu() for tokens in prompts]


def _check_merged(
    merged: Sequence[torch.Tensor], adapted: Sequence[torch.Tensor], base: Sequence[torch.Tensor], precision: Precision
) -> float:
    """How far merging moved the logits, as a share of how far training did."""
    size, error = _rms(adapted), _rms([one - other for one, other in zip(merged, adapted, strict=True)])
    if not error <= _MERGED_TOLERANCE[precision] * size:
        raise ModelError(
            f"on samples of the subset the merged model's logits differ by {error:.3g} from those of the base model "
            f"with its adapter, which are of size {size:.3g} (root mean squares)",
            allowed=f"a difference of {_MERGED_TOLERANCE[precision]:.1%} at most",
            action="choose other finetuning.lora.targets, or train in float32",
        )
    share = error / max(_rms([one - other for one, other in zip(adapted, base, strict=True)]), 1e-30)
    if share > _MOST_LOST:
        log.warning(
            "merging in %s moved the logits by %.0f%% of what training did: raise finetuning.epochs or learning_rate, "
            "or set finetuning.precision: float32", precision, 100 * share,
        )  # fmt: skip
    return share


def _rms(tables: Sequence[torch.Tensor]) -> float:
    total = sum(float(table.double().square().sum()) for table in tables)
    return math.sqrt(total / sum(table.numel() for table in tables))


def _check_difference(logits: Sequence[torch.Tensor], base: Sequence[torch.Tensor], what: str) -> float:
    """How far the logits of the first prompt, the probe, differ from the base model's."""
    difference = float((logits[0] - base[0]).abs().max())
    if not 0 < difference < float("inf"):
        raise ModelError(
            f"on a probe prompt the logits of {what} differ from the base model's by {difference}",
            allowed="a finite difference above 0",
            action="raise finetuning.learning_rate or finetuning.epochs, or train and save in float32",
        )
    return difference
