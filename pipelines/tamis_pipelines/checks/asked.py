"""Checks that local raters, judges and opponents are chat models, from their small files, without PyTorch."""

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

# How the names of classes end whose models generate text.
_WRITES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


def asked(settings: RunSettings) -> Iterator[Check]:
    """Check every rater, judge and opponent whose model runs on this machine and has its files here."""
    for where, one in asked_of(settings).items():
        if isinstance(one, ModelContestant) and one.format != "chat":
            continue
        if isinstance(one, ModelContestant | LocalModelSettings):
            config = _json(one.model, "config.json")
            if config is not None and (wrong := _why_not(one.model, config)):
                action = "use a chat model; their names usually end in -Instruct or -Chat"
                yield Check(f"{where}: chat", "failed", wrong, action, SettingsError.code)


def _why_not(model: str, config: dict[str, Any]) -> str:
    """Return why a model cannot answer prompts; empty if no reason was found."""
    kinds = [str(kind) for kind in config.get("architectures") or []]
    if kinds and not any(kind.endswith(_WRITES) for kind in kinds):
        return f"{model} is a {', '.join(kinds)}, which does not generate text"
    tokenizer = _json(model, "tokenizer_config.json")
    of_its_own = any(_file(model, name) is not None for name in ("chat_template.jinja", "chat_template.json"))
    if tokenizer is not None and not tokenizer.get("chat_template") and not of_its_own:
        return f"{model} has no chat template, so it cannot answer prompts"
    return ""


def _json(model: str, name: str) -> dict[str, Any] | None:
    file = _file(model, name)
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file is not None else None
    except (OSError, ValueError):
        return None  # another check loads it and reports the error
    return found if isinstance(found, dict) else None


def _file(model: str, name: str) -> Path | None:
    """Return a model's file from its folder or from this machine's Hugging Face cache."""
    if Path(model).is_dir():
        return file if (file := Path(model) / name).is_file() else None
    return in_cache(model, name)
