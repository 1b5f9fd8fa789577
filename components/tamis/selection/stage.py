"""The selection stage: chooses a subset of a pool from what is known about its samples."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact, Kind, Manifest
from tamis.core.errors import ArtifactError, SettingsError
from tamis.core.failures import failure_in
from tamis.core.ids import unpack
from tamis.core.progress import Progress
from tamis.core.sample_columns import rows_of
from tamis.core.steps import Input, Step, Uri, run_step
from tamis.core.storage import fingerprint
from tamis.core.tables import SELECTION
from tamis.selection.candidates import CURATED, Candidates, Column
from tamis.selection.choose import Choice, choose, score_column
from tamis.selection.reading import (
    excluded,
    rater_of,
    read_curation,
    read_distances,
    read_embeddings,
    read_pool,
    response_lengths,
)
from tamis.selection.settings import SelectionSettings, strategy_of
from tamis.selection.signals import ABSENT, COLUMNS, barred_by, column_of
from tamis.selection.similarity import Embeddings
from tamis.selection.strategies import STRATEGIES

log = logging.getLogger(__name__)
_BLOCK = 1 << 20  # rows of the table that are written at once
_SCORE_CLASSES = 6


def run(
    settings: SelectionSettings,
    *,
    pool: Uri,
    curation: Uri | None = None,
    neighbors: Uri | None = None,
    embeddings: Uri | None = None,
    scores: Sequence[Uri] = (),
    signals: Uri | None = None,
    out: Uri,
) -> Manifest:
    """Choose a subset of `pool`.

    The artifact at `out` holds `selection.parquet`, ordered by rank, `subset.jsonl`, and `missed.parquet` with the
    highest-ranked samples that were not picked.

    Inputs other than the pool are opened only if the settings need them, so a subset is not made again when an input
    changes that it does not use. From `scores`, the strategy takes those with the name that it needs.

    Raises:
        SettingsError: when an input that the strategy needs is not given, or a setting does not fit the inputs.
        ArtifactError: when the scores that the strategy needs could not be made.
        InputError: when too few samples can be picked.
    """
    needed, strategy = _columns(settings), strategy_of(settings)
    from_curation = not needed.isdisjoint(CURATED)
    inputs = {"pool": Input(pool, "pool")}
    if from_curation:
        inputs["curation"] = Input(_given(curation, "curation", settings), "curation")
    if "distances" in needed:
        inputs["neighbors"] = Input(_given(neighbors, "neighbors", settings), "neighbors")
    if "embedded" in needed:
        inputs["embeddings"] = Input(_given(embeddings, "embeddings", settings), "embeddings")
    if "model_scores" in needed:
        named = _scores_called(strategy.scores, scores)
        inputs["scores"] = Input(_given(named, "scores", settings), "scores")
    if settings.where or not needed.isdisjoint(COLUMNS):
        inputs["signals"] = Input(_given(signals, "signals", settings), "signals")
    files = {uri: fingerprint(uri) for uri in settings.exclude} | STRATEGIES.origin(settings.strategy)
    return run_step(
        "selection", "selection", settings, _select, out=out, inputs=inputs, files=files, name=settings.name
    )


def _columns(settings: SelectionSettings) -> set[Column]:
    """The columns that the settings need."""
    strategy = strategy_of(settings)
    columns = strategy.columns
    if settings.min_score is not None:
        columns.add(score_column(strategy))
    if "scores" in columns:
        columns.add("raw_scores")  # to count samples that were never rated
    return columns


def _scores_called(name: str, scores: Sequence[Uri]) -> Uri | None:
    """The scores of this name, or None if they are not given.

    Raises:
        ArtifactError: when the step that makes them has failed.
    """
    for uri in scores:
        failure = failure_in(uri)
        if failure is not None and failure.name == name:
            raise ArtifactError(f"the scores '{name}' could not be made: {failure.reason}")
        if failure is None and Artifact.open(uri, "scores").name == name:
            return uri
    return None


def _given(uri: Uri | None, kind: Kind, settings: SelectionSettings) -> Uri:
    if uri is None:
        reason = f"the strategy {settings.strategy}"
        if kind == "signals":
            reason = "where" if settings.where else reason
            raise SettingsError(
                f"{reason} needs signals, but they were not given",
                action="make them with `tamis describe` and give them (--signals)",
            )
        reason += " with min_score" if settings.min_score is not None else ""
        if kind == "scores":
            strategy = strategy_of(settings)
            made_here = strategy.producer == "scoring"
            command = f"score --set measure.kind={strategy.scores}" if made_here else strategy.producer
            raise SettingsError(
                f"{reason} needs the scores '{strategy.scores}', but they were not given",
                action=f"make them with `tamis {command}` and give them as scores (--scores)",
            )
        raise SettingsError(f"{reason} needs the artifact {kind}, but it was not given", action=f"give it (--{kind})")
    return uri


def _select(step: Step[SelectionSettings]) -> None:
    settings = step.settings
    candidates, barred = _read(step)
    strategy = strategy_of(settings)
    choice = choose(
        strategy,
        candidates,
        settings.size,
        seed=settings.seed,
        barred=barred,
        min_score=settings.min_score,
        quotas=settings.sources,
    )
    scores = candidates.column(strategy.score) if strategy.score else None
    if scores is not None:
        _warn_about_lowest(settings, scores, choice.rows)
    for file, rows, first in (("selection", choice.rows, 0), ("missed", choice.missed, len(choice.rows))):
        _write_table(step.out / f"{file}.parquet", scores, candidates, rows, first)
    characters = _write_subset(step.out / "subset.jsonl", step.input("pool"), choice.rows, scores)
    step.rows = len(choice.rows)
    for scores_of in step.inputs("scores"):  # for the report, which does not read scores
        if reasons := scores_of.manifest.facts.get("not_scored"):
            step.facts["not_scored"] = reasons
    step.facts.update(_account(candidates, choice), mean_characters=characters / len(choice.rows))


def _warn_about_lowest(settings: SelectionSettings, scores: NDArray[Any], rows: NDArray[np.int64]) -> None:
    """Warn if samples with the lowest score of all were picked because too few score higher."""
    known = scores[scores >= 0] if scores.dtype.kind == "i" else scores[np.isfinite(scores)]  # -1: no class
    if not len(known):
        return
    lowest = known.min()
    picked, there = int((scores[rows] == lowest).sum()), int((known == lowest).sum())
    if picked and picked < there < len(known):
        log.warning(
            "subset '%s': %d of its %d samples have the lowest score of all (%g), because only %d eligible samples "
            "score higher; lower size, or set min_score",
            settings.name,
            picked,
            len(rows),
            lowest,
            len(rows) - picked,
        )


def _read(step: Step[SelectionSettings]) -> tuple[Candidates, dict[str, NDArray[np.bool_]]]:
    """The candidates with the needed columns, and masks (n,) of those that must not be picked, by reason."""
    settings, needed, strategy = step.settings, _columns(step.settings), strategy_of(step.settings)
    candidates = read_pool(step.input("pool"), lengths="lengths" in needed)
    if "places" in needed:
        candidates = replace(candidates, places=np.arange(len(candidates)))
    barred: dict[str, NDArray[np.bool_]] = {}
    if settings.exclude:
        barred["excluded"], step.facts["exclude_ids"] = excluded(settings.exclude, candidates.ids)
    if step.inputs("curation"):
        curation = step.input("curation")
        columns = [name for name in CURATED if name in needed]
        rater = rater_of(curation, settings.rater)
        found, barred["not in the curation"] = read_curation(curation, rater, columns, candidates.ids)
        candidates = replace(candidates, **found)  # type: ignore[arg-type]
        step.facts["rater"] = rater
    if step.inputs("neighbors"):
        distances, barred["not in the graph"] = read_distances(
            step.input("neighbors"), strategy.neighbors, candidates.ids
        )
        candidates = replace(candidates, distances=distances)
    if step.inputs("scores"):
        scores, barred["not in the scores"] = strategy.model_scores(step.input("scores"), candidates.ids)
        candidates = replace(candidates, model_scores=scores)
    if step.inputs("signals"):
        signals = step.input("signals")
        if settings.where:
            barred |= barred_by(settings.where, signals, candidates.ids)
        for column in needed & COLUMNS.keys():
            found_, barred[ABSENT] = column_of(column, signals, candidates.ids)
            candidates = replace(candidates, **{column: found_})  # type: ignore[arg-type]
    if step.inputs("embeddings"):
        vectors, rows, barred["not in the embeddings"] = read_embeddings(step.input("embeddings"), candidates.ids)
        embeddings = Embeddings(vectors, strategy.options.memory_mb << 20)
        candidates = replace(candidates, embeddings=embeddings, embedded=rows)
    return candidates, barred


def _write_table(
    path: Path, scores: NDArray[Any] | None, candidates: Candidates, rows: NDArray[np.int64], first: int
) -> None:
    """Write one row for each sample of `rows`, with ranks from `first` on."""
    diversity = candidates.diversity
    with pq.ParquetWriter(path, SELECTION, compression="zstd") as writer:
        for start in range(0, len(rows), _BLOCK):
            part = rows[start : start + _BLOCK]
            values: dict[str, Any] = {
                "id": unpack(candidates.ids[part]),
                "rank": np.arange(first + start, first + start + len(part)),
                "score": pa.nulls(len(part)) if scores is None else scores[part].astype(np.float64),
                "diversity": pa.nulls(len(part)) if diversity is None else diversity[part],
            }
            writer.write_table(pa.table(values).cast(SELECTION))


def _write_subset(path: Path, pool: Artifact, rows: NDArray[np.int64], scores: NDArray[Any] | None) -> int:
    """Write `subset.jsonl` in the pool's order, in one pass; returns the total characters of the responses.

    `scores` (n,) are the scores of the pool's samples that the strategy ranks by; None if it has no score.
    """
    ranks = np.argsort(rows)
    in_order = rows[ranks]
    start = characters = 0
    columns = ["id", "source", "messages", "metadata", "tools"]
    with path.open("w", encoding="utf-8", newline="\n") as file, Progress("selection", len(rows)) as progress:
        for block in pool.batches(columns, rows=2_000):
            here = slice(*np.searchsorted(in_order, [start, start + block.num_rows]))
            batch = block.take(pa.array(in_order[here] - start))
            start += block.num_rows
            characters += int(response_lengths(batch["messages"]).sum())
            for row, rank, sample in zip(in_order[here], ranks[here], rows_of(batch), strict=True):
                metadata, tools = sample.pop("metadata"), sample.pop("tools")
                sample |= {"tools": tools} if tools else {}
                sample |= {"rank": int(rank), "score": None if scores is None else float(scores[row])}
                sample |= {"metadata": json.loads(metadata)} if metadata else {}
                file.write(json.dumps(sample, ensure_ascii=False) + "\n")
            progress.advance(batch.num_rows)
    return characters


def _account(candidates: Candidates, choice: Choice) -> dict[str, Any]:
    """The facts about the subset for the manifest."""
    sources = np.bincount(candidates.sources[choice.rows], minlength=len(candidates.source_names))
    facts: dict[str, Any] = {
        "pool_rows": len(candidates),
        "eligible": choice.eligible,
        "not_eligible": choice.not_eligible,
        "sources": {name: int(count) for name, count in zip(candidates.source_names, sources, strict=True)},
        "thresholds": choice.thresholds,
    }
    raw = candidates.raw_scores
    scores = raw if candidates.scores is None else candidates.scores
    if scores is not None:
        counts = np.bincount(scores[choice.rows], minlength=_SCORE_CLASSES)
        facts["score_classes"] = {str(score): int(count) for score, count in enumerate(counts)}
    if raw is not None and candidates.scores is not None:
        facts["predicted"] = int(np.count_nonzero(raw[choice.rows] < 0))
    return facts
