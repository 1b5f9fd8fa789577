"""Checks models, tokenizers and data sets, which are folders or come from the Hugging Face Hub."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tamis.core.errors import InputError, ModelError, TamisError
from tamis.core.hub_access import hub_cache, is_writable
from tamis.core.models import weight_bytes
from tamis_pipelines.checks.check import Check
from tamis_pipelines.checks.fields import referring
from tamis_pipelines.settings import RunSettings

GIB = 1 << 30
DEMO, MAKE_DEMO = "build/demo/", "run `make demo`, which also prepares data and models for the other examples"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt")


def models_of(settings: RunSettings) -> list[tuple[str, str]]:
    """Return the setting and value of all models that run on this machine; a value is a folder or a name on the Hub."""
    return list(referring(settings, "model"))


def models(settings: RunSettings) -> Iterator[Check]:
    """Check every model, tokenizer and data set."""
    yield from (_model(where, model) for where, model in models_of(settings))
    yield from (_tokenizer(where, name) for where, name in referring(settings, "tokenizer"))
    yield from (_dataset(where, name) for where, name in referring(settings, "dataset"))


def _model(where: str, model: str) -> Check:
    folder = Path(model)
    if not folder.is_dir():
        return _elsewhere(where, model, "model", "config.json")
    size = weight_bytes(folder)
    whole = size > 0 and (folder / "config.json").is_file()
    seen = f"{model}, {size / GIB:.2f} GiB of weights" if whole else f"{model} has no config.json or no weights"
    action = "give a folder in Hugging Face layout, with config.json and *.safetensors"
    return Check.of(where, whole, seen, action, error=ModelError)


def _tokenizer(where: str, name: str) -> Check:
    folder = Path(name)
    if not folder.is_dir():
        return _elsewhere(where, name, "tokenizer", "tokenizer_config.json")
    whole = any((folder / file).is_file() for file in _TOKENIZERS)
    seen = f"{name}{'' if whole else ' has no tokenizer'}"
    return Check.of(where, whole, seen, f"give a folder that contains {_TOKENIZERS[0]}", error=ModelError)


def _elsewhere(where: str, name: str, what: str, file: str) -> Check:
    """Check a model or tokenizer that is not a folder; it is in the Hugging Face cache if its `file` is there."""
    if _is_path(name):
        action = MAKE_DEMO if name.startswith(DEMO) else f"correct {where}, or create the {what} first"
        return Check.of(where, False, f"there is no folder {name}", action, error=ModelError)
    if in_cache(name, file) is not None:
        return Check.of(where, True, f"{name}, in this machine's Hugging Face cache")
    return _to_download(where, name, "models", ModelError)


def _dataset(where: str, name: str) -> Check:
    if Path(name).is_dir():
        return Check.of(where, True, name)
    if _is_path(name):
        action = f"correct {where}, or put the data there"
        return Check.of(where, False, f"there is no folder {name}", action, error=InputError)
    from huggingface_hub.constants import HF_HUB_CACHE

    if (Path(HF_HUB_CACHE) / f"datasets--{name.replace('/', '--')}").is_dir():
        return Check.of(where, True, f"{name}, in this machine's Hugging Face cache")
    return _to_download(where, name, "data sets", InputError)


def _to_download(where: str, name: str, what: str, error: type[TamisError]) -> Check:
    from huggingface_hub import get_token

    gated = "" if get_token() else f"; HF_TOKEN is not set, and gated {what} need it"
    offline = os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")
    seen = f"{name} is not in this machine's Hugging Face cache"
    blocked = what == "models" and not is_writable(hub_cache())
    if offline:
        seen += " and cannot be downloaded, because HF_HUB_OFFLINE is set"
    elif blocked:
        seen += f" and cannot be downloaded, because this user cannot write to {hub_cache()}"
    else:
        seen += " and will be downloaded"
    dataset = "--repo-type dataset " if what == "data sets" else ""
    action = f"hf download {dataset}{name}{' as a user who can' if blocked else ''}, or give a folder"
    return Check.of(where, not (offline or blocked), seen + gated, action, error=error)


def in_cache(name: str, file: str) -> Path | None:
    """Return a model's file in this machine's Hugging Face cache; None if it is not there or the name is not valid."""
    from huggingface_hub import try_to_load_from_cache

    try:
        cached = try_to_load_from_cache(name, file)
    except ValueError:
        return None
    return Path(cached) if isinstance(cached, str) else None


def _is_path(name: str) -> bool:
    """Return whether a name cannot be one on the Hub, so must be a path."""
    return name.startswith((".", "/")) or name.count("/") > 1
