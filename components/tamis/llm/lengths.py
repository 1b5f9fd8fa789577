"""Counts the tokens of texts, and shortens texts, for models behind services."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BYTES_PER_TOKEN = 3.5  # UTF-8 bytes; English prose has more than 4, code about 3, Chinese and Japanese about 3


class Lengths(Protocol):
    """Counts and cuts texts by tokens, real or estimated."""

    def count(self, texts: Sequence[str]) -> list[int]:
        """Number of tokens of each text."""

    def cut(self, text: str, tokens: int) -> tuple[str, str]:
        """The beginning and the end of a text, with `tokens` tokens in total."""


class EstimatedLengths:
    """Estimates by bytes: one token per 3.5 bytes of UTF-8, which for English is about a fifth too many."""

    def count(self, texts: Sequence[str]) -> list[int]:
        """Estimated number of tokens of each text."""
        return [round(len(text.encode()) / _BYTES_PER_TOKEN) for text in texts]

    def cut(self, text: str, tokens: int) -> tuple[str, str]:
        """The beginning and the end of a text, with about `tokens` tokens in total; no character is split."""
        octets, kept = text.encode(), int(tokens * _BYTES_PER_TOKEN)
        front = (kept + 1) // 2
        back = octets[len(octets) - (kept - front) :]
        return octets[:front].decode(errors="ignore"), back.decode(errors="ignore")


class TokenizedLengths:
    """Counts with the model's own tokenizer, from the Hub or a folder."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def count(self, texts: Sequence[str]) -> list[int]:
        """Number of tokens of each text."""
        return [len(ids) for ids in self._encoded(list(texts))["input_ids"]] if texts else []

    def cut(self, text: str, tokens: int) -> tuple[str, str]:
        """The beginning and the end of a text, with `tokens` tokens in total."""
        spans: list[tuple[int, int]] = self._encoded([text], return_offsets_mapping=True)["offset_mapping"][0]
        front = (tokens + 1) // 2
        back = len(spans) - (tokens - front)
        return text[: spans[front - 1][1]], text[spans[back][0] :] if back < len(spans) else ""

    def _encoded(self, texts: list[str], **options: bool) -> Any:
        # Special tokens of the chat template inside a text count as plain text.
        return self._tokenizer(texts, add_special_tokens=False, split_special_tokens=True, verbose=False, **options)
