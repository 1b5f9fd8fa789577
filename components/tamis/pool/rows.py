"""The rows of a source, mapped to conversations, in blocks that fit in memory."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Generator, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from tamis.core import storage
from tamis.core.errors import InputError
from tamis.core.processes import cores
from tamis.core.progress import Progress
from tamis.core.side import TAUGHT, Side
from tamis.core.workers import in_order
from tamis.pool.hub import DatasetReader
from tamis.pool.mapping import OPTIONAL, Mapping, check_columns, mapping_of
from tamis.pool.openings import Fields
from tamis.pool.parsing import Block, Filling, Layout, add_counts, named, nothing, parsed
from tamis.pool.pieces import InPieces, Piece
from tamis.pool.readers import how_to_read, reader_of
from tamis.pool.rejects import Reject
from tamis.pool.settings import PoolSettings, Source
from tamis.pool.sources import Resolved

log = logging.getLogger(__name__)
_BLOCK_ROWS = 8192
_BLOCK_BYTES = 1 << 24
_MOST_PROCESSES = 8  # by default: more wait for the one that reads, and pods may see many cores but have little memory
_ALONE = 8  # pieces before processes start: a small source is read sooner without them


class SourceRows:
    """Reads a source from its first row, in blocks.

    Attributes:
        mapping: that of the current file; known after its first readable row.
        schemas: number of files of each schema.
        guessed: number of files by what was guessed about them.
        seen: what the blocks so far have, without their samples.
        taken: facts about a data set; known after its first row.
    """

    def __init__(self, settings: PoolSettings, resolved: Resolved, downloads: Path) -> None:
        self._settings, self._resolved, self._source, self._downloads = settings, resolved, resolved.source, downloads
        self._blocks: Generator[Block] | None = None
        self._rows: Generator[tuple[Layout, int, int, Fields | Reject]] | None = None
        self._ended = False
        self.mapping: Mapping | None = None
        self.schemas: Counter[str] = Counter()
        self.guessed: Counter[str] = Counter()
        self.seen = nothing(self._source, Side(named(self._source)))
        self.taken: dict[str, Any] = {}

    def take(self, samples: int | None = None) -> Block:
        """The next block. With `samples`, it ends at the row with which it has that many.

        Either all blocks of a source are taken with `samples`, or none. Those without are parsed by several processes.

        Raises:
            InputError: when a file cannot be read, or its first row lacks fields that the mapping needs.
        """
        if samples is None:
            self._blocks = self._blocks or self._all_blocks()
            block = next(self._blocks)
        else:
            self._rows = self._rows or self._all_rows()
            block = self._taken(self._rows, samples)
        add_counts(self.seen, block)
        self._ended = block.last
        return block

    def _taken(self, rows: Iterator[tuple[Layout, int, int, Fields | Reject]], samples: int) -> Block:
        filling = Filling(self._source)
        for layout, number, origin, row in rows:
            filling.add(layout, number, origin, row)
            if filling.samples == samples or filling.read == _BLOCK_ROWS or filling.characters > _BLOCK_BYTES:
                return filling.block()
        block = filling.block()
        block.last = True
        return block

    def _all_blocks(self) -> Generator[Block]:
        """The blocks of all pieces, several pieces to a block; the last one is marked."""
        held = nothing(self._source)
        tables: list[pa.Table] = []
        for block in self._parsed_pieces():
            add_counts(held, block)
            held.rejected += block.rejected
            tables.append(block.table)
            if held.read >= _BLOCK_ROWS or sum(table.nbytes for table in tables) >= _BLOCK_BYTES:
                held.table = pa.concat_tables(tables)
                yield held
                held, tables = nothing(self._source), []
        held.table = pa.concat_tables([held.table, *tables])
        held.last = True
        yield held

    def _parsed_pieces(self) -> Iterator[Block]:
        """The block of each piece, with its rows numbered as in the file and in the source."""
        file, row, origin = None, 0, 0
        layouts: list[Layout] = []  # of the pieces that are being parsed
        total, files = self._opened()

        def work() -> Iterator[tuple[Source, Layout, Piece]]:
            for layout, reader, wanted in files:
                for piece in reader.pieces(wanted):
                    layouts.append(layout)
                    yield self._source, layout, piece

        with Progress(f"pool: {self._source.name}", total, unit="rows") as progress:
            processes = self._settings.processes or min(cores(), _MOST_PROCESSES)
            for block in in_order(parsed, work(), processes, alone=_ALONE):
                layout = layouts.pop(0)
                if layout is not file:
                    file, row = layout, 0
                yield block.moved(row, origin)
                row += block.read
                origin += block.read
                progress.advance(block.read)

    def close(self) -> None:
        """Close the open file, if there is one, and end the processes."""
        for iterator in (self._blocks, self._rows):
            if iterator is not None:
                iterator.close()

    def check_all_settings_met(self) -> None:
        """If all rows were read, make sure that `where` and `keep` match some row, to find typing errors.

        Raises:
            InputError: with the values that the rows have instead.
        """
        if not self._ended:
            return
        if self._source.where and not self.seen.matched:
            seen = "; ".join(f"{name}: {', '.join(values)}" for name, values in self.seen.others.items() if values)
            raise InputError(
                f"source '{self._source.name}': no row matches {self._source.where}",
                allowed=f"for example values of the first rows: {seen}",
                action="correct the source's `where`",
            )
        optional = [name for field, name in self._source.fields.items() if field in OPTIONAL]
        if never_seen := {*self._source.keep, *optional} - self.seen.seen:
            raise InputError(
                f"source '{self._source.name}': no row has the field {', '.join(sorted(never_seen))}",
                action="correct the source's `keep` or `fields`",
            )

    def _all_rows(self) -> Generator[tuple[Layout, int, int, Fields | Reject]]:
        """Every row with its file's layout, its number in the file, and its number in the source."""
        before, (total, files) = 0, self._opened()
        with Progress(f"pool: {self._source.name}", total, unit="rows") as progress:
            for layout, reader, wanted in files:
                number = -1
                for number, row in reader.rows(wanted):
                    yield layout, number, before + number, row
                    progress.advance()
                before += number + 1

    def _opened(self) -> tuple[int | None, Iterator[tuple[Layout, InPieces, list[str]]]]:
        """The number of rows, if it is known, and the source's files, as `_files` returns them."""
        files = self._files()
        first = next(files)  # a source has at least one file
        return first[1].total if len(self._resolved.files) <= 1 else None, chain([first], files)

    def _files(self) -> Iterator[tuple[Layout, InPieces, list[str]]]:
        """Every file's layout and reader, and the fields to read from it, after checking that it has them."""
        for file, reader in self._readers():
            if reader.columns:
                self.mapping = mapping_of(self._source, reader.columns, file, before=self.mapping)
                self.schemas[self.mapping.schema] += 1
                check_columns(self._source, self.mapping, reader.columns, reader.uniform, file)
            read = frozenset(self.mapping.columns if self.mapping else ())
            columns = tuple(reader.columns) if reader.uniform else None
            lost = [name for name in reader.columns if name in TAUGHT]  # read to count samples in which they matter
            wanted = [*read, *self._source.where, *self._source.keep, *lost]
            yield Layout(file, self.mapping, columns, read), reader, wanted

    def _readers(self) -> Iterator[tuple[str, InPieces]]:
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
