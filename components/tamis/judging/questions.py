"""Questions out of a prompt set's file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tamis.core.errors import InputError
from tamis.core.samples import Message, sample_id
from tamis.core.storage import locate, read_bytes
from tamis.judging.settings import PromptSet


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt: `id` depends on its text alone, so that answers and verdicts are found again by other runs."""

    id: str
    text: str


def questions_of(prompts: PromptSet) -> list[Question]:
    """The set's questions in the order of its file, each text once.

    Raises:
        InputError: when a line is no JSON object, lacks a field, or holds no text there; or nothing is left.
        StorageError: when the file cannot be read.
    """
    texts = {text: None for text in _texts(prompts)}
    found = [Question(sample_id([Message(role="user", content=text)]), text) for text in texts]
    if not found:
        raise InputError(f"prompt set '{prompts.name}': {prompts.path} holds no line")
    if prompts.limit is None or prompts.limit >= len(found):
        return found
    chosen = np.random.default_rng(prompts.seed).choice(len(found), prompts.limit, replace=False)
    return [found[place] for place in sorted(chosen)]


def _texts(prompts: PromptSet) -> Iterator[str]:
    lines = read_bytes(locate(prompts.path)).decode("utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            raise _fault(prompts, number, "not JSON") from None
        parts = [_text_at(row, field, prompts, number) for field in prompts.fields]
        if not parts[0]:
            raise _fault(prompts, number, f"'{prompts.fields[0]}' is empty")
        yield "\n\n".join(part for part in parts if part)


def _text_at(row: Any, field: str, prompts: PromptSet, number: int) -> str:
    value = row
    for part in field.split("."):
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (KeyError, IndexError, ValueError, TypeError):
            names = ", ".join(row) if isinstance(row, dict) else "none: it is no object"
            raise _fault(prompts, number, f"there is no '{field}'; its fields: {names}") from None
    if not isinstance(value, str):
        raise _fault(prompts, number, f"'{field}' is no text")
    return value.strip()


def _fault(prompts: PromptSet, number: int, problem: str) -> InputError:
    return InputError(
        f"prompt set '{prompts.name}': {prompts.path}, line {number}: {problem}",
        action="correct the file, or name its fields: fields: [instruction, instances.0.input]",
    )
