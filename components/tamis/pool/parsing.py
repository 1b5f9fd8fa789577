"""From rows to samples: blocks of a source, which several processes can make of pieces of its files."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tamis.core.conditions import conditions
from tamis.core.sample_columns import TOOLS, column_of
from tamis.core.samples import Message, sample_id
from tamis.core.side import Side
from tamis.core.tables import POOL
from tamis.pool.mapping import OPTIONAL, Mapping, metadata_of
from tamis.pool.openings import Fields
from tamis.pool.pieces import Piece
from tamis.pool.rejects import Reject, Rejected
from tamis.pool.settings import Source

_OTHER_VALUES = 5  # values of a field in `where` that an error shows if no row matches


@dataclass(frozen=True)
class Layout:
    """How the rows of one file become samples.

    Attributes:
        file: the file's name in the source.
        mapping: how rows become conversations; None if no row of the file can be read.
        columns: names of the fields, if all rows have the same.
        read: the row's fields from which the conversation is made.
    """

    file: str
    mapping: Mapping | None
    columns: tuple[str, ...] | None
    read: frozenset[str]


@dataclass
class Block:
    """Samples of consecutive rows of a source, its rejected rows, and what was seen.

    Attributes:
        table: the samples, with the schema `POOL`.
        rejected: the rows that cannot be used.
        read: number of rows.
        left_out: number of rows that `where` leaves out.
        seen: the fields in `keep`, and optional ones, that some row has.
        matched: whether a row meets `where`.
        others: for each field in `where`, the first values that do not match.
        side: counts of fields that are not read.
        last: whether no row follows.
    """

    table: pa.Table
    rejected: list[Rejected]
    read: int
    left_out: int
    seen: set[str]
    matched: bool
    others: dict[str, dict[str, None]]
    side: Side
    last: bool = False

    def moved(self, row: int, origin: int) -> Block:
        """The block with numbers of rows that begin at `row` in the file and at `origin` in the source."""
        place = POOL.get_field_index("origin")
        self.table = self.table.set_column(place, POOL.field(place), pc.add(self.table["origin"], origin))
        self.rejected = [rejected._replace(row=rejected.row + row) for rejected in self.rejected]
        return self


def named(source: Source) -> frozenset[str]:
    """The fields that the settings name besides those of the conversation."""
    return frozenset((*source.keep, *source.where))


def nothing(source: Source, side: Side | None = None) -> Block:
    """A block without rows, to which others can be added. Without `side`, all names of fields are counted."""
    others: dict[str, dict[str, None]] = {name: {} for name in source.where}
    return Block(POOL.empty_table(), [], 0, 0, set(), False, others, side or _all_of(source))


def add_counts(total: Block, block: Block) -> None:
    """Add to `total` what was seen in `block`, which follows it, but not its samples and rejected rows."""
    total.read += block.read
    total.left_out += block.left_out
    total.seen |= block.seen
    total.matched |= block.matched
    for name, values in block.others.items():
        for value in values:
            if len(total.others[name]) < _OTHER_VALUES:
                total.others[name].setdefault(value)
    total.side.merge(block.side)


def parsed(work: tuple[Source, Layout, Piece]) -> Block:
    """The block of a piece of a file; the rows are numbered from the first one of the piece."""
    source, layout, piece = work
    filling = Filling(source)
    for number, row in enumerate(piece.rows()):
        filling.add(layout, number, number, row)
    return filling.block()


class Filling:
    """A block of a source that is being filled, row by row.

    Attributes:
        samples: number of samples so far.
        read: number of rows so far.
        characters: number of characters in the samples so far.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._conditions = conditions(source.where)
        self._wanted = {*source.keep, *(name for field, name in source.fields.items() if field in OPTIONAL)}
        self._seen: set[str] = set()
        self._matched = False
        self._others: dict[str, dict[str, None]] = {name: {} for name in source.where}
        self._side = _all_of(source)
        self._ids: list[str] = []
        self._messages: list[list[Message]] = []
        self._origins: list[int] = []
        self._metadata: list[str | None] = []
        self._rejected: list[Rejected] = []
        self.read = self._left_out = self.characters = 0

    @property
    def samples(self) -> int:
        """Number of samples so far."""
        return len(self._ids)

    def add(self, layout: Layout, number: int, origin: int, row: Fields | Reject) -> None:
        """Add a row with its number in the file and its number in the source."""
        self.read += 1
        try:
            sample = self._sample_in(layout, row)
        except Reject as reject:
            # Only its text is kept, because the exception would keep the row in memory.
            self._rejected.append(Rejected(layout.file, number, reject.kind, reject.reason))
            return
        if sample is None:
            self._left_out += 1
            return
        messages, metadata = sample
        self._ids.append(sample_id(messages))
        self._messages.append(messages)
        self._origins.append(origin)
        self._metadata.append(metadata)
        self.characters += sum(len(message["content"]) for message in messages) + len(metadata or "")

    def _sample_in(self, layout: Layout, row: Fields | Reject) -> tuple[list[Message], str | None] | None:
        """The messages and metadata in `row`; None when `where` leaves it out."""
        if isinstance(row, Reject):
            raise row
        if self._source.where and not self._matches(row):
            return None
        if self._wanted:
            self._seen |= self._wanted & row.keys()
        assert layout.mapping is not None  # a file with a row that can be read has one
        messages, beside = layout.mapping.conversation(row)
        metadata = metadata_of(row, self._source.keep)
        self._side.add(row, layout.columns or tuple(row), layout.read, beside, messages)
        return messages, metadata

    def _matches(self, row: Fields) -> bool:
        for name, is_met in self._conditions.items():
            value = row.get(name)
            if not is_met(value):
                others = self._others[name]
                if len(others) < _OTHER_VALUES:
                    others.setdefault(repr(value)[:80])
                return False
        self._matched = True
        return True

    def block(self) -> Block:
        """The block, once it is full."""
        return Block(
            *(self._table(), self._rejected, self.read, self._left_out),
            *(self._seen, self._matched, self._others, self._side),
        )

    def _table(self) -> pa.Table:
        columns: list[Any] = [
            pa.array(self._ids, pa.string()),
            pa.array([self._source.name] * len(self._ids), pa.string()),
            column_of(self._messages),
            pa.array(self._origins, pa.int64()),
            pa.array(self._metadata, pa.string()),
            pa.nulls(len(self._ids), TOOLS),
        ]
        return pa.Table.from_arrays(columns, schema=POOL)


def _all_of(source: Source) -> Side:
    """Counts of all fields: a block has few rows, and only the source's total is limited to the first names."""
    return Side(named(source), most_names=sys.maxsize)
