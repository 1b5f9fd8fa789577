"""The rows of a source, mapped to conversations, in blocks that fit in memory."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tamis.core import storage
from tamis.core.conditions import conditions
from tamis.core.errors import InputError
from tamis.core.progress import Progress
from tamis.core.samples import Message, sample_id
from tamis.core.side import TAUGHT, Side
from tamis.core.tables import POOL
from tamis.pool.hub import DatasetReader
from tamis.pool.mapping import OPTIONAL, Mapping, check_columns, mapping_of, metadata_of
from tamis.pool.openings import Fields
from tamis.pool.readers import Reader, how_to_read, reader_of
from tamis.pool.rejects import Reject, Rejected
from tamis.pool.settings import PoolSettings
from tamis.pool.sources import Resolved

log = logging.getLogger(__name__)
BLOCK_ROWS = 8192
_BLOCK_CHARACTERS = 1 << 24
_OTHER_VALUES = 5  # values of a field in `where` that an error shows if no row matches


@dataclass
class Block:
    """A block of rows of a source: samples in parallel lists, rejected rows, and counts."""

    ids: list[str] = field(default_factory=list)
    messages: list[list[Message]] = field(default_factory=list)
    origins: list[int] = field(default_factory=list)
    metadata: list[str | None] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    read: int = 0
    left_out: int = 0
    last: bool = False

    def table(self, source: str) -> pa.Table:
        """The samples as a table with the schema `POOL`."""
        turns = [message for messages in self.messages for message in messages]
        offsets = np.zeros(len(self.messages) + 1, dtype=np.int32)
        np.cumsum([len(messages) for messages in self.messages], out=offsets[1:])
        kind = POOL.field("messages").type
        roles = pa.array([turn["role"] for turn in turns], pa.string())
        contents = pa.array([turn["content"] for turn in turns], pa.string())
        structs = pa.StructArray.from_arrays([roles, contents], fields=list(kind.value_type))
        columns = [
            pa.array(self.ids, pa.string()),
            pa.array([source] * len(self.ids), pa.string()),
            pa.ListArray.from_arrays(pa.array(offsets), structs, type=kind),
            pa.array(self.origins, pa.int64()),
            pa.array(self.metadata, pa.string()),
        ]
        return pa.Table.from_arrays(columns, schema=POOL)


class SourceRows:
    """Reads a source from its first row; each `take` returns the next block."""

    def __init__(self, settings: PoolSettings, resolved: Resolved, downloads: Path) -> None:
        self._settings, self._resolved, self._source, self._downloads = settings, resolved, resolved.source, downloads
        self._rows = self._all_rows()
        self._ended = self._any_match = False
        self._conditions = conditions(self._source.where)
        self._other_values: dict[str, dict[str, None]] = {name: {} for name in self._source.where}
        optional = [name for field, name in self._source.fields.items() if field in OPTIONAL]
        self._never_seen = {*self._source.keep, *optional}
        self.mapping: Mapping | None = None  # of the current file; known after its first readable row
        self.schemas: Counter[str] = Counter()  # number of files of each schema
        self.guessed: Counter[str] = Counter()  # number of files by what was guessed about them
        self.side = Side(frozenset((*self._source.keep, *self._source.where)))
        self._read: frozenset[str] = frozenset()  # the row's fields from which the conversation is made
        self._columns: tuple[str, ...] | None = None  # columns of the current file, if all its rows have the same
        self.taken: dict[str, Any] = {}  # facts about a data set, known after its first row

    def take(self, samples: int) -> Block:
        """The next rows, until there are `samples` usable ones or the block is full.

        Raises:
            InputError: when a file cannot be read, or its first row lacks fields that the mapping needs.
        """
        block, characters = Block(), 0
        for file, number, origin, row in self._rows:
            block.read += 1
            try:
                sample = self._sample_in(row)
            except Reject as reject:
                # Only its text is kept, because the exception would keep the row in memory.
                block.rejected.append(Rejected(file, number, reject.kind, reject.reason))
            else:
                if sample is None:
                    block.left_out += 1
                else:
                    messages, metadata = sample
                    block.ids.append(sample_id(messages))
                    block.messages.append(messages)
                    block.origins.append(origin)
                    block.metadata.append(metadata)
                    characters += sum(len(message["content"]) for message in messages) + len(metadata or "")
            if len(block.ids) == samples or block.read == BLOCK_ROWS or characters > _BLOCK_CHARACTERS:
                return block
        block.last = self._ended = True
        return block

    def close(self) -> None:
        """Close the open file, if there is one."""
        self._rows.close()

    def check_all_settings_met(self) -> None:
        """If all rows were read, make sure that `where` and `keep` match some row, to find typing errors.

        Raises:
            InputError: with the values that the rows have instead.
        """
        if not self._ended:
            return
        if self._source.where and not self._any_match:
            seen = "; ".join(f"{name}: {', '.join(values)}" for name, values in self._other_values.items() if values)
            raise InputError(
                f"source '{self._source.name}': no row matches {self._source.where}",
                allowed=f"for example values of the first rows: {seen}",
                action="correct the source's `where`",
            )
        if self._never_seen:
            raise InputError(
                f"source '{self._source.name}': no row has the field {', '.join(sorted(self._never_seen))}",
                action="correct the source's `keep` or `fields`",
            )

    def _sample_in(self, row: Fields | Reject) -> tuple[list[Message], str | None] | None:
        """The messages and metadata in `row`; None when `where` leaves it out."""
        if isinstance(row, Reject):
            raise row
        if self._source.where and not self._matches(row):
            return None
        if self._never_seen:
            self._never_seen -= row.keys()
        assert self.mapping is not None  # set when the row's file was opened
        messages, beside = self.mapping.conversation(row)
        metadata = metadata_of(row, self._source.keep)
        self.side.add(row, self._columns or tuple(row), self._read, beside, messages)
        return messages, metadata

    def _matches(self, row: Fields) -> bool:
        for name, is_met in self._conditions.items():
            value = row.get(name)
            if not is_met(value):
                others = self._other_values[name]
                if len(others) < _OTHER_VALUES:
                    others.setdefault(repr(value)[:80])
                return False
        self._any_match = True
        return True

    def _all_rows(self) -> Generator[tuple[str, int, int, Fields | Reject]]:
        """Every row with its file, its number in the file, and its number in the source."""
        readers, before = self._readers(), 0
        first = next(readers)  # a source has at least one file
        total = first[1].total if len(self._resolved.files) <= 1 else None
        with Progress(f"pool: {self._source.name}", total, unit="rows") as progress:
            for file, reader in chain([first], readers):
                number = -1
                for number, row in reader.rows(self._columns_in(file, reader)):
                    yield file, number, before + number, row
                    progress.advance()
                before += number + 1

    def _columns_in(self, file: str, reader: Reader) -> list[str]:
        """The fields to read from a file, after checking that it has them."""
        if reader.columns:
            self.mapping = mapping_of(self._source, reader.columns, file, before=self.mapping)
            self.schemas[self.mapping.schema] += 1
            check_columns(self._source, self.mapping, reader.columns, reader.uniform, file)
            self._read = frozenset(self.mapping.columns)
        self._columns = tuple(reader.columns) if reader.uniform else None
        lost = [name for name in reader.columns if name in TAUGHT]  # read to count samples in which they matter
        return [*(self.mapping.columns if self.mapping else ()), *self._source.where, *self._source.keep, *lost]

    def _readers(self) -> Iterator[tuple[str, Reader]]:
        if self._source.dataset is not None:
            dataset = self._source.dataset
            found = DatasetReader(self._source, self._resolved.fingerprints[dataset])
            self.taken = found.taken
            yield dataset, found
        for name, place in self._resolved.files:
            local = place if isinstance(place, Path) else self._downloads / Path(name).name
            if not isinstance(place, Path):
                storage.download(place, local)
            reader = reader_of(local, how_to_read(self._settings, self._source))
            if guessed := reader.guessed:
                self.guessed[str(guessed)] += 1
                log.log(guessed.level, "source '%s': %s is read with %s", self._source.name, name, guessed)
            yield name, reader
            if not isinstance(place, Path):
                local.unlink()
