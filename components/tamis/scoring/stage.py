"""The scoring stage: pool in, scores out."""

from __future__ import annotations

import gc
import sys
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
from tamis.scoring.measures import MEASURES
from tamis.scoring.settings import ScoringSettings


def run(settings: ScoringSettings, *, pool: Uri, out: Uri) -> Manifest:
    """Score every sample of `pool`; the artifact at `out` has the measure's name and one row per sample.

    Raises:
        ModelError: when a model cannot be loaded or used.
        InputError: when a larger share of samples than `max_left_out_share`, or all of them, cannot be scored.
    """
    measure = settings.measure
    inputs, files = {"pool": Input(pool, "pool")}, {**measure.models(), **MEASURES.origin(measure.kind)}
    return run_step("scoring", "scores", settings, _score, out=out, inputs=inputs, files=files, name=measure.kind)


def _score(step: Step[ScoringSettings]) -> None:
    measure = step.settings.measure
    step.models.update(measure.models())
    reasons: Counter[str] = Counter()
    limit = step.settings.max_left_out_share
    most, scores = limit * step.input("pool").manifest.rows, list[NDArray[np.float64]]()
    with PartsWriter(step.out, measure.SCHEMA) as parts:
        for table in _measured(step):
            parts.write(table)
            reasons.update(table["status"].to_pylist())
            if reasons.total() - reasons["ok"] > most:  # too many already, whatever the rest brings
                break
            scores.append(pc.drop_null(table["score"]).to_numpy())
            if "shortened" in table.column_names:
                step.facts["shortened"] = step.facts.get("shortened", 0) + pc.sum(table["shortened"]).as_py()
    step.rows = parts.rows
    step.facts["scored"] = reasons.pop("ok", 0)
    step.facts["not_scored"] = dict(sorted(reasons.items()))
    check_left_out(reasons, step.rows, limit, stage=measure.kind)  # counts only the samples scored so far
    found = np.concatenate(scores)
    step.facts["quantiles"] = {
        str(share): float(np.quantile(found, share)) for share in (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
    }


def _measured(step: Step[ScoringSettings]) -> Iterator[pa.Table]:
    """Yield scores block by block. Passes run one after the other, because memory has room for one model only."""
    pool, measure = step.input("pool"), step.settings.measure
    passes = measure.passes(step.settings)
    *earlier, last = passes
    for title in earlier:
        for _ in kept_blocks(pool, step.scratch / title, passes.pop(title).score, title=title):
            pass
        _free_memory()
    found = [map(pq.read_table, sorted((step.scratch / title).glob("*.parquet"))) for title in earlier]
    yield from map(measure.joined, *found, kept_blocks(pool, step.scratch / last, passes[last].score, title=last))


def _free_memory() -> None:
    gc.collect()
    if (torch := sys.modules.get("torch")) is not None:
        torch.cuda.empty_cache()
