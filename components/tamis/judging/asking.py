"""Asking durably: what the store has is not asked again, and what comes is kept within seconds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Generic, TypeVar

import pyarrow as pa

from tamis.core.progress import Progress
from tamis.core.settings import hash_of
from tamis.judging.records import Judged, Text
from tamis.llm.asking import TOKENS, ask, is_final
from tamis.llm.backend import Answer, Backend
from tamis.llm.backends.journal import Journal
from tamis.llm.budget import Allowance, Budget, Words, ledger_of
from tamis.llm.first import FirstAnswers
from tamis.llm.machine import one_at_a_time
from tamis.llm.readings import anew
from tamis.llm.store import Store, Writer
from tamis.llm.tally import Speed, Tally

log = logging.getLogger(__name__)
R = TypeVar("R", Text, Judged)
_GROUP = 1000  # requests that an engine which batches may order as it likes


@dataclass(frozen=True)
class Known(Generic[R]):
    """What the store has of the wanted records."""

    final: dict[str, R]
    others: dict[str, R]  # those that may be asked about again
    damaged: int


@dataclass(frozen=True)
class Asked(Generic[R]):
    """All records that were wanted, by id, and how they were come by."""

    records: dict[str, R]
    reused: int
    damaged: int
    tally: Tally
    cost: float | None
    facts: Mapping[str, float | int]  # of the cost


def known_of(
    backend: Backend,
    store: Store[R],
    texts: Mapping[str, str],
    max_attempts: int,
    read: Callable[[Answer, int, R | None], R],
) -> Known[R]:
    """Look up what the store has of `texts`, which are by id; `read` reads what was not understood, once more."""
    stored = store.read()
    found: dict[str, R | None] = dict(zip(texts, stored.find(pa.array(list(texts), pa.string())), strict=True))
    there = {key: anew(record, read) for key, record in found.items() if record is not None}
    final = {key: record for key, record in there.items() if is_final(record, backend, max_attempts)}
    return Known(final, {key: record for key, record in there.items() if key not in final}, stored.damaged)


def ask_all(
    backend: Backend,
    store: Store[R],
    texts: Mapping[str, str],
    *,
    read: Callable[[Answer, int, R | None], R],
    max_attempts: int,
    allowance: Allowance,
    words: Words,
) -> Asked[R]:
    """A record of each of `texts`, which are by id.

    Raises:
        ModelError: when the engine cannot be used, none of its first answers can be read, or the allowance for failures
            or money is used up.
        StorageError: when the store cannot be read or written.
    """
    about = hash_of(sorted(texts))
    with one_at_a_time(words.who, str(store.journal), about):
        store.compact()
        known: Known[R] = known_of(backend, store, texts, max_attempts, read)
        if known.final:
            log.info("%s: %d of %d %ss are in the store already", words.who, len(known.final), len(texts), words.answer)
        _remember(backend, store)
        records, tally, speed = dict(known.final), Tally(), Speed()
        for record in known.final.values():
            tally.count(record)
        stored = [*known.final.values(), *known.others.values()]
        read_before = sum(record.status == "ok" for record in stored)
        unread = sum(record.attempts for record in stored if record.status == "unparsable")
        first = FirstAnswers(words, read=read_before, unread=unread)
        before = {name: sum(getattr(record, name) or 0 for record in stored) for name in TOKENS}
        budget = Budget(
            allowance,
            words,
            len(texts),
            tally,
            reused=len(known.final),
            backend=backend,
            before=before,
            ledger=ledger_of(allowance, backend, store, about),
        )
        left = [(key, text, known.others.get(key)) for key, text in texts.items() if key not in known.final]
        groups = iter([left[start : start + _GROUP] for start in range(0, len(left), _GROUP)])
        if left:
            store.prepare()
        store.bring_in()

        def read_and_pay(answer: Answer, attempt: int, earlier: R | None) -> R:
            budget.pay(answer)
            return read(answer, attempt, earlier)

        with (
            Progress(words.who, len(texts), unit=words.samples, done=len(records)) as progress,
            closing(budget),
            Writer(store, durable=budget.recorded) as writer,
        ):
            asked = ask(
                backend,
                lambda: next(groups, []),
                read=read_and_pay,
                max_attempts=max_attempts,
                keep=writer.add,
                first=first,
                admit=budget.admit,
                enough=lambda: budget.failed() or writer.failed(),
            )
            for finished in asked:
                for record in finished:
                    records[record.id] = record
                    tally.count(record)
                    budget.finish()
                note = ", ".join(filter(None, (speed.after(finished), budget.note())))
                progress.advance(len(finished), note, failed=sum(record.status != "ok" for record in finished))
        first.check()
        budget.check()
        if tally.failures:
            log.warning("%s: %ss without a usable end:\n%s", words.who, words.answer, tally.table_of_errors())
        return Asked(records, len(known.final), known.damaged, tally, budget.cost, budget.facts())


def _remember(backend: Backend, store: Store[R]) -> None:
    """Give an engine that is asked by long jobs the place where it notes them."""
    if hasattr(backend, "remember_in"):
        backend.remember_in(Journal(store.journal, store.same_folder))
