"""The embedding stage: pool in, embeddings out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tamis.core.artifacts import Manifest
from tamis.core.blocks import BLOCK, Conversations
from tamis.core.ids import pack
from tamis.core.models import revision_of
from tamis.core.progress import Progress
from tamis.core.samples import as_text, instruction_of
from tamis.core.steps import Input, Step, Uri, run_step
from tamis.core.tables import IDS
from tamis.embedding.known import KnownVectors
from tamis.embedding.settings import EmbeddingSettings

if TYPE_CHECKING:
    from tamis.embedding.encoder import Encoder

_READ = 16_384  # samples whose texts are in memory at a time


def run(settings: EmbeddingSettings, *, pool: Uri, known: Sequence[Uri] = (), out: Uri) -> Manifest:
    """Embed every sample of `pool`; the artifact at `out` holds `vectors.npy` (n, d) float16 and `ids.parquet`.

    Args:
        settings: which encoder, and what it reads.
        pool: the samples.
        known: embeddings of other pools: vectors of samples that they hold are taken over.
        out: where the artifact goes.

    Raises:
        ModelError: when the encoder cannot be loaded, or gives a vector that is not finite.
        InputError: when `known` embeddings were made by another encoder or from other text.
    """
    files = {"model": revision_of(settings.model, settings.revision)}
    inputs = {"pool": Input(pool, "pool"), "known": Input(known, "embeddings")}
    return run_step("embedding", "embeddings", settings, _embed, out=out, inputs=inputs, files=files)


def _embed(step: Step[EmbeddingSettings]) -> None:
    pool, encoding = step.input("pool"), _Encoding(step)
    ids = pool.table(["id"]).cast(IDS)
    keys = pack(ids["id"].combine_chunks(), where="the pool")
    known = [KnownVectors(artifact, step.settings, keys) for artifact in step.inputs("known")]
    vectors: np.memmap[tuple[int, int], np.dtype[np.float16]] | None = None

    def place(rows: NDArray[np.int64], block: NDArray[np.float16]) -> None:
        nonlocal vectors
        if vectors is None:
            shape = (len(keys), block.shape[1])
            vectors = np.lib.format.open_memmap(step.out / "vectors.npy", "w+", np.float16, shape)
        vectors[rows] = block
        progress.advance(len(rows))

    start = taken_over = 0
    with Progress("embedding", len(keys)) as progress:
        for batch in pool.batches(["messages"], rows=_READ):
            left = np.arange(start, start + batch.num_rows)
            for earlier in known:
                there, block = earlier.of(left)
                place(left[there], block)
                taken_over += len(block)
                left = left[~there]
            for rows, block in encoding.of(batch["messages"].take(left - start).to_pylist(), start):
                place(left[rows], block)
            start += batch.num_rows
    assert vectors is not None  # a pool has at least one sample
    vectors.flush()
    pq.write_table(ids, step.out / "ids.parquet", compression="zstd")
    step.rows = len(keys)
    step.facts.update(dimensions=int(vectors.shape[1]), taken_over=taken_over)
    step.models["encoder"] = revision_of(step.settings.model, step.settings.revision)


class _Encoding:
    """Encodes samples and keeps what is done in the step's scratch folder; loads the encoder when it is needed."""

    def __init__(self, step: Step[EmbeddingSettings]) -> None:
        self._settings, self._scratch = step.settings, step.scratch
        self._text = as_text if step.settings.text == "conversation" else instruction_of

    @cached_property
    def _encoder(self) -> Encoder:
        from tamis.embedding.encoder import Encoder

        return Encoder(self._settings)

    def of(self, samples: Conversations, start: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
        """Places among `samples` and the vectors of those, by and by; `start` tells these samples from others."""
        texts = [self._text(messages) for messages in samples]
        # Texts of like length share a batch, so that little padding is computed. Blocks are the same after a kill.
        order = np.argsort([-len(text) for text in texts], kind="stable")
        for first in range(0, len(order), BLOCK):
            rows = order[first : first + BLOCK]
            kept = self._scratch / f"{start:012d}-{first:06d}.npy"
            if kept.exists():
                block = np.load(kept)
            else:
                block = self._encoder.encode([texts[row] for row in rows])
                temporary = kept.with_suffix(".tmp.npy")
                np.save(temporary, block)
                temporary.replace(kept)
            yield rows, block
