"""endings: answers that stop in the middle, and texts that stand for a missing value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from tamis.signals.columns.base import Column, Signal
from tamis.signals.columns.code import is_code
from tamis.signals.conversations import Conversations

_FENCE = re.compile(r"^\s*```", re.MULTILINE)
_PROSE = 10  # words in the last line; a shorter one may be an item, a verse or a signature
_OPEN = re.compile(r"[,;:(\[{–—-]$|\b(?:and|or|but|the|a|an|of|to|with|for|in|because|und|oder|et|ou|y|o|de)$", re.I)
_ENDED = re.compile(r"[^\w\s,;:(\[{–—-]\W*$")
_NO_FULL_STOP = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")  # Thai, Lao, Burmese, Khmer
_LINK = re.compile(r"(?:https?://|www\.)\S+$|\S+@\S+$")
_MISSING = {"none", "nan", "null", "n/a", "#n/a", "undefined", "nil", "<na>", "nat", "[]", "{}", "-", "...", "…"}


def truncated(text: str) -> bool:
    """Whether an answer seems to stop in the middle.

    Signs are a code block that is not closed, or a last line of at least 10 words of prose that ends within a sentence.
    Short answers, lists of short items, code and scripts without a full stop count as complete.
    """
    if len(_FENCE.findall(text)) % 2:
        return True
    *_, line = text.rstrip().splitlines() or [""]
    line = line.strip()
    if line.startswith("```") or len(line.split()) < _PROSE or _NO_FULL_STOP.search(line) or is_code(line):
        return False
    if _LINK.search(line):
        return False
    return _OPEN.search(line) is not None or _ENDED.search(line) is None


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
