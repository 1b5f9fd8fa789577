"""A seeded draw of samples from a source of unknown length, in bounded memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tamis.core.ids import Keys, tie_breaks
from tamis.core.tables import POOL, PartsWriter
from tamis.pool.keyset import KeySet

_SPOOLED = POOL.append(pa.field("key", pa.uint64(), nullable=False))
_BATCH = 8192


class Draw:
    """Draws `size` of the samples offered to it: those whose ids have the smallest keys for `seed`.

    Samples that may still be drawn wait in Parquet files in `folder`, about size * (1 + ln(offered / size)) of them; in
    memory there are 8 bytes for each sample drawn and 16 for each sample offered (to know duplicates).

    Use it as a context manager; the files are gone afterwards.
    """

    def __init__(self, size: int, seed: int, folder: Path) -> None:
        self._size, self._seed, self._folder = size, seed, folder
        self._offered = KeySet()
        self._keys: list[NDArray[np.uint64]] = []
        self._waiting = 0
        self._largest = np.uint64(2**64 - 1)

    def __enter__(self) -> Draw:
        shutil.rmtree(self._folder, ignore_errors=True)  # of a run that was killed
        self._spool = PartsWriter(self._folder, _SPOOLED)
        self._spool.__enter__()
        return self

    def offer(self, table: pa.Table, ids: Keys) -> int:
        """Offer the rows of `table` (schema `POOL`), whose ids are `ids`; returns how many were not offered before.

        Equal samples count once.
        """
        new = self._offered.new(ids)
        self._offered.add(ids[new])
        keys = tie_breaks(ids, self._seed)
        possible = new & (keys <= self._largest)
        waiting = table.append_column(_SPOOLED.field("key"), pa.array(keys)).filter(pa.array(possible))
        self._spool.write(waiting)
        self._keys.append(keys[possible])
        self._waiting += waiting.num_rows
        if self._waiting > 2 * self._size:
            self._shrink()
        return int(new.sum())

    def _shrink(self) -> None:
        """Forget the keys that are too large to be drawn."""
        if self._waiting > self._size:
            smallest = np.partition(np.concatenate(self._keys), self._size - 1)[: self._size]
            self._keys, self._waiting, self._largest = [smallest], self._size, smallest.max()

    def drawn(self) -> Iterator[pa.Table]:
        """The samples drawn, in the order in which they were offered. Nothing can be offered afterwards."""
        self._spool.__exit__(None, None, None)
        self._shrink()
        left = self._size  # two samples with one key, at the border, would be one too many
        for part in sorted(self._folder.glob("part-*.parquet")):
            with pq.ParquetFile(part) as file:
                for batch in file.iter_batches(batch_size=_BATCH):
                    keys = batch["key"].to_numpy()
                    table = pa.Table.from_batches([batch]).filter(pa.array(keys <= self._largest)).slice(0, left)
                    left -= table.num_rows
                    yield table.select(POOL.names)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spool.__exit__(kind, error, trace)
        shutil.rmtree(self._folder, ignore_errors=True)
