"""Whether models of this machine that are to answer are chat models: told by their small files, without PyTorch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tamis.core.errors import SettingsError
from tamis.judging.settings import ModelContestant
from tamis.llm.settings import LocalModelSettings
from tamis_pipelines.checks.check import Check
from tamis_pipelines.checks.models import in_cache
from tamis_pipelines.checks.services import asked_of
from tamis_pipelines.settings import RunSettings

_WRITES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")  # ends of the classes of models that write text


def asked(settings: RunSettings) -> Iterator[Check]:
    """Every rater, the judge and its opponents that run here and whose files are here."""
    for where, one in asked_of(settings).items():
        if isinstance(one, ModelContestant) and one.format != "chat":
            continue
        if isinstance(one, ModelContestant | LocalModelSettings):
            config = _json(one.model, "config.json")
            if config is not None and (wrong := _why_not(one.model, config)):
                action = "name a chat model, as *-Instruct or *-Chat are called"
                yield Check(f"{where}: chat", "failed", wrong, action, SettingsError.code)


def _why_not(model: str, config: dict[str, Any]) -> str:
    """Why a model cannot be asked; empty where nothing speaks against it."""
    kinds = [str(kind) for kind in config.get("architectures") or []]
    if kinds and not any(kind.endswith(_WRITES) for kind in kinds):
        return f"{model} is a {', '.join(kinds)}, which writes no text"
    tokenizer = _json(model, "tokenizer_config.json")
    of_its_own = any(_file(model, name) is not None for name in ("chat_template.jinja", "chat_template.json"))
    if tokenizer is not None and not tokenizer.get("chat_template") and not of_its_own:
        return f"{model} has no chat template, so it cannot be asked"
    return ""


def _json(model: str, name: str) -> dict[str, Any] | None:
    file = _file(model, name)
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file is not None else None
    except (OSError, ValueError):
        return None  # that it cannot be loaded is said when it is
    return found if isinstance(found, dict) else None


def _file(model: str, name: str) -> Path | None:
    """A file of a model in a folder, or in this machine's cache of the hub."""
    if Path(model).is_dir():
        return file if (file := Path(model) / name).is_file() else None
    return in_cache(model, name)
