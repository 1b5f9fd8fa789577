"""Work on a pool in blocks. Each block's result is saved when it is done, so a killed run continues from there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from tamis.core.artifacts import Artifact
from tamis.core.progress import Progress
from tamis.core.sample_columns import conversations
from tamis.core.samples import Message

BLOCK = 1024  # samples whose results are saved together

Conversations: TypeAlias = Sequence[Sequence[Message]]


def kept_blocks(
    pool: Artifact, kept: Path, compute: Callable[[pa.Array, Conversations], pa.Table], *, title: str
) -> Iterator[pa.Table]:
    """Apply `compute` to the pool block by block, in the pool's order, and yield its tables.

    Args:
        pool: the samples.
        kept: folder for finished blocks; a block that is already there is read, not computed.
        compute: takes the ids and the messages of at most `BLOCK` samples and returns a table.
        title: name of the progress.
    """
    kept.mkdir(parents=True, exist_ok=True)
    start = 0
    with Progress(title, pool.manifest.rows) as progress:
        for batch in pool.batches(["id", "messages"], rows=BLOCK):
            path = kept / f"{start:012d}.parquet"
            if not path.exists():
                table = compute(batch["id"], conversations(batch["messages"]))
                temporary = path.with_suffix(".tmp")
                pq.write_table(table, temporary)
                temporary.replace(path)
            yield pq.read_table(path)
            start += batch.num_rows
            progress.advance(batch.num_rows)
