"""The embedding stage: pool in, embeddings out."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq

from tamis.core.artifacts import Manifest
from tamis.core.models import revision_of
from tamis.core.progress import Progress
from tamis.core.samples import as_text, instruction_of
from tamis.core.steps import Input, Step, Uri, run_step
from tamis.core.tables import IDS
from tamis.embedding.settings import EmbeddingSettings

_BLOCK = 1024  # texts between two savings of work


def run(settings: EmbeddingSettings, *, pool: Uri, out: Uri) -> Manifest:
    """Embed every sample of `pool`; the artifact at `out` holds `vectors.npy` (n, d) float16 and `ids.parquet`."""
    files = {"model": revision_of(settings.model, settings.revision)}
    return run_step(
        "embedding", "embeddings", settings, _embed, out=out, inputs={"pool": Input(pool, "pool")}, files=files
    )


def _embed(step: Step[EmbeddingSettings]) -> None:
    from tamis.embedding.encoder import Encoder

    to_text = as_text if step.settings.text == "conversation" else instruction_of
    table = step.input("pool").table(["id", "messages"])
    texts = [to_text(messages) for messages in table["messages"].to_pylist()]
    # Texts of like length share a batch, so that little padding is computed. Blocks are the same after a kill.
    order = np.argsort([-len(text) for text in texts], kind="stable")
    encoder: Encoder | None = None
    vectors: np.memmap[tuple[int, int], np.dtype[np.float16]] | None = None
    with Progress("embedding", len(texts)) as progress:
        for start in range(0, len(order), _BLOCK):
            rows = order[start : start + _BLOCK]
            kept = step.scratch / f"{start:012d}.npy"
            if kept.exists():
                block = np.load(kept)
            else:
                encoder = encoder or Encoder(step.settings)
                block = encoder.encode([texts[row] for row in rows])
                temporary = kept.with_suffix(".tmp.npy")
                np.save(temporary, block)
                temporary.replace(kept)
            if vectors is None:
                shape = (len(texts), block.shape[1])
                vectors = np.lib.format.open_memmap(step.out / "vectors.npy", "w+", np.float16, shape)
            vectors[rows] = block
            progress.advance(len(rows))
    assert vectors is not None  # a pool has at least one sample
    vectors.flush()
    pq.write_table(table.select(["id"]).cast(IDS), step.out / "ids.parquet", compression="zstd")
    step.rows = len(texts)
    step.facts["dimensions"] = int(vectors.shape[1])
    step.models["encoder"] = revision_of(step.settings.model, step.settings.revision)
