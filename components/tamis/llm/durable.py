"""Durable asking, for every stage that sends prompts: nothing is asked twice, and limits on failures and cost hold."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

from tamis.core.progress import Progress
from tamis.core.storage import exists
from tamis.llm.asking import Record, ask
from tamis.llm.backend import Answer, Backend
from tamis.llm.backends.journal import Journal
from tamis.llm.budget import Allowance, Budget, Words, ledger_of
from tamis.llm.first import FirstAnswers
from tamis.llm.machine import one_at_a_time
from tamis.llm.store import Store, Writer
from tamis.llm.tally import Speed, Tally

log = logging.getLogger(__name__)
R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Earlier:
    """What earlier runs have done for the samples of this run, as the store has it.

    Attributes:
        samples: number of samples that need an answer, including those that have one.
        final: number of samples that need no further request.
        tokens: tokens of all attempts so far, by the fields in `asking.TOKENS`.
        read: number of answers that could be read.
        unread: number of answers that could not be read.
    """

    samples: int
    final: int
    tokens: Mapping[str, int]
    read: int
    unread: int


class DurableAsking(Generic[R]):
    """Asks a backend about samples, and keeps every answer.

    Equal runs on one machine take turns from entry to exit, so the store must be read inside the context. At exit, also
    after an error, every finished record is in the store, and money that was spent without a record is noted.

        with DurableAsking(backend, store, words, scope=scope) as asking:
            done = …  # read the store
            for records in asking.ask(done, more, read=read, max_attempts=3, allowance=allowance, tally=tally):
                …

    Args:
        backend: the engine that answers.
        store: where records are kept.
        words: names for logs and errors.
        scope: a hash of the samples; runs with equal stores and scopes take turns and share a limit on cost.
        older: stores of earlier versions. Their notes of cost count; a batch journal in one of them stays in use.

    Raises, at exit:
        UnreadableError: when none of the first answers could be read.
        FailuresError: when too many samples got no answer.
        SpentError: when the limit on cost was reached.
        StorageError: when the store cannot be read or written.
    """

    budget: Budget  # from `ask` on

    def __init__(
        self, backend: Backend, store: Store[Any], words: Words, *, scope: str, older: Sequence[Store[Any]] = ()
    ) -> None:
        self._backend, self._store, self._words = backend, store, words
        self._scope, self._older = scope, older
        self._stack = ExitStack()
        self._checks: list[Callable[[], None]] = []

    def __enter__(self) -> DurableAsking[R]:
        with ExitStack() as stack:
            place = self._store.journal
            where = str(place.resolve() if isinstance(place, Path) else place)
            stack.enter_context(one_at_a_time(self._words.who, where, self._scope))
            self._store.compact()
            if hasattr(self._backend, "remember_in"):
                # Batches that an earlier version has sent are in its journal.
                journals = [one.journal for one in self._older if exists(one.journal)]
                self._backend.remember_in(Journal((journals or [place])[0], self._store.same_folder))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        if kind is None:
            for check in self._checks:
                check()

    def ask(
        self,
        done: Earlier,
        more: Callable[[], Sequence[tuple[str, str, R | None]]],
        *,
        read: Callable[[Answer, int, R | None], R],
        max_attempts: int,
        allowance: Allowance,
        tally: Tally[R],
    ) -> Iterator[list[R]]:
        """Ask about all samples that need a request. Call it once.

        Args:
            done: what earlier runs have done.
            more: as for `asking.ask`.
            read: as for `asking.ask`.
            max_attempts: most attempts at one sample, including those of earlier runs.
            allowance: the limits on failures and cost.
            tally: counts the new records; the caller adds those that are reused.

        Yields:
            Finished records, one per sample, in any order.
        """
        words = self._words
        if done.final:
            log.info(
                "%s: %d of %d %ss are already in the store (%s)",
                words.who, done.final, done.samples, words.answer, self._store.place,
            )  # fmt: skip
        if done.final < done.samples:
            self._store.prepare()
        self._store.bring_in()
        first = FirstAnswers(words, read=done.read, unread=done.unread)
        ledger = ledger_of(allowance, self._backend, self._store, self._scope, older=self._older)
        self.budget = budget = Budget(
            allowance,
            words,
            done.samples,
            tally,
            reused=done.final,
            backend=self._backend,
            before=done.tokens,
            ledger=ledger,
        )
        self._checks = [first.check, budget.check]
        enter = self._stack.enter_context
        progress = enter(Progress(words.who, done.samples, unit=words.samples, done=done.final))
        enter(closing(budget))  # closed when the last record is durable
        writer: Writer[Any] = enter(Writer(self._store, durable=budget.recorded))

        def read_and_pay(answer: Answer, attempt: int, earlier: R | None) -> R:
            budget.pay(answer)
            return read(answer, attempt, earlier)

        groups = ask(
            self._backend,
            more,
            read=read_and_pay,
            max_attempts=max_attempts,
            keep=writer.add,
            first=first,
            admit=budget.admit,
            enough=lambda: budget.failed() or writer.failed(),
        )
        return _counted(groups, tally, budget, progress)


def _counted(groups: Iterator[list[R]], tally: Tally[R], budget: Budget, progress: Progress) -> Iterator[list[R]]:
    """The same groups of records; counts them and shows the progress."""
    speed = Speed()
    for records in groups:
        for record in records:
            tally.add(record)
            budget.finish()
        note = ", ".join(filter(None, (speed.after(records), budget.note())))
        progress.advance(len(records), note, failed=sum(record.status != "ok" for record in records))
        yield records
