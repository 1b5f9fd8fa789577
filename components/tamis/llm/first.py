"""Whether a model's answers can be read at all: seen at its first ones, before all are asked and paid for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tamis.core.errors import ModelError
from tamis.llm.backend import Answer

if TYPE_CHECKING:
    from tamis.llm.budget import Words

log = logging.getLogger(__name__)
_ENOUGH = 100  # answers of which none can be read
_ENOUGH_AGAIN = 10  # where the store holds that many of earlier runs
_EXAMPLES, _SHOWN = 3, 300  # answers in the error, and characters of each


class UnreadableError(ModelError):
    """A model of whose answers not one is in the form that it was asked for."""

    code = "unreadable-answers"


class FirstAnswers:
    """Counts answers until one can be read; `_ENOUGH` that cannot, with none that can, are enough.

    Answers of earlier runs count: where those were enough, `_ENOUGH_AGAIN` more show whether something has changed.

    Args:
        words: for the log and the error.
        read: answers in the store that could be read.
        unread: answers in the store that could not.
    """

    def __init__(self, words: Words, *, read: int, unread: int) -> None:
        self._words, self._proven = words, read > 0
        self._earlier, self._unread = unread, 0
        self._most = max(_ENOUGH - unread, _ENOUGH_AGAIN)
        self._examples: list[str] = []
        if unread >= _ENOUGH and not read:
            log.warning(
                "%s: none of %d answers of earlier runs, which were paid for, can be read; %d more are asked for, to "
                "see whether something has changed",
                words.who, unread, self._most,
            )  # fmt: skip

    @property
    def failed(self) -> bool:
        """Whether it is enough."""
        return not self._proven and self._unread >= self._most

    def allows(self, under_way: int) -> bool:
        """Whether one more may be asked for while so many are: with all of these it would not be more than enough."""
        return self._proven or self._unread + under_way < self._most

    def count(self, answer: Answer, status: str, reason: str | None) -> None:
        """Count an answer, whose record has this status, and this reason where it could not be read."""
        if status == "ok":
            self._proven = True
        if self._proven or status != "unparsable":
            return
        self._unread += 1
        example = f"{_visible(answer.text)}  ({reason})"
        if len(self._examples) < _EXAMPLES and example not in self._examples:
            self._examples.append(example)

    def check(self) -> None:
        """Raise if it was enough.

        Raises:
            UnreadableError: with some of the answers.
        """
        if not self.failed:
            return
        shown = "\n".join(f"  {example}" for example in self._examples)
        raise UnreadableError(
            f"{self._words.who}: none of {self._earlier + self._unread} answers can be read as a "
            f"{self._words.answer}, so no more is asked. Some of them:\n{shown}",
            allowed="answers in the form that the prompt asks for; single ones that are not are asked again",
            action="see what the model was made to say: another model, prompt or chat template, `structured` that the "
            f"service does not know, or `max_new_tokens` that end the answer too soon; these answers, which were paid "
            f"for, stay in the store, and another run with the same settings asks for {_ENOUGH_AGAIN} more at most "
            "unless it can read one",
        )


def _visible(text: str) -> str:
    """The beginning of an answer in one line; what is no printable character is escaped."""
    return repr(text[:_SHOWN]) + ("…" if len(text) > _SHOWN else "")
