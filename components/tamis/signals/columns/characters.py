"""characters: the length of the whole sample, of its answers and of its thoughts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from tamis.signals.columns.base import Column, Signal
from tamis.signals.conversations import Conversations


def _measure(samples: Conversations, settings: object) -> Mapping[str, Any]:
    answers, thoughts = [*map(len, samples.answers)], [*map(len, samples.thoughts)]
    shares = [part / (part + other) if part else 0.0 for part, other in zip(thoughts, answers, strict=True)]
    return {"characters": [*map(len, samples.texts)], "answer_characters": answers, "thoughts_share": shares}


SIGNAL = Signal(
    "characters",
    {
        "characters": Column(pa.int64(), "characters", "all messages, with thoughts", tail=True),
        "answer_characters": Column(pa.int64(), "characters", "all answers, without thoughts"),
        "thoughts_share": Column(pa.float32(), "share", "thoughts as a share of thoughts and answers, in characters"),
    },
    _measure,
)
