"""Families of language models. Models of one family tend to prefer each other's answers."""

from __future__ import annotations

import re
from pathlib import Path

from tamis.core.jsonrows import json_of

# The first pattern that matches the model's name counts. A finetuned model belongs to the family of its base model.
_NAMES = (
    ("EleutherAI", r"gpt[-_]?(neo|jt?(?![a-z]))|pythia"),
    ("OpenAI", r"gpt|chatgpt|(?<![a-z0-9])o[1345](?![a-z0-9])|davinci"),
    ("SmolLM", r"smollm"),
    ("Mistral", r"mi(s|x|nis)tral|zephyr|codestral"),
    ("DeepSeek", r"deepseek"),
    ("Llama", r"llama|vicuna|alpaca|lima(?![a-z])"),
    ("Qwen", r"qwen|qwq"),
    ("Google", r"gemma|gemini|palm"),
    ("Anthropic", r"claude"),
    ("Phi", r"(?<![a-z])phi(?![a-z])"),
    ("OLMo", r"olmo"),
    ("Falcon", r"falcon"),
    ("Yi", r"(?<![a-z])yi(?![a-z])"),
    ("Cohere", r"command-?r|aya(?![a-z])"),
)


def family_of(model: str) -> str | None:
    """The family of a model by its name, or for a local folder by its configuration; None if unknown."""
    found = _by_name(model.rstrip("/").rsplit("/", 1)[-1])
    if found is not None:
        return found
    config = Path(model) / "config.json"
    if not config.is_file():
        return _by_name(model)  # by the organisation, as in "mistralai/…"
    try:
        return _by_name(str(json_of(config.read_text(encoding="utf-8")).get("model_type", "")))
    except (ValueError, AttributeError):
        return None


def _by_name(name: str) -> str | None:
    return next((family for family, pattern in _NAMES if re.search(pattern, name.lower())), None)


def of_one_family(one: str, other: str) -> str | None:
    """The family of both models, or None where they differ or are unknown."""
    family = family_of(one)
    return family if family is not None and family == family_of(other) else None
