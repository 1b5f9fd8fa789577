"""A sample is one conversation: its id, its checks and its forms as text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, TypedDict

ROLES = ("system", "user", "assistant")

# The fields of each schema, with their default names. "system" has none: it is read only if `fields` names it.
FIELDS: dict[str, tuple[str, ...]] = {
    "messages": ("messages", "role", "content", "system"),
    "conversations": ("conversations", "from", "value", "system"),
    "instruction": ("instruction", "input", "output", "system"),
    "prompt_completion": ("prompt", "completion", "system"),
}
FIELDS_OF_A_MESSAGE = {"role", "content", "from", "value"}  # fields inside messages


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    content: str


def sample_id(messages: Sequence[Message]) -> str:
    """The id of a sample: the 128-bit BLAKE2b hash of its canonical messages, as 32 hex digits.

    Equal conversations have equal ids in every pool, so pools can share ratings and embeddings.
    """
    canonical = json.dumps([[m["role"], m["content"]] for m in messages], ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def fault_of(messages: Any) -> str | None:
    """Why `messages` cannot be used as a sample, or None if it can.

    A sample is a non-empty list of {role, content} with known roles and text that is valid Unicode. It has at least
    one user and one assistant message, and no message of white space only.
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
    """All assistant messages, joined by line breaks: what a model learns from the sample."""
    return "\n".join(message["content"] for message in messages if message["role"] == "assistant")
