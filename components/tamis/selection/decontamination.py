"""Samples of a pool that share a long run of words with evaluation data, as a list for `exclude`, with a report.

The usual rule (GPT-3's, arXiv 2005.14165, appendix C): 13 words in a row, without case and punctuation. A run that more
than ten samples have is a phrase or an instruction that is no one's secret; it is reported and excludes nothing.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError, SettingsError
from tamis.core.progress import Progress
from tamis.core.steps import Uri
from tamis.core.storage import locate, read_bytes, write_bytes

WORDS, COMMON, FEWEST = 13, 10, 8
_KNOWN_WORDS = 1_000_000  # whose numbers are kept: some 150 MB
_FORMATS = "jsonl, json, csv or txt"
_SHOWN = 50
_WORD = re.compile(r"\w+")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)

Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Found:
    """A sample that shares words with a record of evaluation data.

    Attributes:
        id: of the sample.
        source: of the sample.
        file: the evaluation file.
        record: number of the record in it, from 1.
        words: the first run of words that they share.
    """

    id: str
    source: str
    file: str
    record: int
    words: str


@dataclass
class Decontamination:
    """What was compared and found.

    Attributes:
        records: records of each file.
        samples: samples of the pool.
        found: the samples to exclude, in the order of the pool.
        common: runs of words that more samples have than counts as chance, with their numbers of samples.
    """

    records: dict[str, int] = field(default_factory=dict)
    samples: int = 0
    found: list[Found] = field(default_factory=list)
    common: dict[str, int] = field(default_factory=dict)


def decontaminate(pool: Artifact, files: Sequence[str], *, words: int = WORDS, common: int = COMMON) -> Decontamination:
    """Compare every message of the pool with every text of the evaluation `files`.

    Args:
        pool: the pool.
        files: jsonl, json, csv or txt; every text in them counts, whatever its field.
        words: length of a shared run. A text of 8 words or more that is shorter than this must occur as a whole.
        common: a run that more samples have than this excludes nothing.

    Raises:
        SettingsError: when `words` is below 8, or a file's name ends otherwise.
        InputError: when a file cannot be read as what it is called, or has no text of 8 words.
        StorageError: when a file cannot be read at all.
    """
    if words < FEWEST:
        raise SettingsError(f"words: {words} in a row are shared by chance", allowed=f"{FEWEST} or more")
    result, hashing = Decontamination(), _Hashing()
    runs = _Runs(hashing, words)
    for file in files:
        before = runs.texts
        for number, record in enumerate(_records(file), 1):
            for text in _texts(record):
                runs.add(text, file, number)
            result.records[file] = number
        if runs.texts == before:
            raise InputError(f"{file} has no text of {FEWEST} words or more", action="give a file of evaluation data")
    runs.finish()
    hits: list[tuple[str, str, list[tuple[int, str]]]] = []
    samples: Counter[int] = Counter()
    with Progress("decontaminate", pool.manifest.rows) as progress:
        for batch in pool.batches(["id", "source", "messages"]):
            for row in batch.to_pylist():
                shared = dict(match for message in row["messages"] for match in runs.in_text(message["content"]))
                if shared:
                    samples.update(shared.keys())
                    hits.append((row["id"], row["source"], list(shared.items())))
            result.samples += batch.num_rows
            progress.advance(batch.num_rows)
    for identity, source, shared_runs in hits:
        rare = [(run, said) for run, said in shared_runs if samples[run] <= common]
        if rare:
            run, said = rare[0]
            result.found.append(Found(identity, source, *runs.place[run], said))
        result.common |= {said: samples[run] for run, said in shared_runs if samples[run] > common}
    return result


class _Hashing:
    """Numbers for words, the same in every run."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def of(self, words: Sequence[str]) -> Hashes:
        known = self._known
        if len(known) > _KNOWN_WORDS:
            known.clear()
        for word in words:
            if word not in known:
                known[word] = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        return np.array([known[word] for word in words], np.uint64)


