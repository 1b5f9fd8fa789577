"""What became of samples that a model was asked about: counts by status and by kind of error, and the tokens."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Generic, TypeVar

from tamis.llm.asking import TOKENS, Record

R = TypeVar("R", bound=Record)


class Tally(Generic[R]):
    """Counts records as they come."""

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
        """Samples, answered or not."""
        return self.statuses.total()

    @property
    def failures(self) -> int:
        """Samples without an answer."""
        return self.total - self.statuses["ok"]

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts."""
        return self.tokens["prompt_tokens"]

    @property
    def completion_tokens(self) -> int:
        """Tokens of all answers."""
        return self.tokens["completion_tokens"]

    def table_of_errors(self) -> str:
        """One line per kind of error: how many, the status, and an example; the most frequent first."""
        ordered = sorted(self.errors.items(), key=lambda item: (-item[1], item[0]))
        return "\n".join(f"  {count:>7}  {kind[0]:<10}  {self._examples[kind]}" for kind, count in ordered)


class Speed:
    """Tokens per second since it was made."""

    def __init__(self) -> None:
        self._start, self._tokens = time.monotonic(), 0

    def after(self, records: Sequence[Record]) -> str:
        """The speed, so many records later; empty where the backend counts no tokens."""
        self._tokens += sum((record.prompt_tokens or 0) + (record.completion_tokens or 0) for record in records)
        seconds = time.monotonic() - self._start
        return f"{self._tokens / seconds:,.0f} tokens/s" if self._tokens and seconds > 0 else ""
