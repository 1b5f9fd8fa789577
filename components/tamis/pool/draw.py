"""A seeded random draw of samples from a source of unknown length, in bounded memory."""

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
    """Draws `size` of the offered samples: those whose ids have the smallest random keys for `seed`.

    Samples that may still be drawn are kept in Parquet files in `folder`, about size * (1 + ln(offered / size)) of
    them. Memory holds 8 bytes per drawn sample, and 16 bytes per offered sample to find duplicates.

    Use it as a context manager, which removes the files at the end.
    """

    def __init__(self, size: int, seed: int, folder: Path) -> None:
        self._size, self._seed, self._folder = size, seed, folder
        self._offered = KeySet()
        self._keys: list[NDArray[np.uint64]] = []
        self._waiting = 0
        self._largest = np.uint64(2**64 - 1)

    def __enter__(self) -> Draw:
        shutil.rmtree(self._folder, ignore_errors=True)  # files of a killed run
        self._spool = PartsWriter(self._folder, _SPOOLED)
        self._spool.__enter__()
        return self

    def offer(self, table: pa.Table, ids: Keys) -> int:
        """Offer the rows of `table` (schema `POOL`) with the ids `ids`; return how many were not offered before.

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
        """Drop the keys that are too large to be drawn."""
        if self._waiting > self._size:
            smallest = np.partition(np.concatenate(self._keys), self._size - 1)[: self._size]
            self._keys, self._waiting, self._largest = [smallest], self._size, smallest.max()

    def drawn(self) -> Iterator[pa.Table]:
        """The drawn samples, in the order in which they were offered. Nothing can be offered afterwards."""
        self._spool.__exit__(None, None, None)
        self._shrink()
        left = self._size  # two samples could share the largest key, which would draw one too many
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
