"""Prompts as token ids: a head that all samples share, the sample, and a tail that ends where the answer begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tamis.core.conversations import Format, chat_tokenizer
from tamis.core.errors import ModelError
from tamis.core.leftout import BEYOND, action_for
from tamis.core.models import load_tokenizer
from tamis.core.samples import Message
from tamis.core.templates import PlainWords, render, unusable
from tamis.llm.backend import Prompt, Size

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PLACE = "<<the sample's place>>"
_LEAST = 32  # a long sample of which fewer tokens would be left is not asked about
_BLOCK = 1000  # texts handed to the tokenizer at once


@dataclass(frozen=True, slots=True)
class Encoded:
    """A sample's token ids and its size. The ids are empty where it cannot be asked about."""

    ids: list[int]
    size: Size


class PromptEncoding:
    """Turns samples into token ids under one prompt, chat template and context length.

    Where the answer has a form, a sample is cut off from the words around it, so that nothing in it can be taken for
    them. For free text it is tokenised with the chat template in one piece, as a trained model has read it.

    Args:
        tokenizer: of a chat model.
        prompt: the wording.
        context: most tokens that the model can take; None where it names no limit.
        answer: most tokens that the answer takes.
        limit: most tokens of a sample.
        vocabulary: number of tokens that the model knows; None: all that the tokenizer has.

    Raises:
        ModelError: when the tokenizer has no usable chat template, the prompt has tokens that the model does not know,
            or the context has no room beside the prompt.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompt: Prompt,
        *,
        context: int | None,
        answer: int,
        limit: int,
        vocabulary: int | None = None,
    ) -> None:
        head, tail = around(tokenizer, prompt.before, prompt.after)
        self._words = PlainWords(tokenizer)
        self.head: list[int] = tokenizer(head, add_special_tokens=False)["input_ids"]
        self.tail: list[int] = tokenizer(tail, add_special_tokens=False)["input_ids"]
        self._vocabulary = vocabulary
        if not self._knows([*self.head, *self.tail]):
            raise ModelError(f"the prompt of '{tokenizer.name_or_path}' has {BEYOND}", action=action_for(BEYOND, ""))
        self._marker = None if prompt.marker is None else self._ids_of([f"\n\n{prompt.marker}\n\n"])[0]
        self._around = len(self.head) + len(self.tail)
        self._whole = None if prompt.form else _Whole(tokenizer, self._words, head, tail, self.head, self.tail)
        if self._whole is not None:
            self.head, self.tail = self._whole.head, []
        room = limit if context is None else context - self._around - answer
        if room < 1:
            raise ModelError(
                f"the prompt takes {self._around} tokens and the answer up to {answer}, but the model's context has "
                f"{context}: no room for a sample",
                action="use a model with a longer context, or a shorter prompt",
            )
        self._limit = min(limit, room)

    @property
    def longest_prompt(self) -> int:
        """Most tokens of a prompt with its sample, shortened if need be."""
        return self._around + self._limit

    def complaint(self, size: Size) -> str:
        """Why a sample of this size cannot be asked about."""
        if size.unknown:
            return BEYOND
        what = "the model's context" if self._marker else "max_sample_tokens, or the model's context"
        return f"longer than {what}: {size.prompt_tokens} tokens"

    def encode(self, texts: Sequence[str]) -> Iterator[Encoded]:
        """The token ids of each text, shortened in the middle where they are more than the limit."""
        for start in range(0, len(texts), _BLOCK):
            block = texts[start : start + _BLOCK]
            ids = self._ids_of(block)
            yield from map(self._fitted, ids if self._whole is None else map(self._whole.ids, block, ids))

    def _knows(self, ids: Sequence[int]) -> bool:
        return self._vocabulary is None or max(ids, default=0) < self._vocabulary

    def _fitted(self, ids: list[int]) -> Encoded:
        tokens = len(self.head) + len(ids) + len(self.tail)
        if not self._knows(ids):
            return Encoded([], Size(tokens, unknown=True))
        if tokens <= self.longest_prompt:
            return Encoded(ids, Size(tokens))
        if self._marker is None or self._limit - len(self._marker) < _LEAST:
            return Encoded([], Size(tokens, too_long=True))
        return Encoded(shorten_middle(ids, self._limit, self._marker), Size(self._around + self._limit, shortened=True))

    def _ids_of(self, texts: Sequence[str]) -> list[list[int]]:
        # A sample may hold the words of the chat template's own tokens ("<|im_end|>"); they stay plain text here, so
        # that no sample can end its own turn.
        return self._words.tokens(texts)


class _Whole:
    """Samples tokenised together with the chat template around them.

    `head` is what all prompts begin with. Behind it a token may reach over the border of the sample, as one of a full
    stop and a line break does. A sample that holds words of the template is cut off from it after all.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        words: PlainWords,
        before: str,
        after: str,
        head: list[int],
        tail: list[int],
    ) -> None:
        self._tokenizer, self._words = tokenizer, words
        self._before, self._after, self._apart = before, after, (head, tail)
        self.head = head[:-1] or head  # the last token may join with the sample

    def ids(self, text: str, alone: list[int]) -> list[int]:
        """Token ids behind `head` of the prompt with `text`, whose own are `alone`."""
        if not self._words.are_in(text):
            whole = self._tokenizer(self._before + text + self._after, add_special_tokens=False)["input_ids"]
            if whole[: len(self.head)] == self.head:
                return list(whole[len(self.head) :])
        head, tail = self._apart
        return [*head[len(self.head) :], *alone, *tail]


def around(tokenizer: PreTrainedTokenizerBase, before: str = "", after: str = "") -> tuple[str, str]:
    """What the chat template, and a prompt's own words in it, put in front of a sample and behind it.

    Raises:
        ModelError: when there is no chat template, or it has a fault, or it refuses or leaves out a user's message.
    """
    from jinja2 import TemplateError

    name = tokenizer.name_or_path
    if not tokenizer.chat_template:
        raise ModelError(
            f"the model '{name}' has no chat template, so it cannot answer prompts",
            allowed="a chat (instruct) model",
            action="use the instruct version of the model",
        )
    try:
        text = render(tokenizer, [Message(role="user", content=before + _PLACE + after)], prompt=True)
    except TemplateError as error:
        action = "correct chat_template.jinja in the model's folder, or use another model"
        raise unusable(name, error, action=action) from None
    head, place, tail = text.partition(_PLACE)
    if not place:
        raise ModelError(f"the chat template of '{name}' omits the user's message")
    return head, tail


def asking_tokenizer(model: str, revision: str | None, style: Format) -> PreTrainedTokenizerBase:
    """The tokenizer of `model` with its own chat template, or with Tulu's.

    Raises:
        ModelError: when it cannot be loaded, or is not one that Tulu's format can be used with.
    """
    return chat_tokenizer(model, revision, style) if style == "tulu" else load_tokenizer(model, revision)


def shorten_middle(ids: list[int], limit: int, marker: list[int]) -> list[int]:
    """Leave out the middle of `ids` so that `limit` are left: the beginning, `marker`, and the end."""
    kept = limit - len(marker)
    front = (kept + 1) // 2
    return ids[:front] + marker + ids[len(ids) - (kept - front) :]
