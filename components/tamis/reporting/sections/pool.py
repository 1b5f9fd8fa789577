"""The pool: number, sources and lengths of the samples, and what was left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tamis.core.artifacts import Artifact
from tamis.reporting.blocks import Figure, Figures, KeyFigure, Section, Table, Text
from tamis.reporting.charts import bars, histogram
from tamis.reporting.evidence import Evidence
from tamis.reporting.numbers import count, percent, plural
from tamis.reporting.sections.shared import folded, in_words, number, scalars

_BINS = 24
_ROWS = 30  # longest table of sources or groups; the rest is summed up in one row
_FATES = ("read", "kept", "rejected", "duplicates", "near_copies", "left_out", "not_drawn")  # the pool stage's words
_TURNS = 8  # bars; longer conversations share the last one


def build(evidence: Evidence) -> Section:
    """Rows, sources, rejects and duplicates, messages, lengths."""
    samples = evidence.samples
    n, sources = len(samples), plural(len(samples.sources), "source")
    p10, p50, p90 = (float(value) for value in np.percentile(samples.length, [10, 50, 90]))
    section = Section("pool", "Pool", clause=f"{plural(n, 'sample')} from {sources}")
    section.key_figures.append(KeyFigure(count(n), "sample" if n == 1 else "samples"))
    section.add(
        Text(
            f"The pool holds {plural(n, 'sample')} from {sources}. The median sample has {count(p50)} characters; "
            f"80 % of the samples have between {count(p10)} and {count(p90)}.",
            lead=True,
        ),
        Figures([_lengths(evidence), _messages(evidence)]),
        _sources(evidence),
    )
    if samples.groups:
        names, codes = folded(samples.groups, _ROWS)
        sizes = np.bincount(codes[samples.group], minlength=len(names))
        rows = [[name, count(size), percent(size, n)] for name, size in zip(names, sizes, strict=True)]
        section.add(Table(f"Samples by {evidence.settings.group}", ["value", "samples", "share"], rows))
    read = _rows_read(evidence.pool.manifest.facts)
    if read:
        section.add(read)
    copies = _near_copies(evidence.pool)
    if copies:
        section.add(copies)
    for table in (_guessed(evidence.pool.manifest.facts), _fields_not_read(evidence.pool.manifest.facts)):
        if table:
            section.add(table)
    counted = scalars(evidence.pool.manifest.facts)
    if counted:
        rows = [[name, number(value)] for name, value in counted.items()]
        section.add(Table("What the pool stage counted", ["what", "value"], rows))
    section.measured("pool", "samples", n)
    for name, value in (("10", p10), ("50", p50), ("90", p90)):
        section.measured("pool", f"length in characters, percentile {name}", value)
    for name, size in zip(samples.sources, np.bincount(samples.source), strict=True):
        section.measured(f"source {name}", "samples", int(size))
    return section


def _lengths(evidence: Evidence) -> Figure:
    length = np.maximum(evidence.samples.length, 1)
    low, high = float(length.min()), float(length.max())
    edges = np.geomspace(low, max(high, 2 * low), _BINS + 1)
    edges[-1] *= 1 + 1e-9  # rounding must not put the longest sample outside
    edges[0] *= 1 - 1e-9
    counts, _ = np.histogram(length, edges)
    return Figure(
        "pool-lengths",
        "Samples by length",
        f"Histogram of sample lengths from {count(low)} to {count(high)} characters on a logarithmic axis.",
        histogram(counts, edges, x="characters, all messages", log=True),
    )


def _messages(evidence: Evidence) -> Figure:
    turns = evidence.samples.turns
    numbers = sorted(turns)
    shown = numbers if len(numbers) <= _TURNS else numbers[: _TURNS - 1]
    labels, values = [str(number) for number in shown], [turns[number] for number in shown]
    if len(shown) < len(numbers):
        labels.append(f"{numbers[len(shown)]}+")
        values.append(sum(turns[number] for number in numbers[len(shown) :]))
    said = ", ".join(f"{count(value)} with {label}" for label, value in zip(labels, values, strict=True))
    return Figure(
        "pool-messages",
        "Samples by number of messages",
        f"Bars: samples by number of messages; {said}.",
        bars(labels, values, x="messages in the sample"),
    )


def _sources(evidence: Evidence) -> Table:
    samples = evidence.samples
    names, codes = folded(samples.sources, _ROWS)
    code = codes[samples.source]
    rows = []
    for i, name in enumerate(names):
        length = samples.length[code == i]
        share = percent(len(length), len(samples))
        rows.append([name, count(len(length)), share, count(float(np.median(length)))])
    return Table("Samples by source", ["source", "samples", "share", "median characters"], rows)


def _rows_read(facts: Mapping[str, Any]) -> Table | None:
    """Counts of the pool stage by source: rows read, kept, rejected and so on."""
    known = _by_source(facts)
    columns = [key for key in _FATES if any(key in entry for entry in known.values())]
    if not columns:
        return None
    rows = [[name, *(count(entry.get(key)) for key in columns)] for name, entry in known.items()]
    note = "A duplicate has exactly the messages of an earlier row. Rejected rows are in rejects.parquet, with reasons."
    return Table("Rows of each source", ["source", *map(in_words, columns)], rows, note=note)


def _near_copies(pool: Artifact) -> Table | None:
    """Dropped near-copies by their source and that of the kept sample; None if they were not looked for."""
    if "near_copies" not in pool.manifest.facts:
        return None
    dropped = pq.read_table(pool.path("clusters.parquet"), columns=["source", "kept_source", "similarity"])
    grouped = dropped.group_by(["source", "kept_source"]).aggregate([("similarity", "count"), ("similarity", "mean")])
    grouped = grouped.sort_by(
        [("similarity_count", "descending"), ("source", "ascending"), ("kept_source", "ascending")]
    )
    rows = [
        [row["source"], row["kept_source"], count(row["similarity_count"]), f"{row['similarity_mean']:.2f}"]
        for row in grouped.slice(0, _ROWS).to_pylist()
    ]
    if grouped.num_rows > _ROWS:
        others = sum(grouped.slice(_ROWS)["similarity_count"].to_pylist())
        rows.append(["others", "", count(others), ""])
    note = (
        "Each of these samples has almost the text of a sample that is kept. clusters.parquet next to the pool lists "
        "all of them. Similarity: shared n-grams of both texts, divided by all their n-grams."
    )
    title = "Samples dropped as near-copies" if rows else "No sample was dropped as a near-copy"
    return Table(title, ["source", "source of the kept sample", "dropped", "mean similarity"], rows, note=note)


def _guessed(facts: Mapping[str, Any]) -> Table | None:
    """Text files that are not UTF-8 with commas, by source and by how they were read."""
    entries = _by_source(facts).items()
    rows = [[name, how, count(files)] for name, entry in entries for how, files in entry.get("guessed", {}).items()]
    if not rows:
        return None
    note = "A likely encoding was guessed from the text and may show wrong characters; the source's `encoding` sets it."
    return Table("Files whose encoding or delimiter was guessed", ["source", "read with", "files"], rows, note=note)


def _fields_not_read(facts: Mapping[str, Any]) -> Table | None:
    """Fields that are not part of the conversations, by source; those whose loss affects most samples first."""
    rows = []
    for name, entry in _by_source(facts).items():
        lost = entry.get("fields_lost", {})
        fields = sorted(entry.get("fields_not_read", {}).items(), key=lambda item: (-lost.get(item[0], 0), -item[1]))
        rows += [[name, field, count(samples), count(lost.get(field, 0))] for field, samples in fields[:_ROWS]]
    if not rows:
        return None
    note = "Lost in: samples in which the field changes what a model learns, such as a system prompt or a weight."
    return Table("Fields that are not read", ["source", "field", "samples that have it", "lost in"], rows, note=note)


def _by_source(facts: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    sources = facts.get("sources")
    entries = sources.items() if isinstance(sources, Mapping) else ()
    return {name: entry for name, entry in entries if isinstance(entry, Mapping)}
