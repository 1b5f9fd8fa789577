"""Read artifacts into arrays: the known facts about each sample, in the pool's order, read in batches."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError, SettingsError
from tamis.core.idfiles import read_ids
from tamis.core.ids import Keys, pack, positions, read_keys
from tamis.selection.candidates import Candidates, Column

log = logging.getLogger(__name__)
_BLOCK = 1 << 20  # rows of the graph that are averaged at once
_CURATION: dict[Column, tuple[str, type[np.generic], Any]] = {  # column -> name in the artifact, dtype, "not known"
    "raw_scores": ("raw_score", np.int8, -1),
    "scores": ("score", np.int8, -1),
    "means": ("mean", np.float32, np.nan),
    "diversity": ("diversity", np.float32, np.nan),
}


def response_lengths(messages: pa.ListArray) -> NDArray[np.int64]:
    """Characters of all assistant messages of each of n samples: (n,) int64."""
    turns = messages.flatten()
    spoken = pc.equal(turns.field("role"), "assistant").to_numpy(zero_copy_only=False)
    characters = pc.utf8_length(turns.field("content")).to_numpy(zero_copy_only=False)
    samples = pc.list_parent_indices(messages).to_numpy(zero_copy_only=False)
    sums = np.bincount(samples, weights=characters * spoken, minlength=len(messages))
    return sums.astype(np.int64)


def read_pool(pool: Artifact, *, lengths: bool = False) -> Candidates:
    """Ids, sources and, with `lengths`, answer lengths of all samples of `pool`."""
    rows, names = pool.manifest.rows, list[str]()
    ids, codes = np.empty(rows, "S16"), np.empty(rows, np.int32)
    characters = np.empty(rows if lengths else 0, np.int64)
    start = 0
    for batch in pool.batches(["id", "source"] + (["messages"] if lengths else [])):
        part = slice(start, start + batch.num_rows)
        start += batch.num_rows
        ids[part] = pack(batch["id"], where=f"{pool.location}, rows from {part.start}")
        sources = batch["source"].dictionary_encode()
        here = sources.dictionary.to_pylist()
        names += [name for name in here if name not in names]
        codes[part] = np.array([names.index(name) for name in here], np.int32)[sources.indices.to_numpy()]
        if lengths:
            characters[part] = response_lengths(batch["messages"])
    return Candidates(ids=ids, sources=codes, source_names=tuple(names), lengths=characters if lengths else None)


def excluded(files: Sequence[str], ids: Keys) -> tuple[NDArray[np.bool_], int]:
    """A mask (n,) of the samples `ids` (n,) that the files name, and the number of distinct ids in the files.

    Raises:
        InputError: when a file names none of the samples, or cannot be read.
    """
    mask, named = np.zeros(len(ids), bool), []
    for uri in files:
        keys = read_ids(uri, setting="exclude")
        at = positions(keys, ids)
        if len(keys) and not (at >= 0).any():
            raise InputError(
                f"exclude: {uri}: none of its {len(keys):,} ids is in the pool",
                allowed="a file with at least one id from the pool (its column `id`)",
                action="make the list from this pool, or remove the file",
            )
        mask[at[at >= 0]] = True
        named.append(keys)
    number = len(np.unique(np.concatenate(named)))
    if unknown := number - int(mask.sum()):
        log.warning("exclude: %d of %d ids are not in the pool", unknown, number)
    return mask, number


def raters_of(curation: Artifact) -> list[str]:
    """Names of the raters in `curation`, sorted."""
    names: set[str] = set()
    for batch in curation.batches(["rater"], rows=1_000_000):
        names.update(pc.unique(batch["rater"]).to_pylist())
    return sorted(names)


def rater_of(curation: Artifact, wanted: str | None) -> str:
    """The rater `wanted`, or the only one if none is named.

    Raises:
        SettingsError: with the names of all raters, when `wanted` is unknown, or None although there are several.
    """
    raters = raters_of(curation)
    if wanted is None and len(raters) == 1:
        return raters[0]
    if wanted in raters:
        return str(wanted)
    if wanted is None:
        seen = f"rater is not set, but the curation has {len(raters)} raters"
    else:
        seen = f"rater is '{wanted}', but the curation has no such rater"
    raise SettingsError(seen, allowed=", ".join(raters), action="set `rater` to one of them")


def read_curation(
    curation: Artifact, rater: str, columns: list[Column], ids: Keys
) -> tuple[dict[Column, NDArray[Any]], NDArray[np.bool_]]:
    """The `columns` of `curation` for the samples `ids` (n,) and one rater.

    Returns:
        The columns as arrays (n,), -1 or NaN if the curation lacks the sample or the value; and a mask (n,) of the
        samples that the curation lacks.

    Raises:
        InputError: when it has none of the samples, or an earlier version made it without one of the columns.
    """
    _check_columns(curation, columns)
    keys: list[Keys] = []
    parts: dict[Column, list[NDArray[Any]]] = {column: [] for column in columns}
    for batch in curation.batches(["id", "rater"] + [_CURATION[column][0] for column in columns], rows=100_000):
        batch = batch.filter(pc.equal(batch["rater"], rater))
        keys.append(pack(batch["id"], where=f"{curation.location}, rater {rater}"))
        for column in columns:
            name, dtype, unknown = _CURATION[column]
            values = pc.fill_null(batch[name], unknown).to_numpy(zero_copy_only=False)
            parts[column].append(values.astype(dtype, copy=False))
    at = positions(ids, np.concatenate(keys))
    absent = _absent(at, curation, "curation")
    found = {column: np.concatenate(parts[column])[at] for column in columns}
    for column, values in found.items():
        values[absent] = _CURATION[column][2]
    return found, absent


def read_posteriors(
    curation: Artifact, rater: str, ids: Keys
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """The posteriors in `curation` of the samples `ids` (n,) that have one.

    Yields:
        In blocks of m: places of the samples in `ids`, (m,), and their probabilities of K classes, (m, K).

    Raises:
        InputError: when the curation was made without posteriors.
    """
    if "posterior" not in pq.read_schema(curation.parts()[0]).names:
        raise InputError(
            f"{curation.location}: this curation has no column 'posterior', the probabilities of each sample's classes",
            action="set curation.posterior: true (with mode: exact) and run again; ratings are kept",
        )
    keys = []
    for batch in curation.batches(["id", "rater"], rows=100_000):
        keys.append(pack(batch["id"].filter(pc.equal(batch["rater"], rater)), where=f"{curation.location}"))
    at, start = positions(np.concatenate(keys), ids), 0
    for batch in curation.batches(["rater", "posterior"], rows=100_000):
        values = batch["posterior"].filter(pc.equal(batch["rater"], rater))
        rows = at[start : start + len(values)]
        start += len(values)
        known = values.is_valid().to_numpy(zero_copy_only=False)
        posteriors = values.flatten().to_numpy().reshape(-1, values.type.list_size)  # of those that have one
        there = rows[known] >= 0
        yield rows[known][there], posteriors[there]


def _check_columns(curation: Artifact, columns: list[Column]) -> None:
    there = set(pq.read_schema(curation.parts()[0]).names)
    if missing := [name for name in (_CURATION[column][0] for column in columns) if name not in there]:
        raise InputError(
            f"{curation.location}: this curation has no column '{missing[0]}'; an earlier version of Tamis made it",
            action="run the curation again",
        )


def read_distances(neighbors: Artifact, k: int, ids: Keys) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Mean cosine distance of the samples `ids` (n,) to their `k` nearest neighbours.

    Returns:
        The distances, (n,) float32, NaN for samples that the graph lacks; and a mask (n,) of these samples.

    Raises:
        SettingsError: when the graph has fewer than `k` neighbours per sample.
        InputError: when it has none of the samples.
    """
    distances = np.load(neighbors.path("distances.npy"), mmap_mode="r", allow_pickle=False)
    if k > distances.shape[1]:
        raise SettingsError(
            f"k is {k}, but the graph has {distances.shape[1]} neighbours per sample",
            allowed=f"1 to {distances.shape[1]}",
            action="lower k, or find more neighbours (neighbors.k)",
        )
    means = np.empty(len(distances), np.float32)
    for start in range(0, len(distances), _BLOCK):
        part = slice(start, start + _BLOCK)
        means[part] = distances[part, :k].mean(axis=1, dtype=np.float64)
    at = positions(ids, _keys_of(neighbors))
    absent = _absent(at, neighbors, "graph")
    found = means[at]
    found[absent] = np.nan
    return found, absent


