"""Prompts as token ids: a head that all samples share, the sample, and a tail that ends where the answer begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tamis.core.errors import ModelError
from tamis.rating.backend import Size

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tamis.rating.prompts import Prompt

_PLACE = "<<the sample's place>>"
_LEAST = 32  # a long sample of which fewer tokens would be left is not rated
_BLOCK = 1000  # texts handed to the tokenizer at once
# Templates of the Llama family put the date into the prompt. A fixed one keeps ratings the same from day to day.
_DATE = "26 Jul 2024"


@dataclass(frozen=True, slots=True)
class Encoded:
    """A sample's token ids and its size. The ids are empty where it is too long."""

    ids: list[int]
    size: Size


class PromptEncoding:
    """Turns samples into token ids under one prompt, chat template and context length.

    Args:
        tokenizer: of a chat model.
        prompt: the wording.
        context: most tokens that the model can take; None where it names no limit.
        answer: most tokens that the answer takes.
        limit: most tokens of a sample.

    Raises:
        ModelError: when the tokenizer has no usable chat template, or the context has no room beside the prompt.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, prompt: Prompt, *, context: int | None, answer: int, limit: int
    ) -> None:
        if not tokenizer.chat_template:
            raise ModelError(
                f"the model '{tokenizer.name_or_path}' has no chat template, so it cannot be asked to rate",
                allowed="a chat (instruct) model",
                action="name the instruct version of the model",
            )
        chat = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt.before + _PLACE + prompt.after}],
            tokenize=False,
            add_generation_prompt=True,
            date_string=_DATE,
        )
        head, place, tail = str(chat).partition(_PLACE)
        if not place:
            raise ModelError(f"the chat template of '{tokenizer.name_or_path}' leaves the user's message out")
        self._tokenizer = tokenizer
        self.head: list[int] = tokenizer(head, add_special_tokens=False)["input_ids"]
        self.tail: list[int] = tokenizer(tail, add_special_tokens=False)["input_ids"]
        self._marker = self._ids_of([f"\n\n{prompt.marker}\n\n"])[0]
        self._around = len(self.head) + len(self.tail)
        room = limit if context is None else context - self._around - answer
        if room < 1:
            raise ModelError(
                f"the prompt takes {self._around} tokens and the answer up to {answer}, but the model's context has "
                f"{context}: no room for a sample",
                action="choose a model with a longer context, or a shorter prompt",
            )
        self._limit = min(limit, room)

    @property
    def longest_sample(self) -> int:
        """Most tokens of a sample, shortened if need be."""
        return self._limit

    def encode(self, texts: Sequence[str]) -> Iterator[Encoded]:
        """The token ids of each text, shortened in the middle where they are more than the limit."""
        for start in range(0, len(texts), _BLOCK):
            yield from map(self._fitted, self._ids_of(texts[start : start + _BLOCK]))

    def _fitted(self, ids: list[int]) -> Encoded:
        if len(ids) <= self._limit:
            return Encoded(ids, Size(self._around + len(ids)))
        if self._limit - len(self._marker) < _LEAST:
            return Encoded([], Size(self._around + len(ids), too_long=True))
        return Encoded(shorten_middle(ids, self._limit, self._marker), Size(self._around + self._limit, shortened=True))

    def _ids_of(self, texts: Sequence[str]) -> list[list[int]]:
        # A sample may hold the words of the chat template's own tokens ("<|im_end|>"); they stay plain text here, so
        # that no sample can end its own turn.
        tokens = self._tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False)
        ids: list[list[int]] = tokens["input_ids"]
        return ids


def shorten_middle(ids: list[int], limit: int, marker: list[int]) -> list[int]:
    """Leave out the middle of `ids` so that `limit` are left: the beginning, `marker`, and the end."""
    kept = limit - len(marker)
    front = (kept + 1) // 2
    return ids[:front] + marker + ids[len(ids) - (kept - front) :]
