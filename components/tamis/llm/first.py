"""Checks on the first answers that a model's answers can be read, before all of them are paid for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tamis.core.errors import ModelError
from tamis.llm.backend import Answer

if TYPE_CHECKING:
    from tamis.llm.budget import Words

log = logging.getLogger(__name__)
_ENOUGH = 100  # unreadable answers, with no readable one, after which a run stops
_ENOUGH_AGAIN = 10  # likewise, if the store already has that many from earlier runs
_EXAMPLES, _SHOWN = 3, 300  # answers in the error, and characters of each


class UnreadableError(ModelError):
    """None of a model's answers has the requested form."""

    code = "unreadable-answers"
    permanent = True


class FirstAnswers:
    """Counts answers until one can be read, and fails after `_ENOUGH` unreadable ones.

    Answers of earlier runs count. If those already failed, `_ENOUGH_AGAIN` more show whether something has changed.

    Args:
        words: words for logs and errors.
        read: number of readable answers in the store.
        unread: number of unreadable answers in the store.
    """

    def __init__(self, words: Words, *, read: int, unread: int) -> None:
        self._words, self._proven = words, read > 0
        self._earlier, self._unread = unread, 0
        self._most = max(_ENOUGH - unread, _ENOUGH_AGAIN)
        self._examples: list[str] = []
        if unread >= _ENOUGH and not read:
            log.warning(
                "%s: none of %d answers that earlier runs paid for can be read; up to %d more are requested to see "
                "whether something has changed",
                words.who, unread, self._most,
            )  # fmt: skip

    @property
    def failed(self) -> bool:
        """Whether there are too many unreadable answers and no readable one."""
        return not self._proven and self._unread >= self._most

    def allows(self, under_way: int) -> bool:
        """Whether one more request may be sent with `under_way` open ones, without exceeding the number needed."""
        return self._proven or self._unread + under_way < self._most

    def count(self, answer: Answer, status: str, reason: str | None) -> None:
        """Count an answer by the status of its record, and the reason if it could not be read."""
        if status == "ok":
            self._proven = True
        if self._proven or status != "unparsable":
            return
        self._unread += 1
        example = f"{_visible(answer.text)}  ({reason})"
        if len(self._examples) < _EXAMPLES and example not in self._examples:
            self._examples.append(example)

    def check(self) -> None:
        """Raise an error if the check failed.

        Raises:
            UnreadableError: with examples of the answers.
        """
        if not self.failed:
            return
        shown = "\n".join(f"  {example}" for example in self._examples)
        raise UnreadableError(
            f"{self._words.who}: none of {self._earlier + self._unread} answers can be read as a "
            f"{self._words.answer}, so the run stopped. Examples:\n{shown}",
            allowed="answers in the form that the prompt asks for; single exceptions are asked again",
            action="check the examples; the cause may be the model, the prompt, the chat template, a kind of "
            "`structured` that the service does not support, or too few `max_new_tokens`; these answers stay in the "
            f"store, and another run with the same settings requests at most {_ENOUGH_AGAIN} more unless it can read "
            "one",
        )


def _visible(text: str) -> str:
    """The beginning of an answer in one line, with escapes for unprintable characters."""
    return repr(text[:_SHOWN]) + ("…" if len(text) > _SHOWN else "")
