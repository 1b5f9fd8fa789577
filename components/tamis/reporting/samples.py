"""What the report keeps of every sample: under a hundred bytes each, never its text."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError
from tamis.core.ids import pack
from tamis.core.samples import Message, instruction_of, response_of

if TYPE_CHECKING:
    from tamis.reporting.settings import ReportingSettings

CLASSES = 6  # score classes 0..5
_ROWS = 2_000  # samples whose texts are in memory at once
NO_GROUP = "(none)"


@dataclass(frozen=True)
class Samples:
    """The pool, column by column, in its own order.

    Attributes:
        sources: names of the sources, by size; `source` (n,) indexes them.
        length: (n,) characters of all messages.
        turns: how many samples have so many messages.
        grade: (n,) the field `truth`, 1..10, NaN where a sample has none; None when no such field was asked for.
        groups: values of the field `group`, by size; `group` (n,) indexes them. Empty when none was asked for.
    """

    sources: list[str]
    source: NDArray[np.int32]
    length: NDArray[np.int64]
    turns: Counter[int]
    grade: NDArray[np.float32] | None
    groups: list[str]
    group: NDArray[np.int32]
    _keys: NDArray[np.bytes_]
    _order: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.source)

    def truth(self, lowest: int, highest: int) -> NDArray[np.int8]:
        """(n,) the grade as a score class, as curation makes one of a rating; -1 where a sample has no grade."""
        if self.grade is None:
            return np.full(len(self), -1, np.int8)
        classes = np.clip(np.floor(np.nan_to_num(self.grade) + 0.5), lowest, highest) - lowest
        return np.where(np.isnan(self.grade), -1, classes).astype(np.int8)

    def positions(self, ids: pa.Array, artifact: Artifact) -> NDArray[np.int64]:
        """Places in the pool of `ids`, which `artifact` holds.

        Raises:
            InputError: when the pool lacks one of them: the artifact was made from another pool.
        """
        keys = pack(ids, where="the pool")
        found = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        unknown = np.flatnonzero(self._keys[found] != keys)
        if len(unknown):
            raise InputError(
                f"{artifact.location} holds {len(unknown)} ids in a row of {len(ids)} that the pool does not have, "
                f"first {ids[int(unknown[0])].as_py()!r}",
                action="give the report the pool that this artifact was made from",
            )
        return self._order[found]


def read_samples(pool: Artifact, settings: ReportingSettings) -> Samples:
    """Go through the pool once, in batches.

    Raises:
        InputError: when the field `truth` or `group` is in no sample's metadata, or `truth` is no number of 1..10.
    """
    keys, lengths, sources, groups, grades = [], [], _Names(), _Names(), []
    turns: Counter[int] = Counter()
    seen_fields: set[str] = set()
    columns = ["id", "source", "messages", *(["metadata"] if settings.truth or settings.group else [])]
    for batch in pool.batches(columns, rows=_ROWS):
        keys.append(pack(batch["id"], where="the pool"))
        sources.add(batch["source"].to_pylist())
        messages = batch["messages"]
        contents = pc.fill_null(pc.utf8_length(messages.flatten().field("content")), 0).to_numpy(zero_copy_only=False)
        per_sample = pc.fill_null(pc.list_value_length(messages), 0).to_numpy(zero_copy_only=False)
        ends = np.cumsum(per_sample)
        totals = np.concatenate([[0], np.cumsum(contents, dtype=np.int64)])
        lengths.append(totals[ends] - totals[ends - per_sample])
        turns.update(per_sample.tolist())
        if "metadata" in columns:
            fields = [json.loads(text) if text else {} for text in batch["metadata"].to_pylist()]
            for found in fields:
                seen_fields.update(found)
            if settings.group:
                groups.add(_as_name(found.get(settings.group)) for found in fields)
            if settings.truth:
                grades.append(_grades(fields, settings.truth, batch["id"]))
    for option, name in (("truth", settings.truth), ("group", settings.group)):
        if name is not None and name not in seen_fields:
            raise InputError(
                f"report.{option} is '{name}', but no sample of the pool has that field in its metadata",
                allowed=", ".join(sorted(seen_fields)) or "nothing: the pool keeps no metadata",
                action="correct the name, or let the pool stage keep the field",
            )
    all_keys = np.concatenate(keys)
    order = np.argsort(all_keys, kind="stable")
    source_names, source_codes = sources.by_size()
    group_names, group_codes = groups.by_size()
    return Samples(
        sources=source_names,
        source=source_codes,
        length=np.concatenate(lengths),
        turns=turns,
        grade=np.concatenate(grades) if grades else None,
        groups=group_names,
        group=group_codes,
        _keys=all_keys[order],
        _order=order,
    )


def read_texts(pool: Artifact, ids: Iterable[str]) -> dict[str, tuple[str, str, str]]:
    """Source, first instruction and response of the samples with these `ids`, read batch by batch."""
    wanted = pa.array(sorted(set(ids)), pa.string())
    texts: dict[str, tuple[str, str, str]] = {}
    if not len(wanted):
        return texts
    for batch in pool.batches(["id", "source", "messages"], rows=_ROWS):
        for row in batch.filter(pc.is_in(batch["id"], value_set=wanted)).to_pylist():
            messages: list[Message] = row["messages"]
            texts[row["id"]] = row["source"], instruction_of(messages), response_of(messages)
    return texts


class _Names:
    """Texts as codes, in the order of first appearance until they are sorted by size."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._blocks: list[NDArray[np.int32]] = []

    def add(self, names: Iterable[str]) -> None:
        codes = self._codes
        self._blocks.append(np.array([codes.setdefault(name, len(codes)) for name in names], np.int32))

    def by_size(self) -> tuple[list[str], NDArray[np.int32]]:
        """Names, the most frequent first, and the code of each row."""
        codes = np.concatenate(self._blocks) if self._blocks else np.empty(0, np.int32)
        names = list(self._codes)
        sizes = np.bincount(codes, minlength=len(names))
        order = sorted(range(len(names)), key=lambda code: (-sizes[code], names[code]))
        places = np.empty(len(names), np.int32)
        places[order] = np.arange(len(names), dtype=np.int32)
        return [names[code] for code in order], places[codes]


def _as_name(value: Any) -> str:
    return NO_GROUP if value is None else value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _grades(fields: list[dict[str, Any]], name: str, ids: pa.Array) -> NDArray[np.float32]:
    grades = np.full(len(fields), np.nan, np.float32)
    for row, found in enumerate(fields):
        value = found.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 <= value <= 10:
            raise InputError(
                f"the sample {ids[row].as_py()} has {value!r} in its metadata field '{name}'",
                allowed="a number from 1 to 10, or null",
                action="correct report.truth, or bring the field to that scale before the pool is made",
            )
        grades[row] = value
    return grades
