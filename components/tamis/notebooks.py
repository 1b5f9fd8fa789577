"""The implementation of `tamis.load`: artifacts as Arrow tables, for notebooks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tamis.core.artifacts import MANIFEST, Artifact, Kind
from tamis.core.errors import ArtifactError, InputError, SettingsError
from tamis.core.ids import Keys, pack, positions
from tamis.core.sample_columns import without_unused_fields
from tamis.core.steps import Uri
from tamis.core.storage import Location, children, exists, locate
from tamis.core.tables import CURATION, POOL, RATIONALE, criteria_in

# The columns of kinds with data on each sample.
_RATINGS = ("overall", "expected", "status")
_CURATION = tuple(name for name in CURATION.names if name not in ("id", "rater"))
_FILES: dict[Kind, str] = {"selection": "selection.parquet", "evaluation": "scores.parquet"}  # of kinds without parts
_IN_PARTS: tuple[Kind, ...] = ("pool", "ratings", "ratings_part", "curation", "scores", "judgement")
_ARRAYS: dict[Kind, dict[str, str]] = {  # column names and files of kinds with arrays
    "embeddings": {"vector": "vectors.npy"},
    "neighbors": {"indices": "indices.npy", "distances": "distances.npy"},
}
_SHOWN: tuple[Kind, ...] = ("pool", "ratings", "curation", "scores", "selection")  # in the table of a run
_WITHOUT_TEXTS = [name for name in POOL.names if name != "messages"]
_WORDY = ("source", "status")  # text columns with few distinct values

_Columns = Iterator[tuple[str, pa.ChunkedArray]]


def load(run: Uri, ids: Sequence[str] | None, messages: bool) -> pa.Table:
    """See `tamis.load`."""
    location = locate(run)
    with tempfile.TemporaryDirectory(prefix="tamis-") as temporary:
        cache = Path(temporary)
        if not exists(location / MANIFEST):
            return _of_run(location, ids, messages, cache)
        if ids is not None:
            raise SettingsError(
                f"`ids` cannot be used with {run}, which is a single artifact",
                allowed="`ids` with the folder of a run",
                action="leave out `ids`, and filter the table",
            )
        return _of_artifact(Artifact.open(run, cache=cache), messages)


def _of_artifact(artifact: Artifact, messages: bool) -> pa.Table:
    kind = artifact.manifest.kind
    if kind in _IN_PARTS:
        columns = POOL.names if messages else _WITHOUT_TEXTS
        return _slim(artifact.table(columns)) if kind == "pool" else artifact.table()
    if kind in _FILES:
        return pq.read_table(artifact.path(_FILES[kind]))
    if kind in _ARRAYS:
        arrays = {column: _lists(np.load(artifact.path(name))) for column, name in _ARRAYS[kind].items()}
        return pa.table({"id": pq.read_table(artifact.path("ids.parquet"))["id"]} | arrays)
    raise ArtifactError(
        f"{artifact.location} is a {kind}, which has no table",
        allowed=", ".join((*_IN_PARTS, *_FILES, *_ARRAYS)) + ", or the folder of a run",
    )


def _lists(values: NDArray[Any]) -> pa.FixedSizeListArray:
    """The rows of an array (n, d) as lists of d numbers, without copying."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def _of_run(location: Location, ids: Sequence[str] | None, messages: bool, cache: Path) -> pa.Table:
    found = _artifacts_in(location, cache)
    if ("pool", "") not in found or found["pool", ""].location.parent != location:  # a run's pool is in its folder
        raise _no_run(location)
    _of_one_run(list(found.values()))
    pool = found["pool", ""]
    table = pool.table(_WITHOUT_TEXTS)
    keys = _keys(table["id"], pool)
    if ids is not None:
        rows = _rows_of(ids, keys, pool)
        table, keys = table.take(rows), keys[rows]
        if messages:
            table = table.append_column("messages", _messages_of(pool, rows))
    elif messages:
        table = table.append_column("messages", pool.table(["messages"])["messages"])
    table = _slim(table)
    columns = {name: _compact(name, table[name]) for name in table.column_names}
    for kind in _SHOWN[1:]:
        for artifact in (found[one] for one in sorted(found) if one[0] == kind):
            columns |= dict(_said_by(artifact, keys))
    return pa.table(columns)


def _artifacts_in(location: Location, cache: Path) -> dict[tuple[Kind, str], Artifact]:
    """The artifacts in a run's folder and in its subfolders, by kind and name."""
    found: dict[tuple[Kind, str], Artifact] = {}
    outer = [child for child in children(location) if not child.name.startswith(".") and child.name != "runs"]
    for child in outer:
        inside = [child] if exists(child / MANIFEST) else _folders_in(child)
        for folder in inside:
            if not exists(folder / MANIFEST):
                continue
            artifact = Artifact.open(str(folder), cache=cache)
            if artifact.manifest.kind not in _SHOWN:
                continue
            other = found.setdefault((artifact.manifest.kind, artifact.name), artifact)
            if other is not artifact:
                raise InputError(
                    f"{other.location} and {folder} are both the {artifact.manifest.kind} '{artifact.name}'",
                    allowed="the folder of one run, with one artifact per kind and name",
                    action="move the artifact that does not belong to the run elsewhere",
                )
    return found


