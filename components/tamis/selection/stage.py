"""The selection stage: a pool and what is known about it in, a subset out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact, Kind, Manifest
from tamis.core.errors import SettingsError
from tamis.core.ids import positions, unpack
from tamis.core.progress import Progress
from tamis.core.steps import Input, Step, Uri, run_step
from tamis.core.storage import fingerprint
from tamis.core.tables import SELECTION
from tamis.selection.candidates import Candidates, Column
from tamis.selection.choose import Choice, choose, score_column
from tamis.selection.exclusion import read_ids
from tamis.selection.reading import rater_of, read_curation, read_distances, read_pool, response_lengths
from tamis.selection.settings import SelectionSettings
from tamis.selection.strategies import strategy_named

_BLOCK = 1 << 20  # rows of the table that are written at once
_SCORE_CLASSES = 6


def run(
    settings: SelectionSettings, *, pool: Uri, curation: Uri | None = None, neighbors: Uri | None = None, out: Uri
) -> Manifest:
    """Choose a subset of `pool`; the artifact at `out` holds `selection.parquet`, by rank, and `subset.jsonl`.

    `curation` and `neighbors` are opened only when the settings need them, so that a subset that rests on neither is
    not made anew when they change.

    Raises:
        SettingsError: when an input that the strategy needs is not given, or a setting does not fit the inputs.
        InputError: when exactly the number asked for cannot be had.
    """
    needed = _columns(settings)
    from_curation = bool(needed & {"raw_scores", "scores", "diversity"})
    inputs = {"pool": Input(pool, "pool")}
    if from_curation:
        inputs["curation"] = Input(_given(curation, "curation", settings), "curation")
    if "distances" in needed:
        inputs["neighbors"] = Input(_given(neighbors, "neighbors", settings), "neighbors")
    files = {uri: fingerprint(uri) for uri in settings.exclude}
    return run_step(
        "selection", "selection", settings, _select, out=out, inputs=inputs, files=files, name=settings.name
    )


def _columns(settings: SelectionSettings) -> set[Column]:
    """What must be known about the samples."""
    columns = set(strategy_named(settings.strategy).order)
    return columns | {score_column(settings.strategy)} if settings.min_score is not None else columns


def _given(uri: Uri | None, kind: Kind, settings: SelectionSettings) -> Uri:
    if uri is None:
        reason = f"the strategy {settings.strategy}" + (" with min_score" if settings.min_score is not None else "")
        raise SettingsError(f"{reason} needs the artifact {kind}, which is not given", action=f"give the {kind}")
    return uri


def _select(step: Step[SelectionSettings]) -> None:
    settings = step.settings
    candidates, barred = _read(step)
    choice = choose(
        settings.strategy,
        candidates,
        settings.size,
        seed=settings.seed,
        barred=barred,
        min_score=settings.min_score,
        quotas=settings.sources,
    )
    _write_table(step.out / "selection.parquet", settings.strategy, candidates, choice.rows)
    characters = _write_subset(step.out / "subset.jsonl", step.input("pool"), choice.rows)
    step.rows = len(choice.rows)
    step.facts.update(_account(candidates, choice), mean_characters=characters / len(choice.rows))


def _read(step: Step[SelectionSettings]) -> tuple[Candidates, dict[str, NDArray[np.bool_]]]:
    """The candidates with the columns that are needed, and masks of those that must not be picked, by reason."""
    settings, needed = step.settings, _columns(step.settings)
    candidates = read_pool(step.input("pool"), lengths="lengths" in needed)
    barred: dict[str, NDArray[np.bool_]] = {}
    if settings.exclude:
        excluded = np.unique(np.concatenate([read_ids(uri) for uri in settings.exclude]))
        at = positions(excluded, candidates.ids)
        barred["excluded"] = np.zeros(len(candidates), bool)
        barred["excluded"][at[at >= 0]] = True
        step.facts["exclude_ids"] = len(excluded)
    if step.inputs("curation"):
        curation = step.input("curation")
        columns: list[Column] = [name for name in ("raw_scores", "scores", "diversity") if name in needed]
        rater = rater_of(curation, settings.rater)
        found, barred["not in the curation"] = read_curation(curation, rater, columns, candidates.ids)
        candidates = replace(candidates, **found)  # type: ignore[arg-type]
        step.facts["rater"] = rater
    if step.inputs("neighbors"):
        distances, barred["not in the graph"] = read_distances(step.input("neighbors"), settings.k, candidates.ids)
        candidates = replace(candidates, distances=distances)
    return candidates, barred


def _write_table(path: Path, strategy: str, candidates: Candidates, rows: NDArray[np.int64]) -> None:
    """Write `selection.parquet`: one row per picked sample, the first picked first."""
    score = strategy_named(strategy).score
    with pq.ParquetWriter(path, SELECTION, compression="zstd") as writer:
        for start in range(0, len(rows), _BLOCK):
            part = rows[start : start + _BLOCK]
            values: dict[str, Any] = {
                "id": unpack(candidates.ids[part]),
                "rank": np.arange(start, start + len(part)),
                "score": candidates.column(score)[part].astype(np.float64) if score else pa.nulls(len(part)),
                "diversity": pa.nulls(len(part)) if candidates.diversity is None else candidates.diversity[part],
            }
            writer.write_table(pa.table(values).cast(SELECTION))


def _write_subset(path: Path, pool: Artifact, rows: NDArray[np.int64]) -> int:
    """Write `subset.jsonl` in the pool's order, in one pass with bounded memory; returns the responses' characters."""
    picked = np.zeros(pool.manifest.rows, bool)
    picked[rows] = True
    start = characters = 0
    with path.open("w", encoding="utf-8", newline="\n") as file, Progress("selection", len(rows)) as progress:
        for batch in pool.batches(["id", "source", "messages"], rows=2_000):
            here = picked[start : start + batch.num_rows]
            start += batch.num_rows
            batch = batch.filter(pa.array(here))
            characters += int(response_lengths(batch["messages"]).sum())
            for sample in batch.to_pylist():
                file.write(json.dumps(sample, ensure_ascii=False) + "\n")
            progress.advance(batch.num_rows)
    return characters


def _account(candidates: Candidates, choice: Choice) -> dict[str, Any]:
    """What the manifest says about the subset."""
    sources = np.bincount(candidates.sources[choice.rows], minlength=len(candidates.source_names))
    facts: dict[str, Any] = {
        "pool_rows": len(candidates),
        "eligible": choice.eligible,
        "not_eligible": choice.not_eligible,
        "sources": {name: int(count) for name, count in zip(candidates.source_names, sources, strict=True)},
        "thresholds": choice.thresholds,
    }
    scores = candidates.scores if candidates.raw_scores is None else candidates.raw_scores
    if scores is not None:
        counts = np.bincount(scores[choice.rows], minlength=_SCORE_CLASSES)
        facts["score_classes"] = {str(score): int(count) for score, count in enumerate(counts)}
    return facts
