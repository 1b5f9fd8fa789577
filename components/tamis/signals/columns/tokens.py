"""tokens: the length of the whole sample and of its answers, in tokens of a named tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tamis.core.models import load_tokenizer, revision_of
from tamis.signals.columns.base import Column, Signal
from tamis.signals.conversations import Conversations

if TYPE_CHECKING:
    from tamis.signals.settings import DescribeSettings


@cache
def _tokenizer(name: str, revision: str | None) -> Any:
    return load_tokenizer(name, revision)


def _measure(samples: Conversations, settings: DescribeSettings) -> Mapping[str, Any]:
    assert settings.tokenizer is not None
    tokenizer = _tokenizer(settings.tokenizer, settings.tokenizer_revision)

    def counts(texts: Sequence[str]) -> list[int]:
        # The text of control tokens in a sample counts as plain text, as it does in training.
        encoded = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False)
        return [len(ids) for ids in encoded["input_ids"]]

    return {"tokens": counts(samples.texts), "answer_tokens": counts(samples.answers)}


def _made_by(settings: DescribeSettings) -> Mapping[str, str]:
    assert settings.tokenizer is not None
    return {"tokenizer": revision_of(settings.tokenizer, settings.tokenizer_revision)}


SIGNAL = Signal(
    "tokens",
    {
        "tokens": Column(pa.int32(), "tokens", "text of all messages with thoughts; no chat template", tail=True),
        "answer_tokens": Column(pa.int32(), "tokens", "text of all answers, without thoughts"),
    },
    _measure,
    _made_by,
)
