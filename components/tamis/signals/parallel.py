"""Blocks of a pool, described in several processes and yielded in order. A killed run continues after the last one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tamis.core.artifacts import Artifact
from tamis.core.blocks import BLOCK
from tamis.core.processes import cores
from tamis.core.progress import Progress
from tamis.core.workers import in_order
from tamis.signals.columns import SIGNALS
from tamis.signals.conversations import Conversations
from tamis.signals.settings import DescribeSettings

_ALONE = 4  # blocks before processes start: starting them takes longer than describing so few


def described(pool: Artifact, settings: DescribeSettings, kept: Path, *, title: str) -> Iterator[pa.Table]:
    """The columns `id` and those of the signals, block by block.

    Args:
        pool: the samples.
        settings: which signals.
        kept: folder for finished blocks; a block that is already there is read, not computed.
        title: name of the progress.
    """
    kept.mkdir(parents=True, exist_ok=True)
    with Progress(title, pool.manifest.rows) as progress:
        for path in in_order(_finished, _blocks(pool, settings, kept), cores(), alone=_ALONE):
            table = pq.read_table(path)
            yield table
            progress.advance(table.num_rows)


def _blocks(pool: Artifact, settings: DescribeSettings, kept: Path) -> Iterator[tuple[DescribeSettings, Path, bytes]]:
    """For each block, the settings, the place of its table, and its samples, which are empty if the table is there."""
    start = 0
    for batch in pool.batches(["id", "messages", "tools"], rows=BLOCK):
        path = kept / f"{start:012d}.parquet"
        yield settings, path, b"" if path.exists() else _bytes(batch)
        start += batch.num_rows


def _bytes(batch: pa.RecordBatch) -> bytes:
    """A batch in Arrow's format: it has the batch's rows only, while a pickle may have those of a whole part."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def _finished(block: tuple[DescribeSettings, Path, bytes]) -> Path:
    """The place of a block's table, which is written if there are samples."""
    settings, path, samples = block
    if samples:
        with pa.ipc.open_stream(samples) as reader:
            table = measured(settings, reader.read_next_batch())
        temporary = path.with_suffix(".tmp")
        pq.write_table(table, temporary)
        temporary.replace(path)
    return path


def measured(settings: DescribeSettings, batch: pa.RecordBatch) -> pa.Table:
    """The column `id` and those of the signals for a pool's batch."""
    samples, columns = Conversations.of(batch), {"id": batch["id"]}
    for name in settings.active:
        signal = SIGNALS[name]
        values = signal.measure(samples, settings)
        columns |= {column: pa.array(values[column], one.type) for column, one in signal.columns.items()}
    return pa.table(columns)
