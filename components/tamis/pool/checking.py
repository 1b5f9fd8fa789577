"""A check of the first rows of each file of a source, which finds most problems before a long run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from tamis.core import storage
from tamis.core.conditions import Condition, all_met, conditions
from tamis.core.errors import InputError
from tamis.core.samples import Message
from tamis.core.saved import is_saved
from tamis.core.side import Side, counts_in_words
from tamis.core.storage import Location
from tamis.core.tabular import key_of
from tamis.pool.hub import DatasetReader
from tamis.pool.mapping import Mapping, check_columns, mapping_of
from tamis.pool.readers import Reader, how_to_read, reader_of
from tamis.pool.rejects import Reject
from tamis.pool.settings import PoolSettings, Source
from tamis.pool.sources import files_at

Files: TypeAlias = Sequence[tuple[str, Location]]
_ROWS = 100  # per file
_LARGE_ARRAY = 1 << 26  # bytes of a JSON array from which on it is not checked, because it would be loaded completely


@dataclass
class FirstRows:
    """What the first rows of a source's files contain.

    Attributes:
        files: number of files that were checked.
        rows: number of rows that were read and that match `where`.
        rejected: counts of rows that cannot be used, by kind.
        example: the place of the first such row, and the reason.
        side: fields next to the conversations.
        mapping: how rows become conversations; None if no file has a row.
        names: fields of the rows.
        whole: whether all rows of the files were read.
        guessed: number of files by what was guessed about their texts.
    """

    side: Side
    files: int = 0
    rows: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    example: str = ""
    mapping: Mapping | None = None
    names: dict[str, None] = field(default_factory=dict)
    whole: bool = True
    guessed: Counter[str] = field(default_factory=Counter)

    def not_seen(self, source: Source) -> list[str]:
        """Fields in `keep` of `source` that no row has. If not all rows were read, later rows may have them."""
        return [name for name in source.keep if name not in self.names] if self.names else []

    def check_kept(self, source: Source) -> None:
        """If all rows were read, make sure that each field in `keep` of `source` is in some row.

        Raises:
            InputError: naming the missing fields.
        """
        missing = self.not_seen(source)
        if missing and self.whole:
            raise InputError(
                f"source '{source.name}': none of its {self.rows:,} rows has the field {', '.join(missing)}, "
                "which `keep` names",
                allowed=", ".join(self.names),
                action="correct the source's `keep`",
            )

    def check_shares(self, name: str, settings: PoolSettings) -> None:
        """Make sure that the pool stage would accept the source `name` if all its rows are like these.

        Raises:
            InputError: when too many rows cannot be used, or lose fields that change what a model learns.
        """
        if sum(self.rejected.values()) > settings.max_reject_share * self.rows:
            raise InputError(
                f"source '{name}': of the first {self.rows:,} rows, {self.rejected.total():,} cannot be used "
                f"({counts_in_words(self.rejected)}); the first: {self.example}",
                allowed=f"at most a share of {settings.max_reject_share:g} (pool.max_reject_share)",
                action="correct the source or its settings",
            )
        if self.side.samples > settings.max_lost_share * (self.rows - self.rejected.total()):
            raise InputError(
                f"source '{name}': of the first {self.rows:,} rows, {self.side.samples:,} have fields that change what "
                f"a model learns and are not read: {counts_in_words(self.side.lost)}",
                allowed=f"at most a share of {settings.max_lost_share:g} (pool.max_lost_share)",
                action="read a system prompt with `fields: {system: …}`; list fields in `keep` if the samples are "
                "right without them; or raise the limit",
            )

    def __str__(self) -> str:
        parts = [f"the first {self.rows:,} rows of {self.files:,} {'file' if self.files == 1 else 'files'}"]
        parts += [self.mapping.schema] if self.mapping else []
        parts += [f"{count:,} read with {how}" for how, count in self.guessed.items()]
        if self.rejected:
            count = self.rejected.total()
            parts.append(
                f"{count:,} of them cannot be used: {counts_in_words(self.rejected)}; the first: {self.example}"
            )
        if self.side.lost:
            parts.append(
                f"{self.side.samples:,} of them have fields that are not read: {counts_in_words(self.side.lost)}"
            )
        return ", ".join(parts)


def look_into(source: Source, settings: PoolSettings, files: Files | None = None) -> FirstRows | None:
    """Read the first rows of the files of `source`; None if it has no files on this machine.

    Args:
        source: the source's settings.
        settings: the pool's settings.
        files: names and paths of the source's files, if known.

    Raises:
        InputError: when a file cannot be read, or its layout differs from the source's settings or other files.
        StorageError: when the path does not exist.
    """
    found = look_at(source, _readers(source, settings, files))
    return found if found.files else None


def look_at(source: Source, readers: Iterable[tuple[str, Reader]]) -> FirstRows:
    """Read the first rows of `source` from each of the `readers`, which are given with the names of their files.

    Raises:
        InputError: when a file's layout differs from the source's settings or other files.
    """
    found, wanted = FirstRows(Side(frozenset((*source.keep, *source.where)))), conditions(source.where)
    for name, reader in readers:
        found.files += 1
        if reader.guessed:
            found.guessed[str(reader.guessed)] += 1
        if reader.columns:
            found.mapping = mapping_of(source, reader.columns, name, before=found.mapping)
            check_columns(source, found.mapping, reader.columns, reader.uniform, name)
        _add(found, wanted, name, reader)
    return found


def first_samples(settings: PoolSettings, count: int) -> list[list[Message]]:
    """The first `count` conversations of the sources' files on this machine; fewer if there are no more.

    Raises:
        InputError, StorageError: as `look_into`.
    """
    samples = (sample for source in settings.sources for sample in samples_in(source, _readers(source, settings, None)))
    return list(islice(samples, count))


def samples_in(source: Source, readers: Iterable[tuple[str, Reader]]) -> Iterator[list[Message]]:
    """The conversations in the first rows of each of the `readers`.

    Raises:
        InputError: as `look_at`.
    """
    wanted = conditions(source.where)
    for name, reader in readers:
        mapping = mapping_of(source, reader.columns, name) if reader.columns else None
        for _, row in islice(reader.rows(reader.columns), _ROWS):
            if mapping is None or isinstance(row, Reject) or not all_met(row, wanted):
                continue
            try:
                yield list(mapping.conversation(row)[0])
            except Reject:
                continue


def check_own_ids(settings: PoolSettings, field: str) -> None:
    """Make sure that no two samples in the sources' local files have the same value in `field`.

    All rows are read, except of sources with a `limit`. Rows with the same conversation may have the same value,
    because the pool keeps only one of them.

    Raises:
        InputError: naming the first two samples with the same value.
        StorageError: when a path does not exist.
    """
    seen: dict[str, tuple[str, int]] = {}
    for source in settings.sources:
        wanted = conditions(source.where)
        for name, reader in _readers(source, settings, None):
            if field not in source.keep or source.limit is not None or not reader.columns:
                continue
            mapping = mapping_of(source, reader.columns, name)
            for number, row in reader.rows(reader.columns):
                if isinstance(row, Reject) or not all_met(row, wanted) or (key := key_of(row.get(field))) is None:
                    continue
                try:
                    content = hash(repr(mapping.conversation(row)[0]))
                except Reject:
                    continue
                where, known = seen.setdefault(key, (f"source '{source.name}', {name}, row {number}", content))
                if known != content:
                    raise InputError(
                        f"two samples have the {field} '{key}': {where}, and source '{source.name}', {name}, row "
                        f"{number}",
                        allowed=f"'{field}' must be different for each sample",
                        action="make the two different in all files, or name another field",
                    )


def _add(found: FirstRows, wanted: dict[str, Condition], name: str, reader: Reader) -> None:
    mapping = found.mapping
    read = frozenset(mapping.columns) if mapping else frozenset()
    rows = iter(reader.rows(reader.columns))
    for number, row in islice(rows, _ROWS):
        try:
            if isinstance(row, Reject):
                raise row
            if not all_met(row, wanted):
                continue
            assert mapping is not None  # a row that can be read has columns
            found.names.update(dict.fromkeys(row))
            messages, beside = mapping.conversation(row)
        except Reject as reject:
            found.rejected[reject.kind] += 1
            found.example = found.example or f"{name}, row {number}: {reject.reason}"
        else:
            found.side.add(row, tuple(row), read, beside, messages)
        found.rows += 1
    found.whole = found.whole and next(rows, None) is None


def _readers(source: Source, settings: PoolSettings, files: Files | None) -> Iterator[tuple[str, Reader]]:
    place = source.path or source.dataset
    if place is None or storage.is_remote(place):
        return
    if is_saved(place):
        yield place, DatasetReader(source.model_copy(update={"path": None, "dataset": place}), "")
    elif source.path is not None:
        for name, file in files_at(source.path) if files is None else files:
            path = Path(str(file))
            if not (name.endswith(".json") and path.stat().st_size > _LARGE_ARRAY):
                yield name, reader_of(path, how_to_read(settings, source))
