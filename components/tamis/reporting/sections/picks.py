"""Samples of every subset: the first picked, the last picked and those just missed, and why they rank there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tamis.core.artifacts import Artifact
from tamis.core.ids import USUAL_NAMES
from tamis.reporting.blocks import Block, Heading, Listing, Sample, Text
from tamis.reporting.evidence import Evidence
from tamis.reporting.numbers import clipped, count, decimal, known, percent, plural, slugs
from tamis.reporting.outcomes import Subset
from tamis.reporting.samples import read_kept, read_texts

_SHOWN = 10  # samples of each list
_SUBSETS = 12  # subsets whose samples are shown
_INSTRUCTION, _RESPONSE = 300, 500  # characters
_NAME = 60  # characters of a sample's name
_MISSED = "missed.parquet"
_BY_CLASS = ("ds2", "ds2-raw")  # strategies that rank by class, then by diversity


@dataclass(frozen=True)
class Part:
    """A list of samples: its title, its rows of a selection's table, and a sentence about it."""

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
    texts, kept = read_texts(evidence.pool, ids), read_kept(evidence.pool, ids)
    names = {id: name for id, fields in kept.items() if (name := _own_name(fields, evidence)) is not None}
    anchors = slugs([subset.name for subset in shown])
    for subset in shown:
        yield Heading(f"Samples of {subset.name}", f"picks-{anchors[subset.name]}")
        yield Text(
            f"The file subset.jsonl of the selection '{subset.name}' has all of them; `tamis run` puts it at "
            f"selections/{subset.name}/subset.jsonl."
        )
        ranked = _Ranked(subset, evidence)
        for part in lists[subset.name]:
            items = [_sample(row, subset, evidence, texts, names, ranked.why(row)) for row in part.rows.to_pylist()]
            yield Listing(part.title, items, part.note)
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
    """The lowest picked score, if the strategy has a score."""
    said = []
    for threshold in selection.manifest.facts.get("thresholds", []):
        of = f"In {', '.join(threshold['sources'])}, the" if threshold["sources"] else "The"
        said.append(
            f"{of} lowest score picked is {decimal(threshold['score'], 2)}; "
            f"of the samples with it, {count(threshold['picked'])} were picked and {count(threshold['cut'])} were not."
        )
    return " ".join(said)


def _passed_over(picked: pa.Table, missed: pa.Table) -> str:
    """Why some missed samples rank above the last picked one, if any do."""
    lowest = picked["score"][-1].as_py()
    above = [
        score for score in missed["score"].to_pylist() if score is not None and lowest is not None and score > lowest
    ]
    if not above:
        return ""
    return f"{count(len(above))} of these rank above the last picked sample: a quota or the strategy skipped them."


def _sample(
    row: Mapping[str, object],
    subset: Subset,
    evidence: Evidence,
    texts: Mapping[str, tuple[str, str, str]],
    names: Mapping[str, str],
    why: str,
) -> Sample:
    source, instruction, response = texts[str(row["id"])]
    named = [names[str(row["id"])]] if str(row["id"]) in names else []
    reasons = [source, *named, *_ranked_by(row), *_known_of(str(row["id"]), subset, evidence)]
    rank = row["rank"]
    assert isinstance(rank, int)
    return Sample(count(rank + 1), reasons, clipped(instruction, _INSTRUCTION), clipped(response, _RESPONSE), why)


class _Ranked:
    """The reasons for the ranks of samples in a subset."""

    def __init__(self, subset: Subset, evidence: Evidence) -> None:
        table = pq.read_table(subset.artifact.path("selection.parquet"), columns=["score", "diversity"])
        self._scores, self._diversity = (table[name].to_numpy(zero_copy_only=False) for name in table.column_names)
        self._strategy, self._picked = subset.strategy, len(table)
        config, rater = subset.artifact.manifest.config, subset.artifact.manifest.facts.get("rater")
        curated = evidence.curation.raters.get(str(rater)) if evidence.curation else None
        self._highest: int | None = None
        if curated is not None and config.get("rank_by", "class") == "class" and subset.strategy in _BY_CLASS:
            classes = curated.score if subset.strategy == "ds2" else curated.raw
            self._highest = int(classes.max())

    def why(self, row: Mapping[str, object]) -> str:
        """A sentence about a picked or missed sample of the subset."""
        rank, score, diversity = row["rank"], row["score"], row["diversity"]
        assert isinstance(rank, int)
        said = f"Rank {count(rank + 1)}"
        if not isinstance(score, float):
            return f"{said}: drawn at random." if self._strategy == "random" else ""
        if self._highest is None or not isinstance(diversity, float):
            above = int(np.count_nonzero(self._scores > score))
            if rank >= self._picked:
                return f"{said}: {count(above)} of the picked samples have a higher score."
            return f"{said}: its score is the {_ordinal(above + 1)} highest of those picked."
        said += f": class {score:g}{', the highest' if score == self._highest else ''}"
        same = self._diversity[self._scores == score]
        above = int(np.count_nonzero(same > np.float32(diversity)))
        if rank < self._picked:
            return f"{said}; the {_ordinal(above + 1)} most diverse of its picked samples."
        return f"{said}; {plural(above, 'picked sample')} of this class {'is' if above == 1 else 'are'} more diverse."


def _ordinal(number: int) -> str:
    end = "th" if 10 < number % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{count(number)}{end}"


def _own_name(kept: Mapping[str, object], evidence: Evidence) -> str | None:
    """The user's own name of a sample: the field that matched imported ratings, or one with a usual name."""
    backends = [rater.artifact.manifest.config.get("backend") or {} for rater in evidence.ratings]
    fields = [backend.get("field") or backend.get("key") for backend in backends if backend.get("by") == "metadata"]
    field = next((name for name in (*fields, *USUAL_NAMES) if name in kept), None)
    return None if field is None else clipped(f"{field} {kept[field]}", _NAME)


def _ranked_by(row: Mapping[str, object]) -> Iterator[str]:
    for name in ("score", "diversity"):
        value = row[name]
        if isinstance(value, float):
            yield f"{name} {decimal(value, 2 if name == 'score' else 3)}"


def _known_of(sample: str, subset: Subset, evidence: Evidence) -> Iterator[str]:
    """What the raters and the curation say about a sample."""
    curated = (
        evidence.curation.raters.get(str(subset.artifact.manifest.facts.get("rater"))) if evidence.curation else None
    )
    position = int(evidence.samples.positions(pa.array([sample]), subset.artifact)[0])
    for rater in evidence.ratings:
        if given := int(rater.overall[position]):
            yield f"{rater.rater}: {given} of 10"
    if curated is not None:
        raw, score = int(curated.raw[position]), int(curated.score[position])
        yield "never rated" if raw < 0 else f"rated class {raw}"
        if score >= 0 and score != raw:
            yield f"curated class {score}"
        if known(confidence := float(curated.confidence[position])):
            yield f"confidence {percent(confidence, digits=0)}"
    if evidence.samples.grade is not None and not np.isnan(grade := evidence.samples.grade[position]):
        yield f"{evidence.settings.truth} {decimal(float(grade), 1)}"