def read_embeddings(embeddings: Artifact, ids: Keys) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.bool_]]:
    """The memory-mapped vectors; the row of each of the samples `ids` (n,), -1 if absent; a mask (n,) of absent ones.

    Raises:
        InputError: when the artifact has none of the samples.
    """
    at = positions(ids, _keys_of(embeddings))
    vectors = np.load(embeddings.path("vectors.npy"), mmap_mode="r", allow_pickle=False)
    return vectors, at, _absent(at, embeddings, "artifact")


def read_scores(
    scores: Artifact, ids: Keys, *, task: str | None = None, mean: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """A model's scores of the samples `ids` (n,): (n,) float64, NaN if unknown; and a mask (n,) of absent samples.

    Args:
        scores: the artifact.
        ids: the samples.
        task: for influences, the only task that counts, instead of the artifact's own scores.
        mean: for influences, whether to take the mean over all tasks.

    Raises:
        SettingsError: when the artifact has no such task.
        InputError: when it has none of the samples.
    """
    tasks: list[str] = scores.manifest.facts.get("tasks", [])
    if task is not None and task not in tasks:
        raise SettingsError(
            f"task is '{task}', but the scores have no such task",
            allowed=", ".join(tasks) or "none: these scores have no tasks",
        )
    own = task is None and not mean
    keys, parts = [], []
    for batch in scores.batches(["id", "score"] if own else ["id", "tasks"], rows=100_000):
        keys.append(pack(batch["id"], where=str(scores.location)))
        if own:
            parts.append(pc.fill_null(batch["score"], np.nan).to_numpy(zero_copy_only=False))
            continue
        known = pc.is_valid(batch["tasks"]).to_numpy(zero_copy_only=False)
        by_task = batch["tasks"].flatten().to_numpy().reshape(-1, len(tasks)).astype(np.float64)
        parts.append(np.full(len(known), np.nan))
        parts[-1][known] = by_task.mean(1) if task is None else by_task[:, tasks.index(task)]
    at = positions(ids, np.concatenate(keys))
    absent = _absent(at, scores, "artifact")
    found = np.concatenate(parts)[at]
    found[absent] = np.nan
    return found, absent


def _keys_of(artifact: Artifact) -> Keys:
    return read_keys(artifact.path("ids.parquet"), where=f"{artifact.location}, ids.parquet")


def _absent(at: NDArray[np.int64], artifact: Artifact, what: str) -> NDArray[np.bool_]:
    absent = at < 0
    if absent.all():
        raise InputError(
            f"{artifact.location}: this {what} has none of the pool's samples",
            action=f"use the {what} that was made from this pool",
        )
    return absent
