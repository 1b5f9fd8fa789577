"""Models from the Hugging Face Hub or from local folders, loaded in the same way by every stage."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tamis.core.errors import MissingExtraError, ModelError
from tamis.core.hub_access import check_fetchable, refused_by_hub
from tamis.core.network import check_network
from tamis.core.outlook import looking
from tamis.core.progress import load_packages, loading, told
from tamis.core.storage import fingerprint

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

Precision = Literal["auto", "float32", "bfloat16", "float16"]
_LONG_TO_READ = 1 << 30  # bytes of weights from which on the log mentions that a checksum is computed


def revision_of(model: str, revision: str | None = None) -> str:
    """An identifier of the weights of `model`: a fingerprint of a local folder, or the Hub's name and the revision.

    Raises:
        ModelError: when pods share a cache that they cannot write to, and the model is not in it.
    """
    if not Path(model).is_dir():
        if not looking():
            check_fetchable(model, revision)
        return f"{model}@{revision or 'main'}"
    long = weight_bytes(Path(model)) >= _LONG_TO_READ
    what = f"the checksum of {model_in_words(model)}"
    with told(f"computing {what}", f"computed {what}") if long else nullcontext():
        return f"sha256:{fingerprint(model)}"


def weight_bytes(folder: Path) -> int:
    """Bytes of a model's weights; 0 if the folder does not exist."""
    if not folder.is_dir():
        return 0
    # A folder with both kinds of files has the same weights twice.
    files = [*folder.glob("*.safetensors")] or [*folder.glob("*.bin")]
    return sum(file.stat().st_size for file in files)


def model_in_words(model: str, revision: str | None = None) -> str:
    """A model's name and the size of its weights, as in "smollm2 (538 MB)". No large package is imported."""
    folder = Path(model)
    if not folder.is_dir():
        try:
            from huggingface_hub import try_to_load_from_cache

            cached = try_to_load_from_cache(model, "config.json", revision=revision)
        except (ImportError, ValueError):  # the Hub's client is not installed, or the name is not valid on the Hub
            return model
        if not isinstance(cached, str):
            return f"{model} (not in this machine's cache; it will be downloaded)"
        folder = Path(cached).parent
    size = weight_bytes(folder)
    name = model.rstrip("/").rpartition("/")[2]
    name = "the new model" if name.startswith(".") else name  # its folder has no final name yet
    shown = f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
    return f"{name} ({shown})"


def quiet_bars() -> None:
    """Turn off the progress bars of transformers unless standard error is a terminal: a log would get a line per step.

    Raises:
        ImportError: when transformers is not installed.
    """
    # transformers imports torch on first use, which takes most of the time, so the log mentions both.
    load_packages("transformers", *(["torch"] if find_spec("torch") is not None else []))
    if not sys.stderr.isatty():
        import transformers

        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def device() -> torch.device:
    """The GPU if there is one, otherwise the CPU."""
    load_packages("torch")
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def dtype_of(precision: Precision) -> torch.dtype:
    """The torch dtype of a precision setting; "auto" is bfloat16 on a GPU and float32 on a CPU."""
    load_packages("torch")
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
    """The size of the vocabulary of `model`. Its tokenizer may have more tokens.

    Raises:
        ModelError: when its configuration cannot be loaded.
        MissingExtraError: when transformers is not installed.
    """
    return int(load_config(model, revision).get_text_config().vocab_size)


def load_skeleton(model: str, revision: str | None = None) -> PreTrainedModel:
    """The modules of a causal language model without weights, made from its configuration.

    Raises:
        ModelError: when the configuration cannot be loaded, or is not that of a causal language model.
        MissingExtraError: when transformers or torch is not installed.
    """
    config = load_config(model, revision)
    load_packages("torch")
    import torch
    from transformers import AutoModelForCausalLM

    with _explained(model), torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)  # type: ignore[no-any-return, no-untyped-call]


def load_tokenizer(model: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of `model`, with padding on the left (for generation) and a padding token.

    Raises:
        ModelError: when it cannot be loaded.
        MissingExtraError: when transformers is not installed.
    """
    tokenizer = _load("AutoTokenizer", model, revision=revision, padding_side="left")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer  # type: ignore[no-any-return]


def load_causal_lm(model: str, revision: str | None = None, precision: Precision = "auto") -> PreTrainedModel:
    """A causal language model in evaluation mode, on the GPU if there is one, otherwise on the CPU.

    Raises:
        ModelError: when it cannot be loaded.
        MissingExtraError: when transformers is not installed.
    """
    with loading(model_in_words(model, revision)):
        loaded = _load("AutoModelForCausalLM", model, revision=revision, dtype=dtype_of(precision))
        return loaded.to(device()).eval()  # type: ignore[no-any-return]


def load_quantized_lm(model: str, revision: str | None = None, precision: Precision = "auto") -> PreTrainedModel:
    """A causal language model whose linear weights are quantised to four bits (QLoRA: NF4 with quantised scales).

    Computations and all other weights use `precision`. The model is on the GPU if there is one, otherwise on the CPU.

    Raises:
        ModelError: when it cannot be loaded.
        MissingExtraError: when transformers or bitsandbytes is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise MissingExtraError.of("bitsandbytes", "qlora")
    load_packages("torch", "transformers")
    import torch
    from transformers import BitsAndBytesConfig
    from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

    dtype = dtype_of(precision)
    config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=dtype,  # ZeRO-3 partitions tensors of one dtype only
    )
    place = torch.cuda.current_device() if device().type == "cuda" else "cpu"
    shared = is_deepspeed_zero3_enabled()  # type: ignore[no-untyped-call]
    placed = {} if shared else {"device_map": {"": place}}
    options = placed | {"dtype": dtype, "quantization_config": config}
    with loading(model_in_words(model, revision)):
        return _load("AutoModelForCausalLM", model, revision=revision, **options).eval()  # type: ignore[no-any-return]


def _load(auto_class: str, model: str, **options: Any) -> Any:
    try:
        quiet_bars()
    except ImportError:
        raise MissingExtraError.of("transformers", "rating") from None
    import transformers

    what = {"AutoConfig": "the configuration of ", "AutoTokenizer": "the tokenizer of "}.get(auto_class, "")
    with _explained(model), loading(f"{what}{model}", at_once=False) if what else nullcontext():
        return getattr(transformers, auto_class).from_pretrained(model, **options)


def _looked_in(model: str) -> str:
    relative = not Path(model).is_dir() and not Path(model).is_absolute()
    return f" (looked for in {Path.cwd()}, where you started the command)" if relative else ""


@contextmanager
def _explained(model: str) -> Iterator[None]:
    """Turn errors of transformers into a `ModelError`, or into a `SettingsError` about the network settings."""
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        if not Path(model).is_dir():
            check_network()
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(
            f"cannot load the model '{model}': {first}",
            allowed=f"a folder in Hugging Face layout{_looked_in(model)}, or a name on the Hub",
            action="check the path or name; without a network, give a folder; a gated model needs HF_TOKEN",
            permanent=refused_by_hub(error),
        ) from None
