"""Examples of the tasks that training should help with."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from tamis.core.conversations import Encoder, Tokens, Unusable
from tamis.core.errors import InputError
from tamis.core.jsonrows import json_rows
from tamis.core.leftout import action_for
from tamis.core.samples import Message, fault_of, is_plain
from tamis.core.side import OF_ANSWERS, Side, counts_in_words
from tamis.core.storage import locate, read_bytes
from tamis.influence.settings import TaskSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """A task's tokenised examples, by subtask.

    Attributes:
        lost: fields that change what is taught but are not read, and in how many examples each occurs.
    """

    name: str
    subtasks: dict[str, list[Tokens]]
    lost: dict[str, int] = field(default_factory=dict)


def read_task(settings: TaskSettings, encoder: Encoder, max_left_out_share: float = 1.0) -> Task:
    """Read and tokenise a task's examples.

    Raises:
        InputError: when a line cannot be used, because every example counts in a small set; or when a larger share of
            examples than `max_left_out_share` has fields that change what is taught but are not read.
        StorageError: when the file cannot be read.
    """
    subtasks: dict[str, list[Tokens]] = {}
    side = fields_beside()
    for where, row in json_rows(read_bytes(locate(settings.path)), f"task {settings.name}: {settings.path}"):
        subtask, messages = example_of(row, where, side)
        try:
            subtasks.setdefault(subtask, []).append(encoder.encode(messages))
        except Unusable as reason:
            raise InputError(f"{where}: {reason}", action=action_for(str(reason), "influence")) from None
    if not subtasks:
        raise InputError(f"task {settings.name}: {settings.path} has no examples", allowed="at least one example")
    _check_side(side, sum(map(len, subtasks.values())), settings, max_left_out_share)
    return Task(settings.name, subtasks, dict(sorted(side.lost.items())))


def fields_beside() -> Side:
    """Return an empty count of the fields that examples have besides their conversations, for `example_of`."""
    return Side(frozenset(("subtask",)))


def _check_side(side: Side, examples: int, settings: TaskSettings, most: float) -> None:
    if not side.lost:
        return
    problem = (
        f"task {settings.name}: {settings.path}: {side.samples:,} of {examples:,} examples have fields that change "
        f"what is taught but are not read: {counts_in_words(side.lost)}"
    )
    if side.samples > most * examples:
        raise InputError(
            problem,
            allowed=f"at most {most:.1%} of the examples (influence.max_left_out_share)",
            action="put a system prompt into the first message; convert or remove the other fields, or raise the limit",
        )
    log.warning("%s", problem)


def example_of(row: Any, where: str, side: Side) -> tuple[str, list[Message]]:
    """Return subtask and conversation of a row of a task's file; `side` counts the row's other fields.

    Raises:
        InputError: when the row at `where` is not an example.
    """
    allowed = '{"messages": [...]} or {"prompt": "...", "completion": "..."}, with "subtask" if there are several'
    if not isinstance(row, dict):
        raise InputError(f"{where} is not a JSON object", allowed=allowed)
    messages: Any = row.get("messages")
    read = ("messages",) if messages is not None else ("prompt", "completion")
    if messages is None and {"prompt", "completion"} <= row.keys():
        messages = [
            {"role": "user", "content": row["prompt"]},
            {"role": "assistant", "content": row["completion"]},
        ]
    plain = _plain(messages)
    fault = fault_of(plain)
    if fault is None and not is_plain(plain):
        fault = "it has turns of a tool or a developer, which are not read"
    if fault is not None:
        raise InputError(f"{where}: {fault}", allowed=allowed)
    side.add(row, tuple(row), read, _beside(messages), messages)
    return str(row.get("subtask", "")), messages  # `fault_of` has checked their type


def _plain(messages: Any) -> Any:
    """`messages` without the fields of their turns that are not read."""
    if not isinstance(messages, list):
        return messages
    read = ("role", "content")
    return [
        {name: turn[name] for name in read if name in turn} if isinstance(turn, dict) else turn for turn in messages
    ]


def _beside(messages: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the values of fields other than role and content in the turns, by "messages.NAME"."""
    beside: dict[str, list[Any]] = {}
    for turn in messages:
        for name, value in turn.items():
            if name not in ("role", "content") and value is not None:
                values = beside.setdefault(f"messages.{name}", [])
                values += [value] if turn["role"] == "assistant" or name not in OF_ANSWERS else []
    return beside
