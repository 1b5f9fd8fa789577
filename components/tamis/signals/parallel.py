"""Blocks of a pool, described in several processes and yielded in order. A killed run continues after the last one."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tamis.core.artifacts import Artifact
from tamis.core.blocks import BLOCK
from tamis.core.processes import cores, end_with
from tamis.core.progress import Progress
from tamis.signals.columns import SIGNALS
from tamis.signals.conversations import Conversations
from tamis.signals.settings import DescribeSettings

_ALONE = 4 * BLOCK  # samples up to which starting processes takes longer than describing
_AHEAD = 2  # blocks per process that are read before they are needed


def described(pool: Artifact, settings: DescribeSettings, kept: Path, *, title: str) -> Iterator[pa.Table]:
    """The columns `id` and those of the signals, block by block.

    Args:
        pool: the samples.
        settings: which signals.
        kept: folder for finished blocks; a block that is already there is read, not computed.
        title: name of the progress.
    """
    kept.mkdir(parents=True, exist_ok=True)
    processes = cores() if pool.manifest.rows > _ALONE else 1
    with Progress(title, pool.manifest.rows) as progress:
        for path in _alone(pool, settings, kept) if processes == 1 else _together(pool, settings, kept, processes):
            table = pq.read_table(path)
            yield table
            progress.advance(table.num_rows)


def _blocks(pool: Artifact, kept: Path) -> Iterator[tuple[Path, pa.RecordBatch]]:
    with_tools = "tools" in pq.read_schema(pool.parts()[0]).names
    start = 0
    for batch in pool.batches(["id", "messages", *(["tools"] if with_tools else [])], rows=BLOCK):
        yield kept / f"{start:012d}.parquet", batch
        start += batch.num_rows


def _alone(pool: Artifact, settings: DescribeSettings, kept: Path) -> Iterator[Path]:
    for path, batch in _blocks(pool, kept):
        if not path.exists():
            _keep(settings, batch, path)
        yield path


def _together(pool: Artifact, settings: DescribeSettings, kept: Path, processes: int) -> Iterator[Path]:
    waiting: deque[tuple[Path, Future[None] | None]] = deque()

    def next_path() -> Path:
        path, future = waiting.popleft()
        if future is not None:
            future.result()
        return path

    context = multiprocessing.get_context("spawn")  # forking a process with threads, such as Arrow's, may lock up
    pool_of = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(os.getpid(),))
    try:
        for path, batch in _blocks(pool, kept):
            # A block's buffers may be those of a whole part, so it is sent in Arrow's format, which has its rows only.
            sent = None if path.exists() else pool_of.submit(_keep_sent, settings, _bytes(batch), path)
            waiting.append((path, sent))
            if len(waiting) > _AHEAD * processes:
                yield next_path()
        while waiting:
            yield next_path()
    finally:
        pool_of.shutdown(cancel_futures=True)


def _begin(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends this process
    end_with(parent)


def _bytes(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def _keep_sent(settings: DescribeSettings, sent: bytes, path: Path) -> None:
    with pa.ipc.open_stream(sent) as reader:
        _keep(settings, reader.read_next_batch(), path)


def _keep(settings: DescribeSettings, batch: pa.RecordBatch, path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    pq.write_table(measured(settings, batch), temporary)
    temporary.replace(path)


def measured(settings: DescribeSettings, batch: pa.RecordBatch) -> pa.Table:
    """The column `id` and those of the signals for a pool's batch."""
    samples, columns = Conversations.of(batch), {"id": batch["id"]}
    for name in settings.active:
        signal_ = SIGNALS[name]
        values = signal_.measure(samples, settings)
        columns |= {column: pa.array(values[column], one.type) for column, one in signal_.columns.items()}
    return pa.table(columns)