class _Runs:
    """The runs of words of evaluation data."""

    def __init__(self, hashing: _Hashing, words: int) -> None:
        self._hashing, self._words = hashing, words
        self._kept: dict[int, list[Hashes]] = defaultdict(list)
        self._sorted: dict[int, Hashes] = {}
        self.place: dict[int, tuple[str, int]] = {}
        self.texts = 0

    def add(self, text: str, file: str, record: int) -> None:
        words = _words(text)
        if len(words) < FEWEST:
            return
        length = min(self._words, len(words))
        hashes = _windows(self._hashing.of(words), length)
        self._kept[length].append(hashes)
        for run in hashes.tolist():
            self.place.setdefault(run, (file, record))
        self.texts += 1

    def finish(self) -> None:
        self._sorted = {length: np.unique(np.concatenate(kept)) for length, kept in sorted(self._kept.items())}
        self._kept.clear()

    def in_text(self, text: str) -> Iterator[tuple[int, str]]:
        """The runs that occur in `text`, with their words."""
        words = _words(text)
        hashes = self._hashing.of(words)
        for length, runs in self._sorted.items():
            if len(words) < length:
                break
            windows = _windows(hashes, length)
            places = np.minimum(np.searchsorted(runs, windows), len(runs) - 1)
            for start in np.flatnonzero(runs[places] == windows).tolist():
                yield int(windows[start]), " ".join(words[start : start + length])


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _windows(hashes: Hashes, length: int) -> Hashes:
    """A number for each run of `length` words: a polynomial of their hashes, modulo 2^64."""
    total: Hashes = np.full(len(hashes) - length + 1, np.uint64(length))
    for offset in range(length):
        total = total * _FACTOR + hashes[offset : offset + len(total)]
    return total


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for item in value.values() for text in _texts(item))
    elif isinstance(value, list):
        yield from (text for item in value for text in _texts(item))


def _records(file: str) -> Iterator[Any]:
    suffix = PurePosixPath(file).suffix.lower()
    if suffix not in {".jsonl", ".json", ".csv", ".txt"}:
        raise SettingsError(f"{file} ends in '{suffix}'", allowed=_FORMATS, action="convert or rename it")
    try:
        text = read_bytes(locate(file)).decode("utf-8-sig")
        if suffix == ".jsonl":
            yield from (json.loads(line) for line in text.split("\n") if line.strip())
        elif suffix == ".json":
            value = json.loads(text)
            lists = [item for item in value.values() if isinstance(item, list)] if isinstance(value, dict) else [value]
            yield from lists[0] if len(lists) == 1 and isinstance(lists[0], list) else [value]
        elif suffix == ".csv":
            yield from csv.DictReader(io.StringIO(text, newline=""))
        else:
            yield from (line for line in text.split("\n") if line.strip())
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise InputError(f"{file} cannot be read: {error}", allowed=_FORMATS, action="correct it") from None


def as_csv(found: Sequence[Found]) -> str:
    """The samples to exclude, one a line, with the place of what they share."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "source", "file", "record", "words"])
    writer.writerows([one.id, one.source, PurePosixPath(one.file).name, one.record, one.words] for one in found)
    return text.getvalue()


def markdown(result: Decontamination) -> str:
    """The report."""
    by_file = Counter(one.file for one in result.found)
    by_source = Counter(one.source for one in result.found)
    files = [[PurePosixPath(f).name, f"{n:,}", f"{by_file[f]:,}"] for f, n in result.records.items()]
    shown = [
        [one.id, one.source, f"{PurePosixPath(one.file).name}, {one.record}", one.words]
        for one in result.found[:_SHOWN]
    ]
    parts = [
        "# Decontamination",
        f"{len(result.found):,} of {result.samples:,} samples share words with the evaluation data.",
        _table(["evaluation file", "records", "samples that share words"], files),
    ]
    if result.found:
        parts += [
            "## By source",
            _table(["source", "samples"], [[name, f"{n:,}"] for name, n in sorted(by_source.items())]),
            f"## The first {len(shown):,}",
            _table(["sample", "source", "record", "shared words"], shown),
        ]
    if result.common:
        often = sorted(result.common.items(), key=lambda pair: (-pair[1], pair[0]))[:_SHOWN]
        parts += [
            "## Common phrases, which exclude nothing",
            _table(["words", "samples"], [[said, f"{n:,}"] for said, n in often]),
        ]
    return "\n\n".join(parts) + "\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def report(files: Sequence[str], *, pool: Uri, out: Uri, words: int = WORDS, common: int = COMMON) -> str:
    """Write `excluded.csv`, which `exclude` takes, and `decontamination.md` to `out`.

    Returns:
        The text of `decontamination.md`.

    Raises:
        ArtifactError: when the pool is not usable.
        SettingsError, InputError, StorageError: see `decontaminate`.
    """
    with tempfile.TemporaryDirectory(prefix="tamis-") as cache:
        result = decontaminate(Artifact.open(pool, "pool", cache=Path(cache)), files, words=words, common=common)
    text = markdown(result)
    write_bytes(locate(out) / "excluded.csv", as_csv(result.found).encode())
    write_bytes(locate(out) / "decontamination.md", text.encode())
    return text
