"""Reasoning models: recognizes them by name, and separates their thoughts from their answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

TOKENS = 4096  # default limit of reasoning tokens
ADVICE = (
    "give it more by max_thinking_tokens (or max_new_tokens), or stop it from thinking where the server can: "
    "extra: {chat_template_kwargs: {enable_thinking: false}}"
)
_OPEN = re.compile(
    r"\s*(?:<(think|thinking|thought|thoughts|reasoning|seed:think)>|\[(THINK)\]|◁(think)▷|<\|channel\|>(analysis))",
    re.I,
)
_FINAL = "<|channel|>final<|message|>"  # before the answer, in the format of gpt-oss
_BARE = "</think>"  # if the chat template contains the opening tag, the answer does not
_THINKING = re.compile(
    r"\bo[1345](?![\w.])|gpt-5|gpt-oss|deepseek-?r\d|\br1\b|qwq|qwen-?3|magistral|gemini-?(?:2\.5|[3-9])|glm-(?:4\.[5-9]|z1)"
    r"|kimi-k2\.?\d*-thinking|minimax-m\d|grok-(?:3-mini|4)|seed-oss|nemotron|think|reason",
    re.I,
)
_NOT_THINKING = re.compile(
    r"instruct|non-?(?:think|reason)|no-?think|chat-latest|gpt-5-chat|coder|embed|deepseek-chat", re.I
)


def split(text: str) -> tuple[str, str]:
    """The thoughts and the answer after them; the answer is empty if the thoughts do not end."""
    if _FINAL in text:
        thoughts, _, answer = text.partition(_FINAL)
        return thoughts, answer.partition("<|")[0]
    opened = _OPEN.match(text)
    if opened is None:
        thoughts, closed, answer = text.partition(_BARE)
        return (thoughts, answer) if closed else ("", text)
    tag, bracket, _, channel = opened.groups()
    end = "" if channel else f"</{tag}>" if tag else "[/THINK]" if bracket else "◁/think▷"
    place = re.search(re.escape(end), text, re.I) if end else None
    return (text, "") if place is None else (text[: place.end()], text[place.end() :])


def thinks(model: str, extra: Mapping[str, Any]) -> bool:
    """Whether a model is a reasoning model by its name, and the request's `extra` fields do not turn reasoning off."""
    template = extra.get("chat_template_kwargs")
    reasoning, thinking = extra.get("reasoning"), extra.get("thinking")
    stopped = (
        (isinstance(template, Mapping) and False in (template.get("enable_thinking"), template.get("thinking")))
        or extra.get("enable_thinking") is False
        or extra.get("reasoning_effort") == "none"
        or (isinstance(thinking, Mapping) and thinking.get("type") == "disabled")
        or (isinstance(reasoning, Mapping) and (reasoning.get("enabled") is False or reasoning.get("effort") == "none"))
    )
    name = model.rstrip("/").rsplit("/", 1)[-1]
    return not stopped and bool(_THINKING.search(name)) and not _NOT_THINKING.search(name)
