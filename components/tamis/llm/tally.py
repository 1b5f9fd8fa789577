"""Counts of records by status and by kind of error, and of tokens."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Generic, TypeVar

from tamis.llm.asking import TOKENS, Record

R = TypeVar("R", bound=Record)


class Tally(Generic[R]):
    """Counts records as they arrive."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.errors: Counter[tuple[str, str]] = Counter()
        self._examples: dict[tuple[str, str], str] = {}
        self.tokens: Counter[str] = Counter()

    def add(self, record: R) -> None:
        """Count one record."""
        self.statuses[record.status] += 1
        for name in TOKENS:
            self.tokens[name] += getattr(record, name) or 0
        if record.status != "ok":
            error = record.error or "no reason given"
            kind = (record.status, error.partition(":")[0])
            self.errors[kind] += 1
            self._examples.setdefault(kind, f"{error} (sample {record.id})")

    @property
    def total(self) -> int:
        """Number of samples, answered or not."""
        return self.statuses.total()

    @property
    def failures(self) -> int:
        """Number of samples without an answer."""
        return self.total - self.statuses["ok"]

    @property
    def prompt_tokens(self) -> int:
        """Number of prompt tokens."""
        return self.tokens["prompt_tokens"]

    @property
    def completion_tokens(self) -> int:
        """Number of answer tokens."""
        return self.tokens["completion_tokens"]

    def table_of_errors(self) -> str:
        """One line per kind of error, most frequent first: the count, the status and an example."""
        ordered = sorted(self.errors.items(), key=lambda item: (-item[1], item[0]))
        return "\n".join(f"  {count:>7}  {kind[0]:<10}  {self._examples[kind]}" for kind, count in ordered)


class Speed:
    """Tokens per second since this object was made."""

    def __init__(self) -> None:
        self._start, self._tokens = time.monotonic(), 0

    def after(self, records: Sequence[Record]) -> str:
        """The speed including `records`, in words; empty if the backend counts no tokens."""
        self._tokens += sum((record.prompt_tokens or 0) + (record.completion_tokens or 0) for record in records)
        seconds = time.monotonic() - self._start
        return f"{self._tokens / seconds:,.0f} tokens/s" if self._tokens and seconds > 0 else ""
