"""The rows of the ratings table: samples go out to the rater, ratings come back in any order, rows are the pool's."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tamis.core.tables import PartsWriter
from tamis.rating.records import Rating

Sample = tuple[str, str, Rating | None]  # id, text, what is stored
BLOCK = 10_000  # samples read at a time; within them, batches are of like length


@dataclass
class _Block:
    rows: dict[str, Rating | None]
    open: int


class Rows:
    """Blocks of samples whose ratings are written in the pool's order as soon as those before them are complete.

    Args:
        blocks: of the pool, in its order.
        is_final: whether a stored rating need not be asked for.
        parts: where rows are written.
        rater: the rater's name.
        reuse: gets each rating that is taken from the store, or stands for a sample that is not asked about.
        most_open: most blocks that wait for their last rating; what bounds memory.
    """

    def __init__(
        self,
        blocks: Iterator[list[Sample]],
        is_final: Callable[[Rating | None], bool],
        parts: PartsWriter,
        rater: str,
        reuse: Callable[[Rating], None],
        most_open: int,
    ) -> None:
        self._most_open = most_open
        self._blocks, self._is_final, self._parts, self._rater, self._reuse = blocks, is_final, parts, rater, reuse
        self._open: deque[_Block] = deque()
        self._home: dict[str, _Block] = {}

    def more(self) -> list[Sample]:
        """The next block's samples that are to be asked; none at the pool's end, or when too many blocks are open."""
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
        """Take a sample's rating."""
        block = self._home.pop(rating.id)
        block.rows[rating.id] = rating
        block.open -= 1
        if not block.open:
            self._write()

    def _write(self) -> None:
        while self._open and not self._open[0].open:
            rows = self._open.popleft().rows.values()
            self._parts.write_rows(rating.row(self._rater) for rating in rows if rating is not None)
