"""The rows of the ratings table: ratings come back in any order, and rows are written in the order of the pool."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from tamis.core.tables import RATINGS, PartsWriter
from tamis.rating.records import Rating

Sample = tuple[str, str, Rating | None]  # id, text, what is stored
BLOCK = 10_000  # samples read at a time; within a block, batches are made of samples of similar length


@dataclass
class _Block:
    rows: dict[str, Rating | None]
    open: int


class Rows:
    """Blocks of samples, written in the order of the pool as soon as all earlier blocks are complete.

    Args:
        blocks: blocks of the pool, in its order.
        is_final: returns whether a stored rating needs no further request.
        parts: where rows are written.
        rater: name of the rater.
        reuse: receives each rating that comes from the store, or marks a sample that is not rated.
        table: the schema of the rows.
        most_open: most blocks that wait for their last rating; bounds the memory.
    """

    def __init__(
        self,
        blocks: Iterator[list[Sample]],
        is_final: Callable[[Rating | None], bool],
        parts: PartsWriter,
        rater: str,
        reuse: Callable[[Rating], None],
        most_open: int,
        table: pa.Schema = RATINGS,
    ) -> None:
        self._most_open, self._table = most_open, table
        self._blocks, self._is_final, self._parts, self._rater, self._reuse = blocks, is_final, parts, rater, reuse
        self._open: deque[_Block] = deque()
        self._home: dict[str, _Block] = {}

    def more(self) -> list[Sample]:
        """The samples of the next block to ask about; empty at the end of the pool, or if too many blocks are open."""
        while len(self._open) < self._most_open:
            block = next(self._blocks, None)
            if block is None:
                break
            left = []
            made = _Block({}, 0)
            for sample, text, known in block:
                made.rows[sample] = known
                if known is not None and self._is_final(known):
                    self._reuse(known)
                else:
                    left.append((sample, text, known))
                    self._home[sample] = made
            made.open = len(left)
            self._open.append(made)
            self._write()
            if left:
                return left
        return []

    def finish(self, rating: Rating) -> None:
        """Receive the rating of a sample."""
        block = self._home.pop(rating.id)
        block.rows[rating.id] = rating
        block.open -= 1
        if not block.open:
            self._write()

    def _write(self) -> None:
        while self._open and not self._open[0].open:
            rows = self._open.popleft().rows.values()
            self._parts.write_rows(rating.row(self._rater, self._table) for rating in rows if rating is not None)
