"""Makers of small real artifacts, through the same step that the stages use."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tamis.core.artifacts import Kind, Manifest
from tamis.core.samples import Message, sample_id
from tamis.core.settings import StageSettings
from tamis.core.steps import Step, run_step
from tamis.core.tables import CORRECTIONS, CURATION, IDS, POOL, RATINGS, SELECTION, PartsWriter, curation_with_posterior


class NoSettings(StageSettings):
    """Settings of an artifact made by a test; `variant` makes two artifacts differ."""

    OUTPUT_REVISION: ClassVar[int] = 1

    variant: str = ""


def make(
    kind: Kind, out: Path, write: Callable[[Step[NoSettings]], None], *, name: str = "", variant: str = ""
) -> Manifest:
    """A finished artifact of `kind` at `out`, whose files `write` makes."""
    return run_step("test", kind, NoSettings(variant=variant or str(out)), write, out=out, name=name)


def conversation(*turns: str) -> list[Message]:
    """Messages that go user, assistant, user, assistant, …"""
    return [Message(role=("user", "assistant")[i % 2], content=turn) for i, turn in enumerate(turns)]


# The schema of pools before samples had tools, calls and thoughts.
OLD_POOL = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])), nullable=False),
        pa.field("origin", pa.int64(), nullable=False),
        pa.field("metadata", pa.string()),
    ]
)


def make_pool(
    out: Path,
    samples: Sequence[list[Message]],
    *,
    source: str | Sequence[str] = "test",
    metadata: Sequence[dict[str, Any]] | None = None,
    schema: pa.Schema = POOL,
) -> Path:
    """A finished pool of `samples`, in order; returns `out`."""
    sources = [source] * len(samples) if isinstance(source, str) else list(source)
    rows = [
        {
            "id": sample_id(messages),
            "source": sources[i],
            "messages": messages,
            "origin": i,
            "metadata": json.dumps(metadata[i]) if metadata else None,
        }
        for i, messages in enumerate(samples)
    ]
    make("pool", out, lambda step: _write(step, schema, rows))
    return out


def make_ratings(
    out: Path,
    rater: str,
    ids: Sequence[str],
    overall: Sequence[int | None],
    *,
    not_asked: Sequence[str] = (),
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Finished ratings; None is a sample that could not be rated, or was `not_asked` about. Returns `out`.

    `facts` are those of the manifest.
    """
    rows = [
        {"id": i, "rater": rater, "overall": v, "status": "ok" if v is not None else "unparsable", "attempts": 1}
        | {name: v for name in ("rarity", "complexity", "informativeness")}
        | ({"status": "not_asked", "attempts": 0} if i in not_asked else {})
        for i, v in zip(ids, overall, strict=True)
    ]

    def write(step: Step[NoSettings]) -> None:
        _write(step, RATINGS, rows)
        step.facts.update(facts or {})

    make("ratings", out, write, name=rater)
    return out


def make_embeddings(out: Path, ids: Sequence[str], vectors: np.ndarray) -> Path:
    """Finished embeddings of (n, d) `vectors`, which are normalised here; returns `out`."""

    def write(step: Step[NoSettings]) -> None:
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        np.save(step.out / "vectors.npy", unit.astype(np.float16))
        _write_ids(step, ids)

    make("embeddings", out, write)
    return out


def make_neighbors(out: Path, ids: Sequence[str], indices: np.ndarray, distances: np.ndarray) -> Path:
    """A finished graph of (n, k) `indices` and cosine `distances`; returns `out`."""

    def write(step: Step[NoSettings]) -> None:
        np.save(step.out / "indices.npy", indices.astype(np.int32))
        np.save(step.out / "distances.npy", distances.astype(np.float32))
        _write_ids(step, ids)
        step.facts.update(k=int(indices.shape[1]), metric="cosine", exact=True)

    make("neighbors", out, write)
    return out


def make_curation(
    out: Path,
    rows: Sequence[dict[str, Any]],
    diagnosis: dict[str, Any] | None = None,
    corrections: Sequence[dict[str, Any]] = (),
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """A finished curation; missing columns get plain defaults. `diagnosis` maps raters to what is known of them.

    It has the column `posterior` where a row has one.
    """
    defaults: dict[str, Any] = {"rater": "r", "raw_score": None, "score": None, "flagged": False, "diversity": 0.0}
    classes = next((len(row["posterior"]) for row in rows if row.get("posterior")), None)
    schema = CURATION if classes is None else curation_with_posterior(classes)

    def write(step: Step[NoSettings]) -> None:
        _write(step, schema, [defaults | {"mean": row.get("score")} | row for row in rows])
        (step.out / "diagnosis.json").write_text(json.dumps(diagnosis or {}))
        pq.write_table(pa.Table.from_pylist(list(corrections), CORRECTIONS), step.out / "corrections.parquet")
        step.facts.update(facts or {})

    make("curation", out, write)
    return out


def make_selection(out: Path, samples: Sequence[list[Message]], *, name: str = "subset", source: str = "test") -> Path:
    """A finished selection of `samples`, in order of rank; returns `out`."""
    rows = [{"id": sample_id(m), "rank": i, "score": None, "diversity": None} for i, m in enumerate(samples)]
    lines = [{"id": sample_id(m), "source": source, "messages": m} for m in samples]

    def write(step: Step[NoSettings]) -> None:
        pq.write_table(pa.Table.from_pylist(rows, schema=SELECTION), step.out / "selection.parquet")
        (step.out / "subset.jsonl").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        step.rows = len(rows)

    make("selection", out, write, name=name)
    return out


def _write(step: Step[NoSettings], schema: pa.Schema, rows: Sequence[dict[str, Any]]) -> None:
    with PartsWriter(step.out, schema) as parts:
        parts.write_rows(rows)
    step.rows = parts.rows


def _write_ids(step: Step[NoSettings], ids: Sequence[str]) -> None:
    pq.write_table(pa.table({"id": list(ids)}, schema=IDS), step.out / "ids.parquet")
    step.rows = len(ids)
