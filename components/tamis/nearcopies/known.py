"""Decisions of earlier runs, for pools that grow: what was kept stays, and what was dropped stays dropped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError
from tamis.core.ids import Keys, pack, positions
from tamis.nearcopies.clusters import NOT_DROPPED
from tamis.nearcopies.settings import NearCopiesSettings

CLUSTERS_FILE = "clusters.parquet"
_SAME = ("threshold", "text", "ngram")  # settings that define what a near-copy is


def decided(
    known: Sequence[Artifact], ids: Keys, settings: NearCopiesSettings
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.float32]]:
    """What earlier runs decided about the samples `ids` (n,) of a pool.

    Where two of them differ, the first counts. A sample that was dropped for one that is no longer in the pool is as
    new.

    Returns:
        (n,) mask of the samples that were kept; (n,) the row of the kept sample for which a sample was dropped, or
        `NOT_DROPPED`; (n,) their similarity.

    Raises:
        InputError: when one is not a result of this stage, or was made with another idea of a near-copy.
    """
    kept = np.zeros(len(ids), bool)
    kept_for, similarity = np.full(len(ids), NOT_DROPPED, np.int64), np.ones(len(ids), np.float32)
    for artifact in known:
        _check(artifact, settings)
        theirs = pack(artifact.table(["id"])["id"].combine_chunks(), where=str(artifact.location))
        there = positions(theirs, ids)
        there = there[there >= 0]
        kept[there[kept_for[there] == NOT_DROPPED]] = True
        table = pq.read_table(artifact.path(CLUSTERS_FILE), columns=["id", "kept", "similarity"])
        dropped, for_ = (_rows(table[name], ids, artifact) for name in ("id", "kept"))
        values = table["similarity"].to_numpy()
        valid = (dropped >= 0) & (for_ >= 0)
        valid[valid] = ~kept[dropped[valid]] & (kept_for[dropped[valid]] == NOT_DROPPED) & kept[for_[valid]]
        kept_for[dropped[valid]], similarity[dropped[valid]] = for_[valid], values[valid]
    return kept, kept_for, similarity


def _rows(column: pa.ChunkedArray, ids: Keys, artifact: Artifact) -> NDArray[np.int64]:
    return positions(pack(column.combine_chunks(), where=f"{artifact.location}/{CLUSTERS_FILE}"), ids)


def _check(artifact: Artifact, settings: NearCopiesSettings) -> None:
    if artifact.manifest.stage != "nearcopies":
        raise InputError(
            f"{artifact.location} is a pool in which near-copies were not looked for",
            allowed="a result of `tamis near-copies`",
        )
    now = settings.model_dump(mode="json")
    if differing := [name for name in _SAME if artifact.manifest.config.get(name) != now[name]]:
        name = differing[0]
        raise InputError(
            f"{artifact.location} was made with {name}: {artifact.manifest.config.get(name)}, not {now[name]}",
            allowed=f"results with the same {', '.join(_SAME)}",
            action="use the same settings, or leave out this result",
        )
