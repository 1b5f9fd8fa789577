"""tools: the functions that a sample offers, and its calls."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from tamis.signals.columns.base import Column, Signal
from tamis.signals.conversations import Conversations


def _offered(tools: str | None) -> int:
    found = json.loads(tools) if tools else []
    return len(found) if isinstance(found, list) else 1


def _measure(samples: Conversations, settings: object) -> Mapping[str, Any]:
    return {
        "tools_offered": [*map(_offered, samples.tools)],
        "tool_calls": [sum(len(turn.get("tool_calls", ())) for turn in turns) for turns in samples.messages],
        "tool_results": [sum(turn["role"] == "tool" for turn in turns) for turns in samples.messages],
    }


SIGNAL = Signal(
    "tools",
    {
        "tools_offered": Column(pa.int32(), "functions", "functions that the sample offers to the model"),
        "tool_calls": Column(pa.int32(), "calls", "calls of functions in all answers"),
        "tool_results": Column(pa.int32(), "messages", "messages with the result of a call"),
    },
    _measure,
)
