"""The embedding stage: from a pool to embeddings."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact, Manifest
from tamis.core.blocks import BLOCK, Conversations
from tamis.core.ids import pack
from tamis.core.models import revision_of
from tamis.core.progress import Progress
from tamis.core.sample_columns import conversations
from tamis.core.samples import as_text, instruction_of
from tamis.core.steps import Input, Step, Uri, run_step
from tamis.core.tables import IDS
from tamis.embedding.beginnings import Beginnings, find_beginnings
from tamis.embedding.known import KnownVectors
from tamis.embedding.settings import EmbeddingSettings

if TYPE_CHECKING:
    from tamis.embedding.encoder import Encoder

log = logging.getLogger(__name__)
_READ = 16_384  # samples whose texts are in memory at once


def run(settings: EmbeddingSettings, *, pool: Uri, known: Sequence[Uri] = (), out: Uri) -> Manifest:
    """Embed every sample of `pool`; the artifact at `out` has `vectors.npy` (n, d) float16 and `ids.parquet`.

    Args:
        settings: the encoder, and the text that it reads.
        pool: the samples.
        known: embeddings of other pools, whose vectors are reused.
        out: where to write the artifact.

    Raises:
        ModelError: when the encoder cannot be loaded, or returns a vector that is not finite.
        InputError: when `known` embeddings were made with another encoder or from other text.
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

    encoding.find_beginnings(pool)
    start = taken_over = 0
    with Progress("embedding", len(keys)) as progress:
        for batch in pool.batches(["messages"], rows=_READ):
            left = np.arange(start, start + batch.num_rows)
            for earlier in known:
                there, block = earlier.of(left)
                if (
                    there.any()
                    and (same := encoding.same_texts(batch["messages"].take(left - start), earlier)) is not None
                ):
                    block, there = block[same[there]], there & same
                place(left[there], block)
                taken_over += len(block)
                left = left[~there]
            for rows, block in encoding.of(conversations(batch["messages"].take(left - start)), start):
                place(left[rows], block)
            start += batch.num_rows
    assert vectors is not None  # a pool has at least one sample
    vectors.flush()
    pq.write_table(ids, step.out / "ids.parquet", compression="zstd")
    step.rows = len(keys)
    step.facts.update(dimensions=int(vectors.shape[1]), taken_over=taken_over)
    step.facts.update(encoding.facts(), equal_vectors=equal_rows(vectors))
    _say(step.facts, len(keys), step.settings.max_tokens)
    step.models["encoder"] = revision_of(step.settings.model, step.settings.revision)


def equal_rows(vectors: NDArray[np.float16]) -> int:
    """Number of rows of (n, d) `vectors` that are equal to another row."""
    odd = np.random.default_rng(0).integers(1, 2**63, vectors.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    hashes = np.empty(len(vectors), np.uint64)
    for start in range(0, len(vectors), BLOCK):
        bits = np.ascontiguousarray(vectors[start : start + BLOCK]).view(np.uint16)
        hashes[start : start + BLOCK] = (bits * odd).sum(axis=1, dtype=np.uint64)
    _, counts = np.unique(hashes, return_counts=True)
    return int(counts[counts > 1].sum())


def _say(facts: dict[str, Any], samples: int, max_tokens: int) -> None:
    """Warn of left-out beginnings, of texts that are cut, and of equal vectors."""
    for beginning in facts.get("beginnings_left_out", []):
        log.warning(
            "%s samples begin with the same %s tokens, which are left out (embedding.shared_beginnings)",
            f"{beginning['samples']:,}",
            f"{beginning['tokens']:,}",
        )
    if facts["texts_cut"]:
        log.warning(
            "%s of %s texts are longer than %d tokens and were cut (embedding.max_tokens)",
            f"{facts['texts_cut']:,}",
            f"{samples - facts['taken_over']:,}",
            max_tokens,
        )
    if facts["equal_vectors"]:
        log.warning(
            "%s of %s samples have the same vector as another sample, so neighbours and diversity cannot distinguish "
            "them%s",
            f"{facts['equal_vectors']:,}",
            f"{samples:,}",
            "; the likely reason is that texts were cut" if facts["texts_cut"] else "",
        )


class _Encoding:
    """Encodes samples and saves finished vectors in the step's scratch folder. The encoder is loaded on first use."""

    def __init__(self, step: Step[EmbeddingSettings]) -> None:
        self._settings, self._scratch = step.settings, step.scratch
        self._whole_text = as_text if step.settings.text == "conversation" else instruction_of
        self._beginnings, self._cut = Beginnings(), 0

    @cached_property
    def _encoder(self) -> Encoder:
        from tamis.embedding.encoder import Encoder

        return Encoder(self._settings)

    def find_beginnings(self, pool: Artifact) -> None:
        """Find the beginnings to leave out of the pool's texts."""
        if self._settings.shared_beginnings == "keep":
            return

        def texts() -> Iterator[tuple[str, str]]:
            for batch in pool.batches(["source", "messages"], rows=_READ):
                for source, messages in zip(batch["source"].to_pylist(), conversations(batch["messages"]), strict=True):
                    yield source, self._whole_text(messages)

        def tokens_of(text: str) -> int:
            return int(self._encoder.tokens_in([text])[0])

        self._beginnings = find_beginnings(texts, tokens_of, self._settings.max_tokens)

    def facts(self) -> dict[str, Any]:
        """Facts about the texts for the manifest."""
        left_out = self._beginnings.as_facts()
        return {"texts_cut": self._cut} | ({"beginnings_left_out": left_out} if left_out else {})

    def same_texts(self, messages: pa.Array, earlier: KnownVectors) -> NDArray[np.bool_] | None:
        """For which samples the earlier embeddings read the same text; None means all, if nothing was left out."""
        if not self._beginnings.found and not earlier.beginnings.found:
            return None
        texts = [self._whole_text(sample) for sample in conversations(messages)]
        return np.array([self._beginnings.length(text) == earlier.beginnings.length(text) for text in texts], bool)

    def of(self, samples: Conversations, start: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
        """Yield indices of `samples` with their vectors, block by block. `start` identifies these samples on disk."""
        texts = [self._beginnings.rest(self._whole_text(messages)) for messages in samples]
        # Texts of similar length share a batch, which saves padding. Blocks are the same after a kill.
        order = np.argsort([-len(text) for text in texts], kind="stable")
        for first in range(0, len(order), BLOCK):
            rows = order[first : first + BLOCK]
            kept = self._scratch / f"{start:012d}-{first:06d}.npz"
            if not kept.exists():
                chosen = [texts[row] for row in rows]
                temporary = kept.with_suffix(".tmp.npz")
                np.savez(temporary, vectors=self._encoder.encode(chosen), cut=self._encoder.cut(chosen))
                temporary.replace(kept)
            with np.load(kept) as block:
                self._cut += int(block["cut"])
                yield rows, block["vectors"]
