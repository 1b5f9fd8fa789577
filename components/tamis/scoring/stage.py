"""The scoring stage: pool in, scores out."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tamis.core.artifacts import Manifest
from tamis.core.blocks import kept_blocks
from tamis.core.leftout import check_left_out
from tamis.core.steps import Input, Step, Uri, run_step
from tamis.core.tables import PartsWriter
from tamis.scoring import deita
from tamis.scoring.perplexity import Perplexity
from tamis.scoring.settings import DeitaSettings, PerplexitySettings, ScoringSettings


def run(settings: ScoringSettings, *, pool: Uri, out: Uri) -> Manifest:
    """Score every sample of `pool`; the artifact at `out` has the measure's name and one row per sample.

    Raises:
        ModelError: when a model cannot be loaded or used.
        InputError: when more samples than `max_left_out_share` could not be scored, or none.
    """
    measure = settings.measure
    files = deita.models_of(measure) if isinstance(measure, DeitaSettings) else Perplexity(settings, measure).models
    return run_step(
        "scoring", "scores", settings, _score, out=out, inputs={"pool": Input(pool, "pool")}, files=files,
        name=measure.kind,
    )  # fmt: skip


def _score(step: Step[ScoringSettings]) -> None:
    measure = step.settings.measure
    if isinstance(measure, DeitaSettings):
        schema, blocks = deita.SCHEMA, _deita(step, measure)
        step.models.update(deita.models_of(measure))
    else:
        schema, blocks = Perplexity.schema, _perplexity(step, measure)
        step.models.update(Perplexity(step.settings, measure).models)
    reasons: Counter[str] = Counter()
    limit = step.settings.max_left_out_share
    most, scores = limit * step.input("pool").manifest.rows, list[NDArray[np.float64]]()
    with PartsWriter(step.out, schema) as parts:
        for table in blocks:
            parts.write(table)
            reasons.update(table["status"].to_pylist())
            if reasons.total() - reasons["ok"] > most:  # nothing that comes can mend it
                break
            scores.append(pc.drop_null(table["score"]).to_numpy())
            if "shortened" in table.column_names:
                step.facts["shortened"] = step.facts.get("shortened", 0) + pc.sum(table["shortened"]).as_py()
    step.rows = parts.rows
    step.facts["scored"] = reasons.pop("ok", 0)
    step.facts["not_scored"] = dict(sorted(reasons.items()))
    check_left_out(reasons, step.rows, limit, stage="scoring")  # of those that were looked at
    found = np.concatenate(scores)
    step.facts["quantiles"] = {
        str(share): float(np.quantile(found, share)) for share in (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
    }


def _perplexity(step: Step[ScoringSettings], measure: PerplexitySettings) -> Iterator[pa.Table]:
    compute = Perplexity(step.settings, measure).score
    return kept_blocks(step.input("pool"), step.scratch / "perplexity", compute, title="perplexity")


def _deita(step: Step[ScoringSettings], measure: DeitaSettings) -> Iterator[pa.Table]:
    """First all complexities, then all qualities: there is room for one of the models at a time."""
    scorers = deita.scorers(step.settings, measure)
    pool, kept = step.input("pool"), step.scratch
    for _ in kept_blocks(pool, kept / "complexity", scorers.pop("complexity").score, title="complexity"):
        pass
    _free_memory()
    complexity = map(pq.read_table, sorted((kept / "complexity").glob("*.parquet")))
    quality = kept_blocks(pool, kept / "quality", scorers["quality"].score, title="quality")
    yield from map(deita.joined, complexity, quality)


def _free_memory() -> None:
    import torch

    gc.collect()
    torch.cuda.empty_cache()
