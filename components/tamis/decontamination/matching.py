"""Samples of a pool that share a long run of words with evaluation data, as a list for `exclude` and a report.

The usual rule is GPT-3's (arXiv 2005.14165, appendix C): 13 consecutive words, ignoring case and punctuation. A run of
words in more than ten samples is a common phrase or an instruction, and excludes nothing by itself. But a pool may have
more than ten answers to one question, so a sample that contains half of an evaluation text is always excluded.
"""

from __future__ import annotations

import csv
import io
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError, SettingsError
from tamis.core.jsonrows import json_of
from tamis.core.markdown import table
from tamis.core.progress import Progress
from tamis.core.sample_columns import conversations, rows_of
from tamis.core.samples import Message
from tamis.core.steps import Uri
from tamis.core.storage import locate, read_bytes, write_bytes
from tamis.core.texts import text_of
from tamis.decontamination.runs import FEWEST, Numbers, Runs, Texts

WORDS, COMMON = 13, 10
_FORMATS = "jsonl, json, csv or txt"
_SHOWN = 50


@dataclass(frozen=True)
class Found:
    """What a sample shares with an evaluation file.

    Attributes:
        id: the sample's id.
        source: the sample's source.
        file: the evaluation file, as given.
        record: number of the record in the file, from 1.
        words: the first shared run of words.
    """

    id: str
    source: str
    file: str
    record: int
    words: str


@dataclass
class Decontamination:
    """The result of a comparison.

    Attributes:
        records: number of records in each file.
        samples: number of samples in the pool.
        found: what the samples to exclude share, in the order of the pool, with an entry per sample and file.
        kept: number of samples that share only common runs, and are kept.
        common: the most frequent runs in those samples, with the number of samples.
        common_runs: number of different runs in those samples.
    """

    records: dict[str, int] = field(default_factory=dict)
    samples: int = 0
    found: list[Found] = field(default_factory=list)
    kept: int = 0
    common: dict[str, int] = field(default_factory=dict)
    common_runs: int = 0

    @property
    def excluded(self) -> dict[str, str]:
        """The samples to exclude, with their sources."""
        return {one.id: one.source for one in self.found}


def decontaminate(pool: Artifact, files: Sequence[str], *, words: int = WORDS, common: int = COMMON) -> Decontamination:
    """Compare every message of the pool with every text of the evaluation `files`.

    The pool is read twice, so that memory grows with the evaluation data and the matches, not with the pool.

    Args:
        pool: the pool.
        files: jsonl, json, csv or txt files; every text in them counts, in any field.
        words: length of a shared run. A text that is shorter, but has 8 words or more, must occur completely.
        common: a run in more samples than this excludes only samples that contain half of an evaluation text.

    Raises:
        SettingsError: when there is no file, `words` is below 8, `common` is below 1, or a file has another ending.
        InputError: when a file does not have the format of its ending, or has no text of 8 words.
        StorageError: when a file cannot be read.
    """
    if not files:
        raise SettingsError("no file with evaluation data is given", allowed="one or more files")
    if words < FEWEST:
        raise SettingsError(f"words: seen {words}; so few words are shared by chance", allowed=f"{FEWEST} or more")
    if common < 1:
        raise SettingsError(f"common: seen {common}", allowed="1 or more")
    texts = Texts(words, common)
    records = {file: texts.add(file, map(_texts, _records(file))) for file in files}
    result, runs = Decontamination(records), Runs(texts)
    samples, hits = _count(pool, runs)
    result.samples = sum(map(len, hits))
    _find(pool, runs, hits, samples <= common, result)
    return result


def _count(pool: Artifact, runs: Runs) -> tuple[Numbers, list[pa.BooleanArray]]:
    """The number of samples with each run, and for each batch a mask of the samples with any run."""
    samples, hits = np.zeros(len(runs), np.int64), []
    with Progress("decontaminate", pool.manifest.rows) as progress:
        for batch in pool.batches(["messages"]):
            shared = [runs.shared(_contents(messages)) for messages in conversations(batch["messages"])]
            for of_sample in shared:
                samples[of_sample] += 1
            hits.append(pa.array([len(of_sample) > 0 for of_sample in shared], pa.bool_()))
            progress.advance(batch.num_rows)
    return samples, hits


