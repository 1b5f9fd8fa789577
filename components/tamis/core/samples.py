"""A sample: one conversation. Its identity, its checks and its text forms."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, TypedDict

ROLES = ("system", "user", "assistant")

# The fields of each schema by their usual names. "system" has none: it is read where `fields` names it.
FIELDS: dict[str, tuple[str, ...]] = {
    "messages": ("messages", "role", "content", "system"),
    "conversations": ("conversations", "from", "value", "system"),
    "instruction": ("instruction", "input", "output", "system"),
    "prompt_completion": ("prompt", "completion", "system"),
}
FIELDS_OF_A_MESSAGE = {"role", "content", "from", "value"}  # of them, those that lie inside messages


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    content: str


def sample_id(messages: Sequence[Message]) -> str:
    """Identity of a sample: 128-bit BLAKE2b hash of its canonical messages, as 32 hex digits.

    Equal conversations have equal ids in every pool, so ratings and embeddings are shared between pools.
    """
    canonical = json.dumps([[m["role"], m["content"]] for m in messages], ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def fault_of(messages: Any) -> str | None:
    """Why `messages` is no usable sample, or None when it is one.

    A sample is a non-empty list of {role, content} with known roles and text content, at least one user and one
    assistant message, no message of white space only, and text that is valid Unicode.
    """
    if not isinstance(messages, list) or not messages:
        return "no messages"
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            return f"message {number} has no role or no content"
        role, content = message["role"], message["content"]
        if role not in ROLES:
            return f"message {number} has the role {role!r}; allowed: {', '.join(ROLES)}"
        if not isinstance(content, str) or not content.strip():
            return f"message {number} ({role}) is empty"
        try:
            content.encode()
        except UnicodeEncodeError:
            return f"message {number} ({role}) is not valid Unicode"
    roles = {message["role"] for message in messages}
    for needed in ("user", "assistant"):
        if needed not in roles:
            return f"no {needed} message"
    return None


def as_text(messages: Sequence[Message]) -> str:
    """The whole conversation as text: one "### role: content" block per message (paper section 3.1)."""
    return "\n".join(f"### {message['role']}: {message['content']}" for message in messages)


def instruction_of(messages: Sequence[Message]) -> str:
    """The first user message."""
    return next(message["content"] for message in messages if message["role"] == "user")


def response_of(messages: Sequence[Message]) -> str:
    """All assistant messages, joined by line breaks: what the sample teaches."""
    return "\n".join(message["content"] for message in messages if message["role"] == "assistant")
