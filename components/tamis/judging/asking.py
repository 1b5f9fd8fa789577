"""Looks up answers and verdicts in the store, and asks for the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import pyarrow as pa

from tamis.core.settings import hash_of
from tamis.judging.records import Judged, Text
from tamis.llm.asking import TOKENS, is_final
from tamis.llm.backend import Answer, Backend
from tamis.llm.budget import Allowance, Words
from tamis.llm.durable import DurableAsking, Earlier
from tamis.llm.readings import anew
from tamis.llm.store import Store
from tamis.llm.tally import Tally

log = logging.getLogger(__name__)
R = TypeVar("R", Text, Judged)
_GROUP = 1000  # requests in a group; an engine with batches may order a group freely


@dataclass(frozen=True)
class Known(Generic[R]):
    """The records in the store, by id."""

    final: dict[str, R]
    others: dict[str, R]  # need another request
    damaged: int


@dataclass(frozen=True)
class Asked(Generic[R]):
    """All requested records by id, and how they were obtained."""

    records: dict[str, R]
    reused: int
    damaged: int
    tally: Tally[R]
    cost: float | None
    facts: Mapping[str, float | int]  # about the cost


def known_of(
    backend: Backend,
    store: Store[R],
    texts: Mapping[str, str],
    max_attempts: int,
    read: Callable[[Answer, int, R | None], R],
) -> Known[R]:
    """Look up the records of `texts`, by id. Answers that earlier versions could not read are read again by `read`."""
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
    """Get a record for each of `texts`, by id.

    Raises:
        ModelError: when the engine cannot be used, none of its first answers can be read, or a limit on failures or
            cost is reached.
        StorageError: when the store cannot be read or written.
    """
    asking: DurableAsking[R] = DurableAsking(backend, store, words, scope=hash_of(sorted(texts)))
    tally: Tally[R] = Tally()
    with asking:
        known: Known[R] = known_of(backend, store, texts, max_attempts, read)
        records = dict(known.final)
        for record in known.final.values():
            tally.add(record)
        left = [(key, text, known.others.get(key)) for key, text in texts.items() if key not in known.final]
        groups = iter([left[start : start + _GROUP] for start in range(0, len(left), _GROUP)])
        for finished in asking.ask(
            _earlier(known, len(texts)),
            lambda: next(groups, []),
            read=read,
            max_attempts=max_attempts,
            allowance=allowance,
            tally=tally,
        ):
            records |= {record.id: record for record in finished}
    if tally.failures:
        log.warning("%s: %ss that failed:\n%s", words.who, words.answer, tally.table_of_errors())
    return Asked(records, len(known.final), known.damaged, tally, asking.budget.cost, asking.budget.facts())


def _earlier(known: Known[R], samples: int) -> Earlier:
    stored = [*known.final.values(), *known.others.values()]
    return Earlier(
        samples=samples,
        final=len(known.final),
        tokens={name: sum(getattr(record, name) or 0 for record in stored) for name in TOKENS},
        read=sum(record.status == "ok" for record in stored),
        unread=sum(record.attempts for record in stored if record.status == "unparsable"),
    )
