"""A sample is one conversation: its fields, its id, its checks and its forms as text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NotRequired, TypedDict

ROLES = ("system", "developer", "user", "assistant", "tool")
_FIRST_ROLES = ("system", "user", "assistant")  # the roles of plain samples, whose ids never change

# The fields of each schema, with their default names. "system" has none: it is read only if `fields` names it.
FIELDS: dict[str, tuple[str, ...]] = {
    "messages": ("messages", "role", "content", "system"),
    "conversations": ("conversations", "from", "value", "system"),
    "instruction": ("instruction", "input", "output", "system"),
    "prompt_completion": ("prompt", "completion", "system"),
}
FIELDS_OF_A_MESSAGE = {"role", "content", "from", "value"}  # fields inside messages


class ToolCall(TypedDict):
    """A call of a function by the assistant."""

    id: NotRequired[str]
    name: str
    arguments: str  # canonical JSON, or the raw text if it is not JSON


class Message(TypedDict):
    """One turn of a conversation. Optional fields are absent, not None, where a turn has no such thing."""

    role: str
    content: str  # empty where an assistant only calls tools, or a tool returns nothing
    reasoning: NotRequired[str]  # the assistant's thoughts before its answer
    tool_calls: NotRequired[list[ToolCall]]
    tool_call_id: NotRequired[str]  # of a tool's result: the call that it answers
    name: NotRequired[str]  # of a tool, or of one speaker among several
    train: NotRequired[bool]  # False: the turn is not learnt from


OPTIONAL = ("reasoning", "tool_calls", "tool_call_id", "name", "train")


def is_plain(messages: Sequence[Message], tools: str | None = None) -> bool:
    """Whether a sample has only system, user and assistant messages with text, and no tools."""
    return tools is None and all(
        message["role"] in _FIRST_ROLES and (len(message) == 2 or not _optional(message)) for message in messages
    )


def sample_id(messages: Sequence[Message], tools: str | None = None) -> str:
    """The id of a sample: the 128-bit BLAKE2b hash of everything that it teaches, as 32 hex digits.

    Equal conversations have equal ids in every pool, so pools can share ratings and embeddings. The id of a plain
    sample is the hash of its roles and contents alone.
    """
    canonical: Any = [[message["role"], message["content"]] for message in messages]
    if not is_plain(messages, tools):
        turns = [[*pair, _optional(message)] for pair, message in zip(canonical, messages, strict=True)]
        canonical = {"messages": turns, "tools": tools}
    text = json.dumps(canonical, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def canonical_json_text(value: Any) -> str:
    """`value` as canonical JSON: sorted keys, no spaces. Text that is JSON is parsed first; other text is unchanged.

    Raises:
        TypeError: when JSON cannot represent the value.
    """
    if isinstance(value, str):
        try:
            parsed = json.loads(value)
            return _canonical(parsed) if isinstance(parsed, (dict, list)) else value
        except (ValueError, RecursionError):
            return value
    return _canonical(value)


def fault_of(messages: Any, tools: str | None = None) -> str | None:
    """Why `messages` and `tools` cannot be used as a sample, or None if they can.

    A sample is a non-empty list of messages with known roles and text that is valid Unicode. It has at least one user
    and one assistant message. Only an assistant that calls tools, and a tool, may have no content.
    """
    if not isinstance(messages, list) or not messages:
        return "no messages"
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            return f"message {number} has no role or no content"
        role, content = message["role"], message["content"]
        if role not in ROLES:
            return f"message {number} has the role {role!r}; allowed: {', '.join(ROLES)}"
        may_be_empty = role == "tool" or (role == "assistant" and message.get("tool_calls"))
        if not isinstance(content, str) or not (may_be_empty or content.strip()):
            return f"message {number} ({role}) is empty"
        fault = _fault_of_optional(message) if len(message) > 2 else None
        if fault is not None:
            return f"message {number} ({role}) {fault}"
        if not _is_unicode(content):
            return f"message {number} ({role}) is not valid Unicode"
    if tools is not None and not _is_unicode(tools):
        return "the list of tools is not valid Unicode"
    roles = {message["role"] for message in messages}
    for needed in ("user", "assistant"):
        if needed not in roles:
            return f"no {needed} message"
    return None


def as_text(messages: Sequence[Message], tools: str | None = None) -> str:
    """The whole conversation as text: one "### role: content" block per message (paper section 3.1).

    Tools come first, in a block "### tools". Thoughts come before their answer in "### assistant thoughts", calls after
    it in "### assistant calls".
    """
    blocks = [f"### tools: {tools}"] if tools else []
    for message in messages:
        role, content, name = message["role"], message["content"], message.get("name")
        if message.get("reasoning"):
            blocks.append(f"### {role} thoughts: {message['reasoning']}")
        calls = _calls_of(message)
        if content or not calls:
            blocks.append(f"### {role}{f' {name}' if name else ''}: {content}")
        blocks += [f"### {role} calls: {call}" for call in calls]
    return "\n".join(blocks)


def instruction_of(messages: Sequence[Message]) -> str:
    """The first user message."""
    return next(message["content"] for message in messages if message["role"] == "user")


def response_of(messages: Sequence[Message]) -> str:
    """All assistant messages, joined by line breaks: thoughts, answers and calls."""
    return "\n".join(part for message in messages if message["role"] == "assistant" for part in _said_in(message))


def _said_in(message: Message) -> Iterable[str]:
    thoughts, calls = message.get("reasoning"), _calls_of(message)
    return [
        *([thoughts] if thoughts else []),
        *([message["content"]] if message["content"] or not calls else []),
        *calls,
    ]


def _calls_of(message: Message) -> list[str]:
    return [f"{call['name']}({call['arguments']})" for call in message.get("tool_calls") or ()]


def _optional(message: Message) -> dict[str, Any]:
    """The optional fields of a message that have a value; `train` has one only if it is False."""
    found: dict[str, Any] = {}
    for name in OPTIONAL:
        value: Any = message.get(name)
        if name == "tool_calls" and value:
            found[name] = [{key: part for key, part in call.items() if part is not None} for call in value]
        elif value is not None and value != "" and value != [] and not (name == "train" and value):
            found[name] = value
    return found


def _fault_of_optional(message: Mapping[str, Any]) -> str | None:
    for name in ("reasoning", "tool_call_id", "name"):
        value = message.get(name)
        if value is None:
            continue
        if not isinstance(value, str):
            return f"has a '{name}' of type {type(value).__name__}, not text"
        if not _is_unicode(value):
            return "is not valid Unicode"
    if not isinstance(message.get("train", True), (bool, type(None))):
        return "has a 'train' that is neither true nor false"
    calls = message.get("tool_calls")
    if calls is None:
        return None
    if not isinstance(calls, list):
        return f"has 'tool_calls' of type {type(calls).__name__}, not a list"
    if calls and message["role"] != "assistant":
        return "calls tools; only an assistant can"
    for call in calls:
        if not isinstance(call, dict) or not {"name", "arguments"} <= call.keys() <= {"id", "name", "arguments"}:
            return "has a tool call that is not {id, name, arguments}"
        if not all(isinstance(part, str) for name, part in call.items() if name != "id" or part is not None):
            return "has a tool call with a field that is not text"
        if not call["name"].strip():
            return "has a tool call without a name"
        if not all(_is_unicode(part) for part in call.values() if part is not None):
            return "is not valid Unicode"
    return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _canonical(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False)
