"""The report's data on every sample: less than a hundred bytes each, and no texts."""

from __future__ import annotations

import json
import logging
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
from tamis.core.sample_columns import rows_of
from tamis.core.samples import Message, instruction_of, response_of
from tamis.core.scales import Scale, in_lower_half, seem_on_another
from tamis.reporting.scripts import SCRIPTS, dominant_scripts

if TYPE_CHECKING:
    from tamis.reporting.settings import ReportingSettings

log = logging.getLogger(__name__)
CLASSES = 6  # score classes 0..5
_ROWS = 2_000  # samples whose texts are in memory at once
NO_GROUP = "(none)"
LANGUAGE = ("language", "lang")  # fields of the metadata that name a sample's language
_LANGUAGES = 1_000  # most distinct languages; later values count as "(none)"


@dataclass(frozen=True)
class Samples:
    """The pool, column by column, in its own order.

    Attributes:
        sources: names of the sources, by size; `source` (n,) indexes them.
        length: (n,) characters of all messages.
        answer: (n,) characters of the answers, the assistant's messages.
        turns: number of samples for each number of messages.
        grade: (n,) the field `truth` on its own scale, NaN if a sample has none; None if the setting `truth` is not
            given. `rated` (n,) is the same mapped to ratings 1..10, -1 if there is none.
        groups: values of the field `group`, by size; `group` (n,) indexes them. Empty if the setting is not given.
        languages: values of the first of the fields `LANGUAGE` that any sample has, otherwise scripts, by size;
            `language` (n,) indexes them.
        language_field: the name of that field; None if `languages` are scripts.
    """

    sources: list[str]
    source: NDArray[np.int32]
    length: NDArray[np.int64]
    answer: NDArray[np.int32]
    turns: Counter[int]
    grade: NDArray[np.float32] | None
    rated: NDArray[np.int8] | None
    groups: list[str]
    group: NDArray[np.int32]
    languages: list[str]
    language: NDArray[np.int16]
    language_field: str | None
    _keys: NDArray[np.bytes_]
    _order: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.source)

    def truth(self, lowest: int, highest: int) -> NDArray[np.int8]:
        """(n,) the grade as a score class, computed as curation does for ratings; -1 if a sample has no grade."""
        if self.rated is None:
            return np.full(len(self), -1, np.int8)
        return np.where(self.rated < 0, -1, np.clip(self.rated, lowest, highest) - lowest).astype(np.int8)

    def positions(self, ids: pa.Array, artifact: Artifact) -> NDArray[np.int64]:
        """Places in the pool of the `ids` of `artifact`.

        Raises:
            InputError: when the pool lacks one of them, so that the artifact was made from another pool.
        """
        keys = pack(ids, where="the pool")
        found = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        unknown = np.flatnonzero(self._keys[found] != keys)
        if len(unknown):
            raise InputError(
                f"{artifact.location}: {len(unknown)} of {len(ids)} ids are not in the pool, the first is "
                f"{ids[int(unknown[0])].as_py()!r}",
                action="use the pool that this artifact was made from",
            )
        return self._order[found]

    def keys_at(self, rows: NDArray[np.int64]) -> NDArray[np.bytes_]:
        """The packed ids of the samples at `rows` of the pool; `ids.unpack` makes them text."""
        places = np.empty(len(self._order), np.int64)
        places[self._order] = np.arange(len(self._order))
        keys: NDArray[np.bytes_] = self._keys[places[rows]]
        return keys


