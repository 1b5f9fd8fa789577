"""Conversations as token ids and labels. The loss mask covers only the assistant's answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

from tamis.core.errors import ModelError, SettingsError
from tamis.core.leftout import BEYOND, NOT_PLAIN, REFUSED, REWRITTEN, TOO_LONG
from tamis.core.models import load_tokenizer
from tamis.core.samples import Message
from tamis.core.templates import PlainWords, Unmarkable, is_fault, render, unusable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # label of a token outside the loss mask
Format = Literal["tulu", "chat"]

# Tulu's format, which the paper uses for training: a header line per turn, the end token after each answer.
_TULU = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] }}"
    "{{ (eos_token if message['role'] == 'assistant' else '') + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)

_PLAIN = (Message(role="user", content="a"), Message(role="assistant", content="b"))


class Unusable(Exception):
    """Why one sample cannot be used. Such samples are counted by reason."""


@dataclass(frozen=True)
class Tokens:
    """One encoded sample: token ids, labels (`IGNORED` outside the loss mask), and what was changed."""

    input_ids: list[int]
    labels: list[int]
    shortened: bool
    unended: int  # assistant turns without an end token in this format
    broken: bool = False  # whether the sample contains the text of control tokens, encoded as plain text


def chat_tokenizer(model: str, revision: str | None, style: Format) -> PreTrainedTokenizerBase:
    """The tokenizer of `model` with the chat template of `style`: Tulu's, or the model's own.

    Raises:
        ModelError: when it cannot be loaded, does not report the offsets of its tokens in the text, has no end token
            for Tulu's answers, or has a chat template with an error in it.
        SettingsError: when `style` is "chat" and the model has no chat template.
    """
    tokenizer = load_tokenizer(model, revision)
    if not tokenizer.is_fast:
        raise ModelError(
            f"the tokenizer of '{model}' does not report where in the text its tokens are",
            allowed="a model with a tokenizer.json",
            action="convert it to one of transformers' fast tokenizers and save that in the model's folder",
        )
    if style == "tulu":
        if not tokenizer.eos_token:
            raise ModelError(
                f"the tokenizer of '{model}' has no end token; format: tulu needs one after each answer",
                allowed="a tokenizer with eos_token in its tokenizer_config.json",
                action="add eos_token there, or set format: chat if the model's template ends answers itself",
            )
        starts = bool(tokenizer.bos_token) and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
        tokenizer.chat_template = ("{{ bos_token }}" if starts else "") + _TULU
    elif not tokenizer.chat_template:
        raise SettingsError(f"the model '{model}' has no chat template", action="set format: tulu, or use a chat model")
    else:
        _check_template(tokenizer, model)
    return tokenizer


def _check_template(tokenizer: PreTrainedTokenizerBase, model: str) -> None:
    """Make sure that the chat template works. A template may reject some conversations.

    Raises:
        ModelError: when rendering fails with an error for every plain conversation.
    """
    from jinja2 import TemplateError

    faults = []
    for turns in (_PLAIN[:1], _PLAIN):
        try:
            render(tokenizer, turns)
        except TemplateError as error:
            faults += [error] if is_fault(error) else []  # rejected samples are counted later
    if len(faults) > 1:
        action = "correct chat_template.jinja in the model's folder, or set format: tulu"
        raise unusable(model, faults[0], action=action) from None


class Encoder:
    """Turns conversations into token ids and labels with the tokenizer's chat template.

    The loss mask covers the tokens that begin inside an assistant's turn: the answer and the end token after it. Many
    templates do not mark these places (`{% generation %}`), so they are found in the rendered text: an answer begins
    where the rendered prompt, which ends in the assistant's header, ends. docs/decisions/0025
    says what such marks cover besides.

    The text is split there before it is tokenised, so that no token spans the header and the answer, as a line break
    and the indent of code would. The model is thus trained on the tokens that it sees as a prompt. Tokenizers that put
    a space before every text do not allow such a split; they get the whole text.

    The text of control tokens inside a sample, such as "<|im_end|>", is encoded as plain text.

    Args:
        tokenizer: with a chat template.
        max_tokens: largest number of tokens of a sample; longer samples are cut at the end.
        vocabulary: number of tokens in the model's vocabulary; None for the tokenizer's.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int, vocabulary: int | None = None) -> None:
        self._tokenizer, self._max_tokens, self._vocabulary = tokenizer, max_tokens, vocabulary
        self._plain = PlainWords(tokenizer)
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("a\n", "b", "a\nb")]
        self._composes = ids[0] + ids[1] == ids[2]
        added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        self._ends = tuple(sorted(added | set(tokenizer.all_special_tokens), key=lambda token: (-len(token), token)))

    def encode(self, messages: Sequence[Message]) -> Tokens:
        """Token ids and labels of one conversation, cut at the end to `max_tokens`.

        Raises:
            Unusable: when the template rejects or rewrites the conversation, the cut leaves nothing of any answer, or
                a token is not in the model's vocabulary.
        """
        mark, broken = "", any(self._plain.are_in(message["content"]) for message in messages)
        if broken:
            texts, mark = self._plain.mark([message["content"] for message in messages])
            messages = [Message(role=m["role"], content=text) for m, text in zip(messages, texts, strict=True)]
        text, spans, unended = self._spans(messages)
        cuts = [0, *(start for start, _ in spans if start), len(text)] if self._composes else [0, len(text)]
        parts = [text[start:end] for start, end in pairwise(cuts)]
        encoded = self._tokenizer(parts, add_special_tokens=False, return_offsets_mapping=True)
        all_ids = [token for part in encoded["input_ids"] for token in part]
        places = [cut + begin for cut, part in zip(cuts, encoded["offset_mapping"], strict=False) for begin, _ in part]
        if broken:
            ends = [cut + end for cut, part in zip(cuts, encoded["offset_mapping"], strict=False) for _, end in part]
            try:
                kept = self._plain.unmark(text, mark, all_ids, list(zip(places, ends, strict=True)))
            except Unmarkable:
                raise Unusable(NOT_PLAIN) from None
            all_ids, places = [all_ids[number] for number in kept], [places[number] for number in kept]
        input_ids, begins = all_ids[: self._max_tokens], np.array(places[: self._max_tokens])
        if self._vocabulary is not None and max(input_ids, default=0) >= self._vocabulary:
            raise Unusable(BEYOND)
        learnt = np.zeros(len(input_ids), dtype=bool)
        for start, end in spans:
            learnt |= (begins >= start) & (begins < end)
        if not learnt.any():
            raise Unusable(TOO_LONG)
        labels = np.where(learnt, input_ids, IGNORED).tolist()
        return Tokens(input_ids, labels, len(all_ids) > len(input_ids), unended, broken)

    def _render(self, messages: Sequence[Message], *, prompt: bool = False) -> str:
        from jinja2 import TemplateError

        try:
            return render(self._tokenizer, messages, prompt=prompt)
        except TemplateError:
            raise Unusable(REFUSED) from None

    def _spans(self, messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]], int]:
        """The rendered conversation, the [start, end) spans of the loss mask, and how many turns have no end token."""
        text, spans, unended = self._render(messages), [], 0
        for turn, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self._render(messages[:turn]) if turn else ""
            header = self._render(messages[:turn], prompt=True) if turn else ""
            # A prompt may end in more than the header, such as an open block of thoughts. Only the shared part counts.
            start = _shared(header, text)
            content = message["content"]
            found = text.find(content, start)
            if found < 0:
                content = content.strip()  # many templates strip it
                found = text.find(content, start)
            if start < len(before) or found < 0:
                raise Unusable(REWRITTEN)
            end, ended = self._end(text, found + len(content))
            spans.append((start if turn else found, end))
            unended += not ended
        return text, spans, unended

    def _end(self, text: str, place: int) -> tuple[int, bool]:
        """The end of an answer with its end token, and whether there is an end token."""
        rest = text[place:]
        blank = len(rest) - len(rest.lstrip())
        token = next((token for token in self._ends if rest.startswith(token, blank)), None)
        return (place, False) if token is None else (place + blank + len(token), True)


def _shared(one: str, other: str) -> int:
    """Length of the longest common prefix of two texts."""
    if other.startswith(one):
        return len(one)
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
