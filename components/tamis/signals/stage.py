"""The stage `describe`: pool in, signals out."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tamis.core.artifacts import Manifest
from tamis.core.steps import Input, Step, Uri, run_step
from tamis.core.tables import PartsWriter
from tamis.signals.columns import SIGNALS
from tamis.signals.columns.base import Column
from tamis.signals.parallel import described
from tamis.signals.settings import DescribeSettings

_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_VALUES = 20  # most frequent texts of a column that the manifest lists


def run(settings: DescribeSettings, *, pool: Uri, out: Uri) -> Manifest:
    """Describe every sample of `pool`; the artifact at `out` has one row per sample and one column per fact.

    The manifest's `facts["columns"]` has, for each column, its unit, its direction, what it says, what made it, and its
    distribution.

    Raises:
        ModelError: when the tokenizer cannot be loaded.
    """
    files = {f"{name}, {role}": made for name in settings.active for role, made in _made_by(name, settings).items()}
    for name in settings.active:
        files |= SIGNALS.origin(name)
    return run_step(
        "signals", "signals", settings, _describe, out=out, inputs={"pool": Input(pool, "pool")}, files=files
    )


def columns_of(settings: DescribeSettings) -> dict[str, Column]:
    """The columns that these settings give, in the table's order."""
    return dict(chain.from_iterable(SIGNALS[name].columns.items() for name in settings.active))


def _made_by(name: str, settings: DescribeSettings) -> Mapping[str, str]:
    return SIGNALS[name].made_by(settings)


def _describe(step: Step[DescribeSettings]) -> None:
    columns, pool = columns_of(step.settings), step.input("pool")
    fields = [pa.field("id", pa.string(), nullable=False), *(pa.field(name, one.type) for name, one in columns.items())]
    with PartsWriter(step.out, pa.schema(fields)) as parts:
        for table in described(pool, step.settings, step.scratch, title="describe"):
            parts.write(table)
    step.rows = parts.rows
    made = {
        column: (name, _made_by(name, step.settings))
        for name in step.settings.active
        for column in SIGNALS[name].columns
    }
    step.models.update({role: name for _, by in made.values() for role, name in by.items()})
    table = {name: _read(step, name) for name in columns}
    step.facts["columns"] = {
        name: {
            "signal": made[name][0],
            "type": str(one.type),
            "unit": one.unit,
            "direction": one.direction,
            "tail": one.tail,
            "about": one.about,
            "made_by": ", ".join(made[name][1].values()) or "tamis describe",
        }
        | _distribution(table[name])
        for name, one in columns.items()
    }


def _read(step: Step[DescribeSettings], column: str) -> pa.ChunkedArray:
    parts = sorted(step.out.glob("part-*.parquet"))
    return pa.chunked_array([chunk for part in parts for chunk in pq.read_table(part, columns=[column])[column].chunks])


def _distribution(values: pa.ChunkedArray) -> dict[str, Any]:
    """The number of nulls; and quantiles of numbers, the share of true values, or the most frequent texts."""
    known = values.drop_null()
    facts: dict[str, Any] = {"missing": values.null_count}
    if not len(known):
        return facts
    if pa.types.is_boolean(values.type):
        return facts | {"share": pc.mean(known.cast(pa.int8())).as_py()}
    if pa.types.is_string(values.type):
        counted = sorted(pc.value_counts(known).to_pylist(), key=lambda one: (-one["counts"], one["values"]))
        return facts | {"values": {one["values"]: one["counts"] for one in counted[:_VALUES]}, "distinct": len(counted)}
    found = np.quantile(known.to_numpy(), _QUANTILES)
    return facts | {"quantiles": {str(share): float(value) for share, value in zip(_QUANTILES, found, strict=True)}}