def read_samples(pool: Artifact, settings: ReportingSettings) -> Samples:
    """Read the pool once, in batches.

    Raises:
        InputError: when no sample's metadata has the field `truth` or `group`, a value of `truth` is not a number on
            its scale, or no scale is set and the values do not look like 1 to 10.
    """
    keys, lengths, answers, sources, groups, truths = [], [], [], _Names(), _Names(), []
    turns: Counter[int] = Counter()
    seen_fields: set[str] = set()
    languages_seen = _LanguageCodes()
    for batch in pool.batches(["id", "source", "messages", "metadata"], rows=_ROWS):
        keys.append(pack(batch["id"], where="the pool"))
        sources.add(batch["source"].to_pylist())
        messages = batch["messages"]
        parts = messages.flatten()
        contents = pc.fill_null(pc.utf8_length(parts.field("content")), 0).to_numpy(zero_copy_only=False)
        answered = pc.fill_null(pc.equal(parts.field("role"), "assistant"), False).to_numpy(zero_copy_only=False)
        per_sample = pc.fill_null(pc.list_value_length(messages), 0).to_numpy(zero_copy_only=False)
        lengths.append(_sums(contents, per_sample))
        answers.append(_sums(np.where(answered, contents, 0), per_sample).astype(np.int32))
        turns.update(per_sample.tolist())
        languages_seen.add(batch["metadata"], parts.field("content"), np.repeat(np.arange(len(batch)), per_sample))
        if settings.truth or settings.group:
            fields = [json.loads(text) if text else {} for text in batch["metadata"].to_pylist()]
            for found in fields:
                seen_fields.update(found)
            if settings.group:
                groups.add(_as_name(found.get(settings.group)) for found in fields)
            if settings.truth:
                truths.append(_grades(fields, settings, batch["id"]))
    for option, name in (("truth", settings.truth), ("group", settings.group)):
        if name is not None and name not in seen_fields:
            raise InputError(
                f"report.{option} is '{name}', but no sample of the pool has that field in its metadata",
                allowed=", ".join(sorted(seen_fields)) or "nothing: the pool keeps no metadata",
                action="correct the name, or add the field to `keep` of the pool's source",
            )
    grade = np.concatenate([grades for grades, _ in truths]) if truths else None
    if grade is not None:
        _check_scale(grade[~np.isnan(grade)], settings)
    all_keys = np.concatenate(keys)
    order = np.argsort(all_keys, kind="stable")
    source_names, source_codes = sources.by_size()
    group_names, group_codes = groups.by_size()
    field, languages, language_codes = languages_seen.found()
    return Samples(
        sources=source_names,
        source=source_codes,
        length=np.concatenate(lengths),
        answer=np.concatenate(answers),
        turns=turns,
        grade=grade,
        rated=np.concatenate([rated for _, rated in truths]) if truths else None,
        groups=group_names,
        group=group_codes,
        languages=languages,
        language=language_codes.astype(np.int16),
        language_field=field,
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
        for row in rows_of(batch.filter(pc.is_in(batch["id"], value_set=wanted))):
            messages: list[Message] = row["messages"]
            texts[row["id"]] = row["source"], instruction_of(messages), response_of(messages)
    return texts


def read_kept(pool: Artifact, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The metadata of the samples with these `ids`, read batch by batch; samples without metadata are left out."""
    wanted = pa.array(sorted(set(ids)), pa.string())
    kept: dict[str, dict[str, Any]] = {}
    if not len(wanted):
        return kept
    for batch in pool.batches(["id", "metadata"], rows=_ROWS):
        for row in batch.filter(pc.is_in(batch["id"], value_set=wanted)).to_pylist():
            if row["metadata"]:
                kept[row["id"]] = json.loads(row["metadata"])
    return kept


class _Names:
    """Texts as codes, numbered by first appearance and finally sorted by frequency."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._blocks: list[NDArray[np.int32]] = []

    def add(self, names: Iterable[str]) -> None:
        codes = self._codes
        self._blocks.append(np.array([codes.setdefault(name, len(codes)) for name in names], np.int32))

    def by_size(self) -> tuple[list[str], NDArray[np.int32]]:
        """Names, the most frequent first, and the code of each row."""
        codes = np.concatenate(self._blocks) if self._blocks else np.empty(0, np.int32)
        return _by_size(list(self._codes), codes)


class _LanguageCodes:
    """Every sample's language, from a field of the metadata if there is one, otherwise its script."""

    def __init__(self) -> None:
        self._codes: dict[str, dict[str, int]] = {name: {NO_GROUP: 0} for name in LANGUAGE}
        self._named: dict[str, list[NDArray[np.int16]]] = {name: [] for name in LANGUAGE}
        self._scripts: list[NDArray[np.uint8]] = []

    def add(self, metadata: pa.Array, contents: pa.Array, owner: NDArray[np.integer[Any]]) -> None:
        """A batch's metadata, and the texts of its messages with the sample of each."""
        self._scripts.append(dominant_scripts(contents, owner))
        for name in LANGUAGE:
            found = np.zeros(len(metadata), np.int16)
            # Most pools name no language, so only metadata that may have the field are parsed.
            hits = pc.fill_null(pc.match_substring(metadata, f'"{name}"'), False).to_numpy(zero_copy_only=False)
            for row in np.flatnonzero(hits).tolist():
                value = json.loads(metadata[row].as_py()).get(name)
                codes = self._codes[name]
                if value is not None and (text := _as_name(value)) not in codes and len(codes) < _LANGUAGES:
                    codes[text] = len(codes)
                found[row] = codes.get(_as_name(value), 0)
            self._named[name].append(found)

    def found(self) -> tuple[str | None, list[str], NDArray[np.int32]]:
        """The field, None for scripts; names, the most frequent first; the code of each sample."""
        for name in LANGUAGE:
            if len(self._codes[name]) > 1:
                return name, *_by_size(list(self._codes[name]), np.concatenate(self._named[name]))
        codes = np.concatenate(self._scripts) if self._scripts else np.empty(0, np.uint8)
        return None, *_by_size(list(SCRIPTS), codes)


def _by_size(names: list[str], codes: NDArray[np.integer[Any]]) -> tuple[list[str], NDArray[np.int32]]:
    """The names that occur, the most frequent first, and the code of each row."""
    sizes = np.bincount(codes, minlength=len(names))
    order = sorted(np.flatnonzero(sizes).tolist(), key=lambda code: (-sizes[code], names[code]))
    places = np.zeros(len(names), np.int32)
    places[order] = np.arange(len(order), dtype=np.int32)
    return [names[code] for code in order], places[codes]


def _sums(values: NDArray[np.integer[Any]], counts: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Sums of consecutive parts of `values`, whose lengths are `counts`."""
    ends = np.cumsum(counts)
    totals = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
    result: NDArray[np.int64] = totals[ends] - totals[ends - counts]
    return result


def _as_name(value: Any) -> str:
    return NO_GROUP if value is None else value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _grades(
    fields: list[dict[str, Any]], settings: ReportingSettings, ids: pa.Array
) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """The field `truth` of some samples, NaN if there is none, and its value mapped to ratings 1..10, or -1."""
    name, scale = settings.truth, settings.truth_scale or Scale()
    assert name is not None
    grades, rated = np.full(len(fields), np.nan, np.float32), np.full(len(fields), -1, np.int8)
    for row, found in enumerate(fields):
        value = found.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not scale.has(value):
            raise InputError(
                f"the sample {ids[row].as_py()} has {value!r} in its metadata field '{name}'",
                allowed=f"a number from {scale}, or null",
                action="correct report.truth, or set report.truth_scale to the field's scale",
            )
        grades[row], rated[row] = value, scale.rating(scale.as_meant(value))
    return grades, rated


def _check_scale(grades: NDArray[np.float32], settings: ReportingSettings) -> None:
    """Warn if all values of the field `truth` are in the lower half of its scale.

    Raises:
        InputError: when no scale is set and the values do not look like 1 to 10.
    """
    if not len(grades):
        return
    lowest, highest, number = float(grades.min()), float(grades.max()), len(grades)
    within = f"the {number} values of the pool's field '{settings.truth}' range from {lowest:g} to {highest:g}"
    if settings.truth_scale is None and seem_on_another(lowest, highest, number):
        raise InputError(
            f"{within}, which does not look like a scale from 1 to 10",
            allowed="a scale, for example truth_scale: {lowest: 1, highest: 5}; use {lowest: 1, highest: 10} if it is "
            "that one",
            action="set report.truth_scale",
        )
    scale = settings.truth_scale or Scale()
    if in_lower_half(highest, number, scale):
        log.warning("%s, but the scale is %s: check that this is the field's scale", within, scale)
