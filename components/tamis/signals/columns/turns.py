"""turns: how many messages a sample has, and of whom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from tamis.signals.columns.base import Column, Signal
from tamis.signals.conversations import Conversations


def _measure(samples: Conversations, settings: object) -> Mapping[str, Any]:
    return {
        "messages": [*map(len, samples.messages)],
        "turns": [sum(turn["role"] == "user" for turn in turns) for turns in samples.messages],
    }


SIGNAL = Signal(
    "turns",
    {
        "messages": Column(pa.int32(), "messages", "messages of all roles"),
        "turns": Column(pa.int32(), "messages", "messages of the user"),
    },
    _measure,
)