def _folders_in(location: Location) -> list[Location]:
    return [] if isinstance(location, Path) and not location.is_dir() else children(location)


def _no_run(location: Location) -> ArtifactError:
    named = [run.name for run in _folders_in(location / "runs")]
    seen = "contains no finished pool" if exists(location) else "does not exist"
    more = f"; existing runs: {', '.join(f'{location}/runs/{name}' for name in named)}" if named else ""
    return ArtifactError(
        f"{location} {seen}",
        allowed=f"the folder of a run, its work_dir or work_dir/runs/NAME, or an artifact{more}",
        action="correct the path, or let `tamis run` finish",
    )


def _of_one_run(artifacts: list[Artifact]) -> None:
    """Make sure that all artifacts are from the same run.

    Raises:
        InputError: when one was made from an artifact that is not among them.
    """
    here: dict[str, set[str]] = {}
    for artifact in artifacts:
        here.setdefault(artifact.manifest.kind, set()).add(artifact.manifest.content_hash)
    for artifact in artifacts:
        for name, made_from in artifact.manifest.inputs.items():
            if not set(made_from) <= here.get(name, set(made_from)):
                raise InputError(
                    f"{artifact.location} was made from a {name} other than the one in this run's folder",
                    action="run it again, or give the folder of another finished run; single artifacts can be loaded",
                )


def _keys(ids: pa.ChunkedArray, artifact: Artifact) -> Keys:
    chunks = [pack(chunk, where=str(artifact.location)) for chunk in ids.chunks]
    return np.concatenate(chunks) if chunks else np.empty(0, "S16")


def _rows_of(ids: Sequence[str], keys: Keys, pool: Artifact) -> NDArray[np.int64]:
    rows = positions(pack(pa.array(ids, pa.string()), where="ids"), keys)
    if missing := [one for one, row in zip(ids, rows, strict=True) if row < 0]:
        raise InputError(
            f"{len(missing):,} of {len(ids):,} ids are not in {pool.location}; the first is {missing[0]}",
            allowed="ids of the pool's samples",
        )
    return rows


def _messages_of(pool: Artifact, rows: NDArray[np.int64]) -> pa.ChunkedArray:
    """The conversations of some rows of the pool, in the order of `rows`. The others are not kept in memory."""
    order = np.argsort(rows, kind="stable")
    ascending = rows[order]
    taken, start = [], 0
    for batch in pool.batches(["messages"]):
        here = slice(*np.searchsorted(ascending, [start, start + batch.num_rows]))
        taken.append(batch["messages"].take(pa.array(ascending[here] - start)))
        start += batch.num_rows
    back = np.empty(len(rows), np.int64)
    back[order] = np.arange(len(rows))
    return pa.chunked_array(taken, POOL.field("messages").type).take(pa.array(back))


def _slim(pool: pa.Table) -> pa.Table:
    """The pool without fields of turns that no turn has, and without `tools` if no sample has any."""
    place = pool.schema.get_field_index("messages")
    if place >= 0:
        pool = pool.set_column(place, "messages", without_unused_fields(pool["messages"]))
    return pool if pool["tools"].null_count < pool.num_rows else pool.drop_columns(["tools"])


def _said_by(artifact: Artifact, keys: Keys) -> _Columns:
    """Columns (n,) with an artifact's data on the samples `keys` (n,)."""
    kind, name = artifact.manifest.kind, artifact.name
    if kind == "curation":
        table = artifact.table()
        for rater in sorted(pc.unique(table["rater"]).to_pylist()):
            of_rater = table.filter(pc.equal(table["rater"], rater))
            yield from _aligned(of_rater, _CURATION, f"curation/{rater}", artifact, keys)
    elif kind == "selection":
        aligned = dict(_aligned(_of_artifact(artifact, False), ("rank", "score"), f"selections/{name}", artifact, keys))
        yield f"selections/{name}/picked", pc.is_valid(aligned[f"selections/{name}/rank"])
        yield from aligned.items()
    elif kind == "scores":
        yield from _aligned(artifact.table(["id", "score"]), ("score",), f"scores/{name}", artifact, keys)
    else:
        table = artifact.table()
        names = [*criteria_in(table.schema), *_RATINGS, *({RATIONALE.name} & set(table.column_names))]
        yield from _aligned(table.select(["id", *names]), names, f"ratings/{name}", artifact, keys)


def _aligned(table: pa.Table, names: Sequence[str], prefix: str, artifact: Artifact, keys: Keys) -> _Columns:
    """The columns `names` for the samples `keys` (n,), with null for samples that the table does not have.

    Columns that the table does not have are left out, because earlier versions may have made it without them.
    """
    at = positions(keys, _keys(table["id"], artifact))
    rows = pa.array(at, mask=at < 0)
    for name in names:
        if name in table.column_names:
            yield f"{prefix}/{name}", _compact(name, table[name]).take(rows)


def _compact(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.dictionary_encode() if name in _WORDY else column
