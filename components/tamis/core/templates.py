"""Chat templates, rendered with a fixed date, and the text of control tokens inside samples kept as plain text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tamis.core.errors import ModelError
from tamis.core.samples import Message

if TYPE_CHECKING:
    from jinja2 import TemplateError
    from transformers import PreTrainedTokenizerBase

_DAY = datetime(2024, 7, 26)
_MARKS = range(0xE000, 0xF900)  # characters without meaning: Unicode's private use area


def on_the_day(form: str) -> str:
    """The fixed date in the `strftime` format of a template."""
    return _DAY.strftime(form)


# Many templates put the date into the prompt, some as a variable, some with a function. A fixed date keeps prompts,
# training and scores the same on every day.
PINNED: Mapping[str, Any] = {"date_string": on_the_day("%d %b %Y"), "strftime_now": on_the_day}


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, prompt: bool = False) -> str:
    """A conversation in the tokenizer's chat template, with the header of an answer at its end if `prompt` is set.

    Raises:
        jinja2.TemplateError: when the template rejects the conversation. A subclass means an error in the template.
    """
    from jinja2 import TemplateError, TemplateRuntimeError

    turns = [{"role": message["role"], "content": message["content"]} for message in messages]
    try:
        rendered: Any = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt, **PINNED)
    except TemplateError:
        raise
    except Exception as error:  # a Python error, for example if a template adds text and numbers
        raise TemplateRuntimeError(f"{type(error).__name__}: {error}") from error
    return str(rendered)


def is_fault(error: TemplateError) -> bool:
    """Whether the template itself is wrong, and did not just reject a conversation with `raise_exception`."""
    from jinja2 import TemplateError

    return type(error) is not TemplateError


def unusable(model: str, error: TemplateError, *, action: str) -> ModelError:
    """An error for a chat template that cannot be used, with the reason and, if known, the line."""
    line = getattr(error, "lineno", None)
    words = " ".join(str(error.message or error).split())
    what = "has an error" if is_fault(error) else "rejects a user's message"
    where = f" (line {line})" if line is not None else ""
    return ModelError(f"the chat template of '{model}' {what}: {words}{where}", action=action)


class Unmarkable(Exception):
    """This tokenizer cannot encode the text of some control token as plain text."""


class PlainWords:
    """Finds the text of control tokens in samples, and makes the tokenizer encode it as plain text.

    Control tokens are the tokenizer's special tokens, and the tokens that the chat template puts around turns. Other
    added tokens, such as `<think>` of many models, stay tokens, because answers should contain them.

    A mark, a character without meaning that the sample does not contain, is inserted into such a word. The tokenizer
    then encodes the word's characters, and the tokens of the mark are removed.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        added = {str(token): token.special for token in tokenizer.added_tokens_decoder.values()}
        special = {word for word, is_special in added.items() if is_special} | set(tokenizer.all_special_tokens)
        framing = _framing(tokenizer)
        # Some tokenizers have added tokens for white space, which is not a control token.
        other = {word for word in set(added) - special if word in framing and not word.isalnum() and word.strip()}
        self._words = special | other
        self._pattern = _any_of(self._words)
        self._other = _any_of(other) if tokenizer.is_fast else None  # slow tokenizers do not report offsets

    def are_in(self, text: str) -> bool:
        """Whether `text` contains the text of control tokens."""
        return self._pattern is not None and self._pattern.search(text) is not None

    def mark(self, texts: Sequence[str]) -> tuple[list[str], str]:
        """The texts with a mark inserted into the text of every control token, and the mark."""
        return self._marked(texts, self._pattern)

    def unmark(self, text: str, mark: str, ids: list[int], places: Sequence[tuple[int, int]]) -> list[int]:
        """Which tokens of a marked text are not tokens of marks.

        Args:
            text: the text that was tokenised.
            mark: the mark.
            ids: the token ids.
            places: start and end of each token in `text`.

        Returns:
            Indices of `ids`, ascending.

        Raises:
            Unmarkable: when a token contains a mark and other text, or a word became a control token all the same.
        """
        kept = [number for number, (begin, end) in enumerate(places) if mark not in text[begin:end]]
        if any(end - begin > 1 for number, (begin, end) in enumerate(places) if mark in text[begin:end]):
            raise Unmarkable
        own = len(self._pattern.findall(text)) if self._pattern else 0  # the template's control tokens
        if sum(ids[number] in self._ids for number in kept) != own:
            raise Unmarkable
        return kept

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of samples without a template. No text becomes a control token."""
        marked = [self._other is not None and self._other.search(text) is not None for text in texts]
        plain = self._tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False)
        found: list[list[int]] = plain["input_ids"]
        for number, text in enumerate(texts):
            if marked[number]:
                (broken,), mark = self._marked([text], self._other)
                found[number] = self._without(broken, mark)
        return found

    def _marked(self, texts: Sequence[str], pattern: re.Pattern[str] | None) -> tuple[list[str], str]:
        mark = next(chr(code) for code in _MARKS if not any(chr(code) in text for text in texts))
        if pattern is None:
            return list(texts), mark
        return [pattern.sub(lambda found: self._broken(found[0], mark), text) for text in texts], mark

    def _broken(self, word: str, mark: str) -> str:
        """`word` with a mark at the end of its first plain token, so that the tokens on both sides stay the same."""
        plain = self._tokenizer(
            word, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
        )
        end = next((end for _, end in plain["offset_mapping"] if end), 1)
        end = end if end < len(word) else 1
        return word[:end] + mark + word[end:]

    def _without(self, text: str, mark: str) -> list[int]:
        read = self._tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
        )
        places = read["offset_mapping"]
        return [token for token, (begin, end) in zip(read["input_ids"], places, strict=True) if text[begin:end] != mark]

    @cached_property
    def _ids(self) -> set[int]:
        vocabulary = self._tokenizer.get_vocab()
        ids = {vocabulary[word] for word in self._words if word in vocabulary}
        unknown = self._tokenizer.unk_token_id  # any text may have it
        return ids if unknown == self._tokenizer.eos_token_id else ids - {unknown}


def _framing(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the template writes around turns; empty if there is no template, or it rejects plain turns."""
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        return ""
    turns = [Message(role=role, content="a") for role in ("user", "assistant", "user")]
    try:
        return render(tokenizer, turns)
    except TemplateError:
        return ""


def _any_of(words: set[str]) -> re.Pattern[str] | None:
    longest_first = sorted(words, key=lambda word: (-len(word), word))
    return re.compile("|".join(map(re.escape, longest_first))) if words else None
