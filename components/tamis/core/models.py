"""Models from the Hugging Face hub or from local folders, the same way for every stage."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tamis.core.errors import MissingExtraError, ModelError
from tamis.core.storage import fingerprint

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

Precision = Literal["auto", "float32", "bfloat16", "float16"]


def revision_of(model: str, revision: str | None = None) -> str:
    """What identifies the weights of `model`: a fingerprint of a local folder, or the hub's name and revision."""
    if Path(model).is_dir():
        return f"sha256:{fingerprint(model)}"
    return f"{model}@{revision or 'main'}"


def device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def dtype_of(precision: Precision) -> torch.dtype:
    """The torch dtype of a precision setting; "auto" is bfloat16 on a GPU and float32 on a CPU."""
    import torch

    if precision == "auto":
        return torch.bfloat16 if device().type == "cuda" else torch.float32
    return getattr(torch, precision)  # type: ignore[no-any-return]


def load_config(model: str, revision: str | None = None) -> PreTrainedConfig:
    """The configuration of `model`, without its weights.

    Raises:
        ModelError: when it cannot be loaded.
        MissingExtraError: when transformers is not installed.
    """
    return _load("AutoConfig", model, revision=revision)  # type: ignore[no-any-return]


def vocabulary_of(model: str, revision: str | None = None) -> int:
    """How many tokens `model` knows; a tokenizer may have more.

    Raises:
        ModelError: when its configuration cannot be loaded.
        MissingExtraError: when transformers is not installed.
    """
    return int(load_config(model, revision).get_text_config().vocab_size)


def load_skeleton(model: str, revision: str | None = None) -> PreTrainedModel:
    """The modules of a causal language model without their weights: what its configuration tells of them.

    Raises:
        ModelError: when the configuration cannot be loaded, or is not that of a causal language model.
        MissingExtraError: when transformers or torch is not installed.
    """
    config = load_config(model, revision)
    import torch
    from transformers import AutoModelForCausalLM

    with _explained(model), torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)  # type: ignore[no-any-return, no-untyped-call]


def load_tokenizer(model: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of `model`, padding on the left (for generation) and with a padding token.

    Raises:
        ModelError: when it cannot be loaded.
        MissingExtraError: when transformers is not installed.
    """
    tokenizer = _load("AutoTokenizer", model, revision=revision, padding_side="left")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer  # type: ignore[no-any-return]


def load_causal_lm(model: str, revision: str | None = None, precision: Precision = "auto") -> PreTrainedModel:
    """A causal language model in evaluation mode on the GPU, or on the CPU if there is none.

    Raises:
        ModelError: when it cannot be loaded.
        MissingExtraError: when transformers is not installed.
    """
    loaded = _load("AutoModelForCausalLM", model, revision=revision, dtype=dtype_of(precision))
    return loaded.to(device()).eval()  # type: ignore[no-any-return]


def load_quantized_lm(model: str, revision: str | None = None, precision: Precision = "auto") -> PreTrainedModel:
    """A causal language model whose linear weights are held in four bits (NF4, the scales quantised too; QLoRA).

    They are computed with in `precision`; everything else has that precision. The model is on the GPU, or on the CPU.

    Raises:
        ModelError: when it cannot be loaded.
        MissingExtraError: when transformers or bitsandbytes is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise MissingExtraError.of("bitsandbytes", "qlora")
    import torch
    from transformers import BitsAndBytesConfig
    from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

    dtype = dtype_of(precision)
    config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=dtype,  # ZeRO-3 shares out tensors of one type
    )
    place = torch.cuda.current_device() if device().type == "cuda" else "cpu"
    shared = is_deepspeed_zero3_enabled()  # type: ignore[no-untyped-call]
    placed = {} if shared else {"device_map": {"": place}}
    loaded = _load("AutoModelForCausalLM", model, revision=revision, dtype=dtype, quantization_config=config, **placed)
    return loaded.eval()  # type: ignore[no-any-return]


def _load(auto_class: str, model: str, **options: Any) -> Any:
    try:
        import transformers
    except ImportError:
        raise MissingExtraError.of("transformers", "rating") from None
    if not sys.stderr.isatty():
        # In a log, every step of a bar is a line.
        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with _explained(model):
        return getattr(transformers, auto_class).from_pretrained(model, **options)


@contextmanager
def _explained(model: str) -> Iterator[None]:
    """Turn what transformers raises for what it cannot load into a `ModelError`."""
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(
            f"cannot load the model '{model}': {first}",
            allowed="a folder in Hugging Face layout, or a name on the hub",
            action="check the path or name; offline, give a folder; a gated model needs HF_TOKEN",
        ) from None
