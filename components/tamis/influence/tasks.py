"""Examples of the tasks that training shall help with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tamis.core.conversations import Encoder, Tokens, Unusable
from tamis.core.errors import InputError
from tamis.core.jsonrows import json_rows
from tamis.core.leftout import cure_of
from tamis.core.samples import Message, fault_of
from tamis.core.storage import locate, read_bytes
from tamis.influence.settings import TaskSettings


@dataclass(frozen=True)
class Task:
    """A task's examples, tokenised, by subtask."""

    name: str
    subtasks: dict[str, list[Tokens]]


def read_task(settings: TaskSettings, encoder: Encoder) -> Task:
    """Read and tokenise a task's examples.

    Raises:
        InputError: naming the line that cannot be used, for every example counts in a small set.
        StorageError: when the file cannot be read.
    """
    subtasks: dict[str, list[Tokens]] = {}
    for where, row in json_rows(read_bytes(locate(settings.path)), f"task {settings.name}: {settings.path}"):
        subtask, messages = example_of(row, where)
        try:
            subtasks.setdefault(subtask, []).append(encoder.encode(messages))
        except Unusable as reason:
            raise InputError(f"{where}: {reason}", action=cure_of(str(reason), "influence")) from None
    if not subtasks:
        raise InputError(f"task {settings.name}: {settings.path} has no examples", allowed="at least one line")
    return Task(settings.name, subtasks)


def example_of(row: Any, where: str) -> tuple[str, list[Message]]:
    """The subtask and the conversation of one row of a task's file.

    Raises:
        InputError: when the row at `where` is no example.
    """
    allowed = '{"messages": [...]} or {"prompt": "...", "completion": "..."}, with "subtask" if there are several'
    if not isinstance(row, dict):
        raise InputError(f"{where} is no JSON object", allowed=allowed)
    messages: Any = row.get("messages")
    if messages is None and {"prompt", "completion"} <= row.keys():
        messages = [
            {"role": "user", "content": row["prompt"]},
            {"role": "assistant", "content": row["completion"]},
        ]
    fault = fault_of(messages)
    if fault is not None:
        raise InputError(f"{where}: {fault}", allowed=allowed)
    return str(row.get("subtask", "")), messages  # `fault_of` has looked at it
