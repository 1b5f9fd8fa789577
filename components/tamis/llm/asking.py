"""Asking an engine: once per sample, and again while the answer cannot be read and attempts are left."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Generic, Protocol, TypeVar

from tamis.core.errors import ModelError
from tamis.llm.backend import Answer, Backend, Request
from tamis.llm.first import FirstAnswers
from tamis.llm.store import PASSING

log = logging.getLogger(__name__)
# Fields of every answer and record; the last two are parts of the first two.
TOKENS = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")


class Record(Protocol):
    """The result of a request about a sample: a rating, a verdict, a text."""

    @property
    def id(self) -> str:
        """Id of the sample."""

    @property
    def status(self) -> str:
        """ "ok", "unparsable", "refused", "too_long" or "failed"."""

    @property
    def error(self) -> str | None:
        """The reason if the status is not "ok"."""

    @property
    def attempts(self) -> int:
        """Number of attempts."""

    @property
    def prompt_tokens(self) -> int | None:
        """Prompt tokens of all attempts."""

    @property
    def completion_tokens(self) -> int | None:
        """Answer tokens of all attempts, including reasoning."""

    @property
    def cached_tokens(self) -> int | None:
        """Prompt tokens of all attempts that a service had in its cache."""

    @property
    def reasoning_tokens(self) -> int | None:
        """Reasoning tokens of all attempts."""


R = TypeVar("R", bound=Record)


def is_final(record: Record, backend: Backend, max_attempts: int) -> bool:
    """Whether a sample with this record needs no further request, because it would be useless or is not allowed."""
    if record.status == "unparsable":
        return backend.deterministic or record.attempts >= max_attempts
    return record.status not in PASSING


def summed(answer: Answer, earlier: Record | None) -> dict[str, int | None]:
    """The tokens of this attempt and of those before it, by field; None if unknown for all."""
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
        backend: the engine that answers.
        more: returns the next samples: id, text, and the record of earlier attempts, if there is one. An empty group
            means that there are no more samples, or none until earlier ones are answered.
        read: makes a record from an answer, the number of its attempt, and the record of the attempts before it.
        max_attempts: most attempts at one sample, including earlier ones.
        keep: receives every record that must not be lost, including records of attempts that are followed by another.
        first: checks that the first answers can be read; when it has failed, nothing more is asked.
        admit: decides on each request before it is sent. A refused request waits until all open requests are answered,
            and is then offered again. If it is refused while none is open, asking ends.
        enough: returns whether to stop asking at once. Engines that have not started on a request then leave it.

    Yields:
        Groups of final records, one record per sample in total.

    Raises:
        ModelError: when the backend leaves a request without an answer.
    """
    return _Asking(backend, more, read, max_attempts, keep, first, admit, enough).records()


class _Asking(Generic[R]):
    """The state of `ask`: which requests are open, which follow, and whether more may be sent."""

    def __init__(
        self,
        backend: Backend,
        more: Callable[[], Sequence[tuple[str, str, R | None]]],
        read: Callable[[Answer, int, R | None], R],
        max_attempts: int,
        keep: Callable[[R], None],
        first: FirstAnswers | None,
        admit: Callable[[Request], bool],
        enough: Callable[[], bool],
    ) -> None:
        self._backend, self._more, self._read, self._max_attempts = backend, more, read, max_attempts
        self._keep, self._first, self._admit, self._enough = keep, first, admit, enough
        self._waiting: dict[str, Request] = {}  # read by the backend, and not answered
        self._earlier: dict[str, R] = {}  # records of the attempts before these
        self._again: list[Request] = []  # to be sent before any new sample
        self._held = False  # nothing is sent until all that waits is answered
        self._ended = False
        # An engine that is not eager can still drop what it has read.
        self._first_alone = first is not None and backend.eager and getattr(backend, "first_alone", True)

    def records(self) -> Iterator[list[R]]:
        """See `ask`."""
        while not self._is_enough() and (group := self._next_group()) is not None:
            for answers in self._backend.answer(chain([group], iter(self._next_group, None))):
                yield self._finished(answers)
                if not self._backend.eager and self._is_enough():
                    return
            self._held = False
            if self._waiting:
                raise ModelError(
                    f"the model gave no answer to {len(self._waiting)} samples, the first is "
                    f"{next(iter(self._waiting))}"
                )

    def _is_enough(self) -> bool:
        return self._enough() or (self._first is not None and self._first.failed)

    def _next_group(self) -> Iterator[Request] | None:
        """The next requests; None when there are none, or none may be sent now."""
        if self._held or self._ended:
            return None
        group, self._again = self._again, []
        if not group:
            for sample, text, known in self._more():
                if known is not None:
                    self._earlier[sample] = known
                group.append(Request(sample, text, known.attempts + 1 if known else 1))
        return self._sent(group) if group else None

    def _sent(self, group: list[Request]) -> Iterator[Request]:
        """Those of a group that may be sent now; the others go first in a later group."""
        left: list[Request] = []
        for place, request in enumerate(group):
            if self._is_enough():
                self._ended = True
                return
            if self._must_wait(request):
                left.append(request)
                continue
            if not self._admit(request):
                self._ended = not self._waiting
                left += group[place:]
                break
            self._waiting[request.id] = request
            yield request
        if left:
            self._held = not self._ended
            self._again[:0] = left
            if hasattr(self._backend, "remember_in"):
                log.info("%d requests are sent; the rest follow when these are answered", len(self._waiting))

    def _must_wait(self, request: Request) -> bool:
        """Whether a request waits until the first answers are read. What an earlier run has sent is already paid."""
        if self._first is None or not self._first_alone or self._first.allows(len(self._waiting)):
            return False
        return not (hasattr(self._backend, "sent_already") and self._backend.sent_already(request))

    def _finished(self, answers: Sequence[Answer]) -> list[R]:
        """Read answers that came together; keep the records, and return the final ones."""
        finished = []
        for answer in answers:
            request = self._waiting.pop(answer.id)
            record = self._read(answer, request.attempt, self._earlier.pop(answer.id, None))
            if self._first is not None:
                self._first.count(answer, record.status, record.error)
            passing = record.status in PASSING
            if not passing or answer.prompt_tokens is not None:  # later runs count what was paid for
                self._keep(record)
            if passing or is_final(record, self._backend, self._max_attempts):
                finished.append(record)
            else:
                self._earlier[answer.id] = record
                self._again.append(Request(answer.id, request.text, request.attempt + 1))
        return finished
