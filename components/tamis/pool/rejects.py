"""Rows that cannot be used: the reasons, and the table that keeps them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from tamis.core.tables import REJECTS

_LONGEST_REASON = 300  # characters; a reason may quote the data


class Reject(Exception):
    """A row cannot be used. `kind` is one of a few kinds for counting; `reason` says what is wrong with this row."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason if len(reason) <= _LONGEST_REASON else reason[:_LONGEST_REASON] + "…"

    def __reduce__(self) -> tuple[object, ...]:  # for other processes; an exception's own is without `kind`
        return Reject, (self.kind, self.reason)


class Rejected(NamedTuple):
    """A rejected row: its file, its number in the file from 0, and the reason."""

    file: str
    row: int
    kind: str
    reason: str


class RejectsWriter:
    """Writes the table of rejects (schema `REJECTS`), even if it has no rows, and counts them by kind."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._counts: dict[str, Counter[str]] = {}
        self._first: dict[tuple[str, str], str] = {}

    def __enter__(self) -> RejectsWriter:
        self._writer = pq.ParquetWriter(self.path, REJECTS, compression="zstd")
        return self

    def write(self, source: str, rejected: Sequence[Rejected]) -> None:
        """Append rejected rows of `source`."""
        if not rejected:
            return
        counts = self._counts.setdefault(source, Counter())
        for file, row, kind, reason in rejected:
            counts[kind] += 1
            self._first.setdefault((source, kind), f"{file}, row {row}: {reason}")
        files, rows, _, reasons = zip(*rejected, strict=True)
        self._writer.write_table(pa.table([[source] * len(rejected), files, rows, reasons], schema=REJECTS))

    def counts(self) -> dict[str, int]:
        """Number of rejected rows of all sources by kind, sorted by kind."""
        return dict(sorted(sum(self._counts.values(), Counter[str]()).items()))

    def most_frequent(self, source: str, number: int = 3) -> str:
        """The most frequent kinds in `source`, one per line, each with its count and its first row."""
        ranked = sorted(self._counts[source].items(), key=lambda item: (-item[1], item[0]))[:number]
        return "\n".join(f"    {count:,} x {kind}, first: {self._first[source, kind]}" for kind, count in ranked)

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
