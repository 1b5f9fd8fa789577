"""The near-copies stage: from a pool to a pool without near-copies."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact, Manifest
from tamis.core.ids import pack, unpack
from tamis.core.progress import Progress
from tamis.core.steps import Input, Step, Uri, run_step
from tamis.core.tables import NEAR_COPIES, POOL, PartsWriter
from tamis.nearcopies.clusters import NOT_DROPPED, near_copies
from tamis.nearcopies.known import CLUSTERS_FILE, decided
from tamis.nearcopies.settings import NearCopiesSettings
from tamis.nearcopies.signatures import Buckets, bands, signatures
from tamis.nearcopies.texts import BLOCK, KeptTexts, ratings_of, texts_of

log = logging.getLogger(__name__)
_REJECTS = "rejects.parquet"


def run(settings: NearCopiesSettings, *, samples: Uri, known: Sequence[Uri] = (), out: Uri) -> Manifest:
    """Drop near-copies; the artifact at `out` is a pool, and has `clusters.parquet` (schema `NEAR_COPIES`).

    Args:
        settings: what a near-copy is, and which of several is kept.
        samples: the pool.
        known: results for earlier pools. Their kept samples are kept, and their dropped ones dropped; only new samples
            are compared, with these and with each other.
        out: where to write the artifact.

    Raises:
        InputError: when `known` does not fit, or `rated_by` is not a number.
        MissingExtraError: when rensa is not installed.
    """
    inputs = {"samples": Input(samples, "pool"), "known": Input(known, "pool")}
    return run_step("nearcopies", "pool", settings, _drop, out=out, inputs=inputs)


@dataclass(frozen=True)
class _Samples:
    """The samples of a pool, in its order.

    Attributes:
        ids: (n,) S16.
        sources: (n,) names.
        lengths: (n,) characters of the normalized texts.
        ratings: (n,) values of `rated_by`, or empty.
        matrix: (n, permutations) signatures.
    """

    ids: NDArray[np.bytes_]
    sources: pa.Array
    lengths: NDArray[np.int64]
    ratings: NDArray[np.float64]
    matrix: NDArray[np.uint32]


def _drop(step: Step[NearCopiesSettings]) -> None:
    settings, pool = step.settings, step.input("samples")
    samples = _read(step, pool)
    n = len(samples.ids)
    kept, kept_for, similarity = decided(step.inputs("known"), samples.ids, settings)
    taken_over = int(kept.sum() + (kept_for != NOT_DROPPED).sum())
    # Samples without text are not compared: they are alike only in what is not compared.
    order = _preferred(samples, settings, kept, (kept_for == NOT_DROPPED) & ((samples.lengths > 0) | kept))
    count, rows = bands(settings.permutations, settings.threshold, settings.recall)
    matrix = samples.matrix[order]
    buckets = Buckets.of(matrix, count, rows)
    wanted = np.zeros(n, bool)
    wanted[order[(buckets.bucket >= 0).any(axis=1)]] = True
    with KeptTexts(step.scratch / "texts.bin", pool, wanted, settings) as texts:
        found, values, compared = near_copies(
            matrix,
            buckets,
            lambda number: texts[int(order[number])],
            n=settings.ngram,
            threshold=settings.threshold,
            settled=int(kept.sum()),
        )
    dropped = found != NOT_DROPPED
    kept_for[order[dropped]], similarity[order[dropped]] = order[found[dropped]], values[dropped]
    _write(step, pool, samples, kept_for, similarity)
    _account(step, pool, samples, kept_for)
    step.facts["near_copies"] |= {
        "compared_exactly": compared,
        "taken_over": taken_over,
        "without_text": int((samples.lengths == 0).sum()),
        "bands": count,
        "rows_per_band": rows,
    }


def _read(step: Step[NearCopiesSettings], pool: Artifact) -> _Samples:
    """Read the pool. Finished signatures are kept in the scratch folder, block by block."""
    settings, n = step.settings, pool.manifest.rows
    matrix, lengths = np.empty((n, settings.permutations), np.uint32), np.empty(n, np.int64)
    ids: list[NDArray[np.bytes_]] = []
    sources: list[pa.Array] = []
    ratings: list[float] = []
    start = 0
    columns = ["id", "source", "messages"] + (["metadata"] if settings.rated_by else [])
    with Progress("signatures", n) as progress:
        for batch in pool.batches(columns, rows=BLOCK):
            part = slice(start, start + batch.num_rows)
            kept = step.scratch / f"{start:012d}.npz"
            if not kept.exists():
                texts, temporary = texts_of(batch, settings), kept.with_suffix(".tmp.npz")
                made = signatures(texts, settings.ngram, settings.permutations, settings.seed)
                np.savez(temporary, signatures=made, lengths=np.array([len(text) for text in texts], np.int64))
                temporary.replace(kept)
            with np.load(kept) as block:
                matrix[part], lengths[part] = block["signatures"], block["lengths"]
            ids.append(pack(batch["id"], where=str(pool.location)))
            sources.append(batch["source"])
            if settings.rated_by is not None:
                ratings += ratings_of(batch, settings.rated_by, str(pool.location))
            start += batch.num_rows
            progress.advance(batch.num_rows)
    return _Samples(np.concatenate(ids), pa.concat_arrays(sources), lengths, np.array(ratings), matrix)


def _preferred(
    samples: _Samples, settings: NearCopiesSettings, kept: NDArray[np.bool_], open_: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """The rows of the samples `open_`: those that earlier runs kept, then the others, the preferred ones first."""
    value = {"first": np.zeros(len(kept)), "longest": samples.lengths, "best": samples.ratings}[settings.keep]
    order = np.lexsort((np.arange(len(kept)), np.where(kept, 0, -value), ~kept))
    return order[open_[order]]


def _write(
    step: Step[NearCopiesSettings],
    pool: Artifact,
    samples: _Samples,
    kept_for: NDArray[np.int64],
    similarity: NDArray[np.float32],
) -> None:
    """Write the samples that are left, and the clusters."""
    left, start = kept_for == NOT_DROPPED, 0
    with PartsWriter(step.out, POOL) as parts:
        for batch in pool.batches(rows=BLOCK):
            mask = left[start : start + batch.num_rows]
            parts.write(pa.Table.from_batches([batch.filter(pa.array(mask))]))
            start += batch.num_rows
    rows = np.flatnonzero(~left)
    rows = rows[np.lexsort((rows, kept_for[rows]))]
    table = pa.table(
        {
            "id": unpack(samples.ids[rows]),
            "source": samples.sources.take(pa.array(rows)),
            "kept": unpack(samples.ids[kept_for[rows]]),
            "kept_source": samples.sources.take(pa.array(kept_for[rows])),
            "similarity": similarity[rows],
        },
        schema=NEAR_COPIES,
    )
    pq.write_table(table, step.out / CLUSTERS_FILE, compression="zstd")
    if _REJECTS in [file.name for file in pool.manifest.files]:
        shutil.copyfile(pool.path(_REJECTS), step.out / _REJECTS)


def _account(step: Step[NearCopiesSettings], pool: Artifact, samples: _Samples, kept_for: NDArray[np.int64]) -> None:
    """Set the facts: those of the pool, with the near-copies of each source."""
    dropped = kept_for != NOT_DROPPED
    clusters, sizes = np.unique(kept_for[dropped], return_counts=True)
    by_source = _counts(samples.sources, dropped)
    facts = _without_means(pool.manifest.facts)
    known = facts.get("sources", {})
    facts["sources"] = {name: _without_means(known.get(name, {})) for name in {**known, **by_source}}
    for name, entry in facts["sources"].items():
        entry["near_copies"] = by_source.get(name, 0)
        if "kept" in entry:
            entry["kept"] -= entry["near_copies"]
    step.rows = int((~dropped).sum())
    facts["kept"] = step.rows
    facts["near_copies"] = {
        "dropped": int(dropped.sum()),
        "clusters": len(clusters),
        "largest_cluster": int(sizes.max()) + 1 if len(sizes) else 1,
        "of_other_sources": int(
            pc.sum(
                pc.not_equal(
                    samples.sources.take(pa.array(np.flatnonzero(dropped))),
                    samples.sources.take(pa.array(kept_for[dropped])),
                )
            ).as_py()
            or 0
        ),
    }
    step.facts.update(facts)
    log.info(
        "%s of %s samples are dropped as near-copies of %s others (%s)",
        *(f"{int(dropped.sum()):,}", f"{len(dropped):,}", f"{len(clusters):,}"),
        ", ".join(f"{name}: {number:,}" for name, number in by_source.items()) or "none",
    )


def _without_means(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a pool without means over its samples, which are other ones now."""
    return {name: value for name, value in facts.items() if not name.startswith("mean_")}


def _counts(sources: pa.Array, mask: NDArray[np.bool_]) -> dict[str, int]:
    counted = pc.value_counts(sources.filter(pa.array(mask)))
    return {entry["values"].as_py(): entry["counts"].as_py() for entry in counted}
