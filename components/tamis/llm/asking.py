"""Asking an engine: each sample once, and again while its answer does not parse and attempts are left."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Protocol, TypeVar

from tamis.core.errors import ModelError
from tamis.llm.backend import Answer, Backend, Request
from tamis.llm.first import FirstAnswers
from tamis.llm.store import PASSING

log = logging.getLogger(__name__)
# Fields of every answer and record; the last two are parts of the first two.
TOKENS = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")


class Record(Protocol):
    """What became of a sample: a rating, a verdict, a text."""

    @property
    def id(self) -> str:
        """The sample's."""

    @property
    def status(self) -> str:
        """ "ok", "unparsable", "refused", "too_long" or "failed"."""

    @property
    def error(self) -> str | None:
        """The reason, where the status is not "ok"."""

    @property
    def attempts(self) -> int:
        """How often it was asked about."""

    @property
    def prompt_tokens(self) -> int | None:
        """Of all attempts."""

    @property
    def completion_tokens(self) -> int | None:
        """Of all attempts; reasoning included."""

    @property
    def cached_tokens(self) -> int | None:
        """Of all attempts' prompts, those that a service had in its cache."""

    @property
    def reasoning_tokens(self) -> int | None:
        """Of all attempts' answers, those of reasoning."""


R = TypeVar("R", bound=Record)


def is_final(record: Record, backend: Backend, max_attempts: int) -> bool:
    """Whether asking again would be useless or is not allowed."""
    if record.status == "unparsable":
        return backend.deterministic or record.attempts >= max_attempts
    return record.status not in PASSING


def summed(answer: Answer, earlier: Record | None) -> dict[str, int | None]:
    """The tokens of an attempt and of those before it, by field; None where no attempt says."""
    found: dict[str, int | None] = {}
    for name in TOKENS:
        new = None if answer.prompt_tokens is None else getattr(answer, name)
        old = None if earlier is None else getattr(earlier, name)
        found[name] = old if new is None else new + (old or 0)
    return found


def ask(
    backend: Backend,
    more: Callable[[], Sequence[tuple[str, str, R | None]]],
    *,
    read: Callable[[Answer, int, R | None], R],
    max_attempts: int,
    keep: Callable[[R], None],
    first: FirstAnswers | None = None,
    admit: Callable[[Request], bool] = lambda request: True,
    enough: Callable[[], bool] = lambda: False,
) -> Iterator[list[R]]:
    """Ask about samples.

    Args:
        backend: who is asked.
        more: gives the next samples: id, text, and what earlier attempts came to, if there were some. None means that
            there are no more, or none before those that were given are answered.
        read: makes the record of an answer, the number of its attempt, and the record of the attempts before it.
        max_attempts: most attempts at one sample, earlier ones included.
        keep: gets every record that must not be lost, also those of attempts that another one follows.
        first: watches whether the first answers can be read; when it has failed no more is asked.
        admit: gets each request before it is asked. One that is refused is held back until all that are under way are
            answered, and offered once more; refused with none under way, it ends the asking.
        enough: when to ask no more at once; an engine that has not begun with what it read leaves that.

    Yields:
        Those of the records that came together that no other attempt follows; one per sample in the end.

    Raises:
        ModelError: when the backend leaves a request without an answer.
    """
    waiting: dict[str, Request] = {}
    earlier: dict[str, R] = {}
    again: list[Request] = []
    held = ended = False
    # What was read by an engine that is not eager can still be left.
    holds = first is not None and backend.eager and getattr(backend, "first_alone", True)

    def is_enough() -> bool:
        return enough() or (first is not None and first.failed)

    def must_wait(request: Request) -> bool:
        """Whether the first answers are waited for; what an earlier run has sent is paid for already."""
        if first is None or not holds or first.allows(len(waiting)):
            return False
        return not (hasattr(backend, "sent_already") and backend.sent_already(request))

    def next_group() -> Iterator[Request] | None:
        if held or ended:
            return None
        group = list(again)
        again.clear()
        if not group:
            for sample, text, known in more():
                if known is not None:
                    earlier[sample] = known
                group.append(Request(sample, text, known.attempts + 1 if known else 1))
        return sent(group) if group else None

    def sent(group: list[Request]) -> Iterator[Request]:
        nonlocal held, ended
        left: list[Request] = []
        for place, request in enumerate(group):
            if is_enough():
                ended = True
                return
            if must_wait(request):
                left.append(request)
                continue
            if not admit(request):
                ended = not waiting
                left += group[place:]
                break
            waiting[request.id] = request
            yield request
        if left:
            held = not ended
            again[:0] = left
            if hasattr(backend, "remember_in"):
                log.info("%d requests are sent; others follow when these are answered", len(waiting))

    while not is_enough() and (group := next_group()) is not None:
        for answers in backend.answer(chain([group], iter(next_group, None))):
            finished = []
            for answer in answers:
                request = waiting.pop(answer.id)
                record = read(answer, request.attempt, earlier.pop(answer.id, None))
                if first is not None:
                    first.count(answer, record.status, record.error)
                passing = record.status in PASSING
                if not passing or answer.prompt_tokens is not None:  # what was paid for is counted by later runs too
                    keep(record)
                if passing or is_final(record, backend, max_attempts):
                    finished.append(record)
                else:
                    earlier[answer.id] = record
                    again.append(Request(answer.id, request.text, request.attempt + 1))
            yield finished
            if not backend.eager and is_enough():
                return
        held = False
        if waiting:
            raise ModelError(f"the model gave no answer to {len(waiting)} samples, the first is {next(iter(waiting))}")
