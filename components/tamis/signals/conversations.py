"""A block of samples as the signals read it: every text is split into parts once, on first use."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

import pyarrow as pa

from tamis.core.sample_columns import conversations
from tamis.core.samples import Message

_THOUGHTS = re.compile(r"<think(?:ing)?>(.*?)(?:</think(?:ing)?>|\Z)", re.DOTALL)


class Conversations:
    """Up to some thousand samples.

    Attributes:
        messages: the messages of each sample, as the pool has them; a field without a value is absent.
        tools: the function schemas of each sample as JSON text; None if it has none.
    """

    def __init__(self, messages: Sequence[Sequence[Message]], tools: Sequence[str | None] | None = None) -> None:
        self.messages = messages
        self.tools = tools if tools is not None else [None] * len(messages)

    @classmethod
    def of(cls, batch: pa.RecordBatch) -> Conversations:
        """The samples of a pool's batch with the columns `messages` and `tools`."""
        return cls(conversations(batch["messages"]), batch["tools"].to_pylist())

    def __len__(self) -> int:
        return len(self.messages)

    @cached_property
    def _assistant(self) -> list[list[tuple[str, str]]]:
        """The answer and the thoughts of each assistant message."""
        return [[_split(turn) for turn in turns if turn["role"] == "assistant"] for turns in self.messages]

    @cached_property
    def answers(self) -> list[str]:
        """All answers of each sample, without thoughts, joined by line breaks."""
        return ["\n".join(answer for answer, _ in turns if answer) for turns in self._assistant]

    @cached_property
    def last_answers(self) -> list[str]:
        """The last answer of each sample, without thoughts; "" if the last assistant message has no text."""
        return [turns[-1][0] if turns else "" for turns in self._assistant]

    @cached_property
    def thoughts(self) -> list[str]:
        """The thoughts of each sample: the field `reasoning`, and <think> blocks in messages; joined by line breaks."""
        return ["\n".join(thought for _, thought in turns if thought) for turns in self._assistant]

    @cached_property
    def texts(self) -> list[str]:
        """The text of all messages of each sample, with thoughts, joined by line breaks."""
        return [
            "\n".join(part for turn in turns for part in (turn.get("reasoning", ""), turn.get("content", "")) if part)
            for turns in self.messages
        ]


def _split(turn: Message) -> tuple[str, str]:
    """The answer and the thoughts of an assistant message."""
    content, thoughts = turn.get("content", ""), turn.get("reasoning", "")
    if "<think" not in content:
        return content, thoughts
    inside = [found.strip() for found in _THOUGHTS.findall(content)]
    return _THOUGHTS.sub("", content).strip(), "\n".join(part for part in (thoughts, *inside) if part)
