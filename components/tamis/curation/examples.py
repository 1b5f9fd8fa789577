"""The most confident corrections with their neighbours, for readers to check."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tamis.core.ids import Keys, unpack
from tamis.core.tables import CORRECTIONS
from tamis.curation.classes import UNRATED
from tamis.curation.neighborhoods import Floats, Ints
from tamis.curation.result import Curated

_MOST, _NEIGHBORS = 100, 5  # corrections of each rater, and neighbours of each


def write_corrections(path: Path, ids: Keys, results: Mapping[str, Curated], indices: Ints, distances: Floats) -> None:
    """Write the table `CORRECTIONS`: each rater's most confident corrections, the most confident first, then by id."""
    rows = []
    for rater, result in results.items():
        for row in _most_confident(ids, result):
            others, far = indices[row, :_NEIGHBORS], distances[row, :_NEIGHBORS]
            near = [
                {"id": name, "raw_score": None if score == UNRATED else score, "distance": distance}
                for name, score, distance in zip(
                    unpack(ids[others]).to_pylist(), result.raw[others].tolist(), far.tolist(), strict=True
                )
            ]
            rows.append({"id": unpack(ids[[row]])[0].as_py(), "rater": rater, "neighbors": near})
    pq.write_table(pa.Table.from_pylist(rows, CORRECTIONS), path)


def _most_confident(ids: Keys, result: Curated) -> list[int]:
    changed = np.flatnonzero((result.raw != UNRATED) & (result.score != result.raw))
    confidence = np.nan_to_num(result.confidence[changed])
    if len(changed) > _MOST:  # several samples may share the last kept confidence: ids break the tie
        likely = confidence >= np.partition(confidence, -_MOST)[-_MOST]
        changed, confidence = changed[likely], confidence[likely]
    order = np.lexsort((ids[changed], -confidence))
    return [int(row) for row in changed[order[:_MOST]]]
