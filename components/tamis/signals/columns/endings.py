"""endings: answers that stop in the middle, and texts that stand for a missing value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from tamis.signals.columns.base import Column, Signal
from tamis.signals.columns.code import is_code
from tamis.signals.conversations import Conversations

_FENCE = re.compile(r"^\s*(`{3,})(.*)$", re.MULTILINE)
_PROSE = 10  # words in the last line; a shorter one may be an item, a verse or a signature
_OPEN = re.compile(r"[,;:(\[{–—-]$|\b(?:and|or|but|the|a|an|of|to|with|for|in|because|und|oder|et|ou|y|o|de)$", re.I)
_ENDED = re.compile(r"[^\w\s,;:(\[{–—-]\W*$")
_NO_FULL_STOP = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")  # Thai, Lao, Burmese, Khmer
_ITEM = re.compile(r"(?:[-*•+|>]|\(?\w{1,3}[.)])\s|[^:]{1,40}:\s")  # of a list or a table, or after a label
_LINK = re.compile(r"(?:https?://|www\.)\S+$|\S+@\S+$")
_MISSING = {"none", "nan", "null", "n/a", "#n/a", "undefined", "nil", "<na>", "nat", "[]", "{}", "-", "...", "…"}


def truncated(text: str) -> bool:
    """Whether an answer seems to stop in the middle.

    Signs are a code block that is not closed, or a last line of at least 10 words of prose that ends within a sentence.
    Short answers, lists, code and scripts without a full stop count as complete, and so do texts with other long lines
    that end without a full stop.
    """
    if "```" in text and _in_a_block(text):
        return True
    *others, line = text.rstrip().splitlines() or [""]
    line = line.strip()
    if not _is_prose(line) or _LINK.search(line):
        return False
    if _OPEN.search(line):
        return True
    return _ENDED.search(line) is None and all(_ENDED.search(other) for other in others if _is_prose(other.strip()))


def _in_a_block(text: str) -> bool:
    """Whether a text ends in a code block; a line with as many backticks as its first, or more, closes a block."""
    opened = 0
    for ticks, rest in _FENCE.findall(text):
        if not opened:
            opened = len(ticks) if "`" not in rest else 0
        elif len(ticks) >= opened and not rest.strip():
            opened = 0
    return opened > 0


def _is_prose(line: str) -> bool:
    if len(line.split()) < _PROSE or _ITEM.match(line) or _NO_FULL_STOP.search(line):
        return False
    return not is_code(line)


def placeholder(text: str) -> bool:
    """Whether a text is only a mark for a missing value, such as "None" or "nan"."""
    return len(text) < 20 and text.strip().strip("\"'.").lower() in _MISSING


def _measure(samples: Conversations, settings: object) -> Mapping[str, Any]:
    return {
        "truncated": [truncated(answer) for answer in samples.last_answers],
        "placeholder": [
            any(placeholder(turn["content"]) for turn in turns if turn.get("content")) for turns in samples.messages
        ],
    }


SIGNAL = Signal(
    "endings",
    {
        "truncated": Column(
            pa.bool_(), "yes or no", "the last answer stops within a sentence or a code block", "lower", True
        ),
        "placeholder": Column(
            pa.bool_(), "yes or no", "a message is only “None”, “nan”, “null” or the like", "lower", True
        ),
    },
    _measure,
)