def _find(
    pool: Artifact, runs: Runs, hits: list[pa.BooleanArray], rare: NDArray[np.bool_], result: Decontamination
) -> None:
    """Read the samples that share a run again, and find those to exclude."""
    kept = np.zeros(len(runs), np.int64)
    with Progress("list shared words", sum(batch.true_count for batch in hits)) as progress:
        for batch, some in zip(pool.batches(["id", "source", "messages"]), hits, strict=True):
            for row in rows_of(batch.filter(some)):
                shared = runs.shared(_contents(row["messages"]))
                places = np.concatenate([runs.places_in_covered(shared), runs.places(shared[rare[shared]])])
                for file, (record, words) in runs.records(places).items():
                    result.found.append(Found(row["id"], row["source"], file, record, words))
                if not len(places):
                    result.kept += 1
                    kept[shared] += 1
            progress.advance(some.true_count)
    result.common_runs = int(np.count_nonzero(kept))
    often = np.argsort(-kept, kind="stable")[: min(_SHOWN, result.common_runs)]
    result.common = {runs.words(run): int(kept[run]) for run in often.tolist()}


def _contents(messages: list[Message]) -> Iterator[str]:
    return (message["content"] for message in messages)


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
        text = text_of(read_bytes(locate(file)), file)
        if suffix == ".jsonl":
            yield from (json_of(line) for line in text.split("\n") if line.strip())
        elif suffix == ".json":
            value = json_of(text)
            lists = [item for item in value.values() if isinstance(item, list)] if isinstance(value, dict) else [value]
            yield from lists[0] if len(lists) == 1 and isinstance(lists[0], list) else [value]
        elif suffix == ".csv":
            yield from (row for row in csv.reader(io.StringIO(text, newline="")) if row)  # the first row may be data
        else:
            yield from (line for line in text.split("\n") if line.strip())
    except (ValueError, csv.Error) as error:
        raise InputError(f"{file} cannot be read: {error}", allowed=_FORMATS, action="correct the file") from None


def as_csv(found: Sequence[Found]) -> str:
    """The samples to exclude, with a line per sample and file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "source", "file", "record", "words"])
    writer.writerows([one.id, one.source, one.file, one.record, one.words] for one in found)
    return text.getvalue()


def markdown(result: Decontamination) -> str:
    """The report."""
    by_file = Counter(one.file for one in result.found)
    excluded = result.excluded
    parts = [
        "# Decontamination",
        f"{len(excluded):,} of {result.samples:,} samples share words with the evaluation data and are excluded.\n"
        f"{result.kept:,} more samples share only phrases that are common in the pool, and are not excluded.",
        table(
            ["evaluation file", "records", "samples excluded"],
            [[file, f"{n:,}", f"{by_file[file]:,}"] for file, n in result.records.items()],
        ),
    ]
    if result.found:
        shown = [[one.id, one.source, f"{one.file}, {one.record}", one.words] for one in result.found[:_SHOWN]]
        by_source = sorted(Counter(excluded.values()).items())
        parts += [
            "## By source",
            table(["source", "samples"], [[name, f"{n:,}"] for name, n in by_source]),
            f"## Shared words{_cut(len(result.found))}",
            table(["sample", "source", "record", "shared words"], shown, words={"source", "record", "shared words"}),
        ]
    if result.common:
        parts += [
            f"## Common phrases, which exclude nothing{_cut(result.common_runs)}",
            table(["words", "samples not excluded"], [[said, f"{n:,}"] for said, n in result.common.items()]),
        ]
    return "\n\n".join(parts) + "\n"


def _cut(rows: int) -> str:
    return f": the first {_SHOWN} of {rows:,}" if rows > _SHOWN else ""


def report(files: Sequence[str], *, pool: Uri, out: Uri, words: int = WORDS, common: int = COMMON) -> str:
    """Write `excluded.csv`, for the setting `exclude`, and `decontamination.md` to `out`.

    Returns:
        The text of `decontamination.md`.

    Raises:
        ArtifactError: when the pool cannot be used.
        SettingsError, InputError, StorageError: see `decontaminate`.
    """
    with tempfile.TemporaryDirectory(prefix="tamis-") as cache:
        result = decontaminate(Artifact.open(pool, "pool", cache=Path(cache)), files, words=words, common=common)
    text = markdown(result)
    write_bytes(locate(out) / "excluded.csv", as_csv(result.found).encode())
    write_bytes(locate(out) / "decontamination.md", text.encode())
    return text
