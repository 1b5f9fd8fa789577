"""Write the table of curated scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tamis.core.ids import Keys, unpack
from tamis.core.tables import CURATION, PartsWriter, curation_with_posterior
from tamis.curation.classes import UNRATED
from tamis.curation.result import Curated

_BLOCK = 100_000  # rows that are written together


def write_results(
    out: Path, ids: Keys, results: Mapping[str, Curated], diversity: NDArray[np.float32], *, classes: int | None
) -> int:
    """Write the table of all raters into the folder `out`; returns its number of rows.

    Args:
        out: the folder.
        ids: (n,) samples.
        results: each rater's results.
        diversity: (n,) diversity of the samples.
        classes: number of classes whose probabilities are written; None: no probabilities.
    """
    schema = CURATION if classes is None else curation_with_posterior(classes)
    with PartsWriter(out, schema, _BLOCK) as table:
        for rater, result in results.items():
            _write(table, ids, rater, result, diversity, classes)
    return table.rows


def _write(
    table: PartsWriter,
    ids: Keys,
    rater: str,
    result: Curated,
    diversity: NDArray[np.float32],
    classes: int | None,
) -> None:
    """Write a rater's rows; with `classes`, also the probabilities of this number of classes."""
    means = result.means()
    for start in range(0, len(ids), _BLOCK):
        rows = slice(start, start + _BLOCK)
        columns = {
            "id": unpack(ids[rows]),
            "rater": pa.repeat(rater, len(ids[rows])),
            "raw_score": _classes(result.raw[rows]),
            "score": _classes(result.score[rows]),
            "flagged": pa.array(result.flagged[rows]),
            "error_probability": pa.array(result.raw_error[rows], from_pandas=True),
            "suggested": _classes(result.suggested[rows]),
            "confidence": pa.array(result.confidence[rows], from_pandas=True),
            "mean": pa.array(means[rows], from_pandas=True),
            "diversity": pa.array(diversity[rows]),
        }
        if classes is not None:
            columns["posterior"] = _posteriors(result.posterior, rows, len(ids[rows]), classes)
        table.write(pa.table(columns))


def _posteriors(posterior: NDArray[np.float32] | None, rows: slice, n: int, classes: int) -> pa.Array:
    """Probabilities of n samples as lists of `classes` values, null if unknown."""
    if posterior is None:
        return pa.nulls(n, pa.list_(pa.float32(), classes))
    values = posterior[rows].astype(np.float32, copy=False)
    unknown = np.isnan(values).any(1)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), classes, mask=pa.array(unknown))


def _classes(scores: NDArray[np.int8]) -> pa.Array:
    return pa.array(scores, pa.int8(), mask=scores == UNRATED)
