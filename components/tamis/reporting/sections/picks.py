"""Samples of every subset: the first picked, the last picked and those just missed, with what ranked them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tamis.core.artifacts import Artifact
from tamis.reporting.blocks import Block, Heading, Listing, Sample, Text
from tamis.reporting.evidence import Evidence
from tamis.reporting.numbers import clipped, count, decimal, known, percent, plural, slugs
from tamis.reporting.outcomes import Subset
from tamis.reporting.samples import read_texts

_SHOWN = 10  # samples of each list
_SUBSETS = 12  # subsets whose samples are shown
_INSTRUCTION, _RESPONSE = 300, 500  # characters
_MISSED = "missed.parquet"


@dataclass(frozen=True)
class Part:
    """A list of samples: what it is called, its rows of a selection's table, and a sentence about it."""

    title: str
    rows: pa.Table
    note: str = ""


def blocks(evidence: Evidence) -> Iterator[Block]:
    """Headings and lists, a heading for each subset."""
    if not evidence.settings.examples:
        return
    shown = evidence.subsets[:_SUBSETS]
    lists = {subset.name: list(parts(subset.artifact, min(_SHOWN, evidence.settings.examples))) for subset in shown}
    ids = [id for those in lists.values() for part in those for id in part.rows["id"].to_pylist()]
    texts = read_texts(evidence.pool, ids)
    anchors = slugs([subset.name for subset in shown])
    for subset in shown:
        yield Heading(f"Samples of {subset.name}", f"picks-{anchors[subset.name]}")
        for part in lists[subset.name]:
            yield Listing(
                part.title, [_sample(row, subset, evidence, texts) for row in part.rows.to_pylist()], part.note
            )
    if len(evidence.subsets) > len(shown):
        yield Text(f"Samples of the first {len(shown)} of {len(evidence.subsets)} subsets are shown.")


def parts(selection: Artifact, shown: int) -> Iterator[Part]:
    """The lists of a selection, of at most `shown` samples each; no sample is in two of them."""
    picked = pq.read_table(selection.path("selection.parquet"))
    first = picked.slice(0, shown)
    yield Part(f"The first {plural(len(first), 'sample')} picked", first)
    rest = picked.slice(max(shown, len(picked) - shown))
    if len(rest):
        yield Part(f"The last {plural(len(rest), 'sample')} picked", rest, _cut(selection))
    if any(file.name == _MISSED for file in selection.manifest.files):
        missed = pq.read_table(selection.path(_MISSED)).slice(0, shown)
        if len(missed):
            yield Part(f"The {plural(len(missed), 'sample')} just missed", missed, _passed_over(picked, missed))


def _cut(selection: Artifact) -> str:
    """Where the cut lies, if the strategy has a score."""
    said = []
    for threshold in selection.manifest.facts.get("thresholds", []):
        of = f"Of {', '.join(threshold['sources'])}: the" if threshold["sources"] else "The"
        said.append(
            f"{of} lowest score picked is {decimal(threshold['score'], 2)}; "
            f"{count(threshold['picked'])} with it were picked, {count(threshold['cut'])} were not."
        )
    return " ".join(said)


def _passed_over(picked: pa.Table, missed: pa.Table) -> str:
    """Why some of the missed rank above the last picked, if any do."""
    lowest = picked["score"][-1].as_py()
    above = [
        score for score in missed["score"].to_pylist() if score is not None and lowest is not None and score > lowest
    ]
    if not above:
        return ""
    return f"{count(len(above))} of these rank above the last picked: a quota or the strategy passed them over."


def _sample(
    row: Mapping[str, object], subset: Subset, evidence: Evidence, texts: Mapping[str, tuple[str, str, str]]
) -> Sample:
    source, instruction, response = texts[str(row["id"])]
    reasons = [source, *_ranked_by(row), *_known_of(str(row["id"]), subset, evidence)]
    rank = row["rank"]
    assert isinstance(rank, int)
    return Sample(count(rank + 1), reasons, clipped(instruction, _INSTRUCTION), clipped(response, _RESPONSE))


def _ranked_by(row: Mapping[str, object]) -> Iterator[str]:
    for name in ("score", "diversity"):
        value = row[name]
        if isinstance(value, float):
            yield f"{name} {decimal(value, 2 if name == 'score' else 3)}"


def _known_of(sample: str, subset: Subset, evidence: Evidence) -> Iterator[str]:
    """What the subset's rater and curation say of a sample."""
    curated = (
        evidence.curation.raters.get(str(subset.artifact.manifest.facts.get("rater"))) if evidence.curation else None
    )
    position = int(evidence.samples.positions(pa.array([sample]), subset.artifact)[0])
    if curated is not None:
        raw, score = int(curated.raw[position]), int(curated.score[position])
        yield "never rated" if raw < 0 else f"rated class {raw}"
        if score >= 0 and score != raw:
            yield f"curated class {score}"
        if known(confidence := float(curated.confidence[position])):
            yield f"{percent(confidence, digits=0)} sure"
    if evidence.samples.grade is not None and not np.isnan(grade := evidence.samples.grade[position]):
        yield f"{evidence.settings.truth} {decimal(float(grade), 1)}"
