"""What is known of the samples without a model: distributions by source, and samples from the tails."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tamis.core.ids import unpack
from tamis.reporting.blocks import Block, Figure, Figures, Heading, Listing, Sample, Section, Table, Text
from tamis.reporting.charts import histogram
from tamis.reporting.evidence import Evidence
from tamis.reporting.numbers import DASH, count, decimal, listed, percent, plural
from tamis.reporting.samples import read_texts
from tamis.reporting.sections.shared import folded, in_words
from tamis.reporting.signals import Numbers, Signals, Words

_SOURCES = 6  # columns of sources; the rest is one more
_VALUES = 12  # rows of a table of texts
_SHOWN = 8  # samples of each tail
_BINS = 24
_WIDE = 60  # from this value on the axis is logarithmic
_SAME = 0.99  # if more samples have the same value, the histogram would be a single bar
_PART = 220  # characters of a text that are shown from its beginning, and from its end


def build(evidence: Evidence) -> Section:
    """Lead, distributions, values by source, examples."""
    section = Section("signals", "Signals")
    signals = evidence.signals
    if signals is None:
        return section
    names, codes = folded(evidence.samples.sources, _SOURCES + 1)
    source = codes[evidence.samples.source]
    varied = [one for one in signals.numbers if len(one.known) and one.known.min() < one.known.max()]
    section.add(Text(_lead(signals, len(evidence.samples)), lead=True))
    if figures := [_distribution(one) for one in varied if not one.truth and _spreads(one)]:
        section.add(Figures(figures))
    if varied:
        section.add(_by_source(varied, names, source))
    section.add(*(_words_by_source(one, names, source) for one in signals.words if one.names))
    constant = [in_words(one.name) for one in signals.numbers if len(one.known) and one.known.min() == one.known.max()]
    if constant:
        section.add(Text(f"The same for all samples that have a value, so not shown: {listed(constant)}."))
    section.add(*_examples(signals, evidence))
    for one in signals.numbers:
        if len(one.known):
            measure = f"{in_words(one.name)}, {'share' if one.truth else 'mean'}"
            section.measured("pool", measure, float(one.known.mean()), n=len(one.known))
            for number, name in enumerate(names):
                known = _known(one.values[source == number])
                if len(known):
                    section.measured(f"source {name}", measure, float(known.mean()), n=len(known))
    return section


def _lead(signals: Signals, n: int) -> str:
    said = []
    for one in signals.words:
        if one.names:
            known = one.codes >= 0
            first = percent(int((one.codes == 0).sum()), n)
            without = percent(n - int(known.sum()), n)
            said.append(f"The most frequent {in_words(one.name)} is {one.names[0]} ({first}); {without} have none.")
    flags = [(one, int(one.known.sum())) for one in signals.numbers if one.truth and one.direction == "lower"]
    found = [f"{in_words(one.name)} {count(number)} ({percent(number, n)})" for one, number in flags]
    if found:
        said.append(f"Samples with a sign of a fault: {listed(found)}.")
    return " ".join(said) or f"Signals of {plural(n, 'sample')}."


def _spreads(one: Numbers) -> bool:
    _, counts = np.unique(one.known, return_counts=True)
    return bool(counts.max() <= _SAME * len(one.known))


def _distribution(one: Numbers) -> Figure:
    known = one.known.astype(np.float64) * (100 if one.share else 1)
    low, high = float(known.min()), float(known.max())
    log = not one.share and high > _WIDE
    if one.share:
        edges = np.linspace(0, 100, _BINS + 1)
    elif log:
        known, low = np.maximum(known, 1), max(low, 1.0)
        edges = np.geomspace(low, max(high, 2 * low), _BINS + 1)
    else:
        edges = np.arange(np.floor(low) - 0.5, np.ceil(high) + 1)
    edges[[0, -1]] += (-1e-9 * abs(edges[0]) - 1e-12, 1e-9 * abs(edges[-1]) + 1e-12)
    counts, _ = np.histogram(known, edges)
    label = in_words(one.name)
    return Figure(
        f"signals-{one.name.replace('_', '-')}",
        f"{label[0].upper()}{label[1:]}: {one.about}",
        f"Histogram of {label} from {_value(one, float(one.known.min()))} to {_value(one, float(one.known.max()))}.",
        histogram(counts, edges, x="share in %" if one.share else one.unit, log=log),
    )


def _by_source(columns: list[Numbers], names: list[str], source: NDArray[np.int64]) -> Table:
    everything = np.ones(len(source), bool)
    masks = [everything, *(source == number for number in range(len(names)))] if len(names) > 1 else [everything]
    heads = ["all", *names] if len(names) > 1 else ["all"]
    rows = [[f"{in_words(one.name)} ({one.unit})", *(_typical(one, mask) for mask in masks)] for one in columns]
    note = (
        "Numbers: median, with the 5th and the 95th percentile. Shares: mean, with the 95th percentile. "
        "Yes or no: share of the samples."
    )
    return Table("Signals by source", ["signal", *heads], rows, note=note)


def _typical(one: Numbers, mask: NDArray[np.bool_]) -> str:
    known = _known(one.values[mask])
    if not len(known):
        return DASH
    if one.truth:
        return percent(float(known.mean()), digits=2)
    if one.share:
        return f"{percent(float(known.mean()))} (to {percent(float(np.quantile(known, 0.95)), digits=0)})"
    low, middle, high = np.quantile(known, [0.05, 0.5, 0.95])
    return f"{count(middle)} ({count(low)} to {count(high)})"


def _words_by_source(one: Words, names: list[str], source: NDArray[np.int64]) -> Table:
    values, place = folded(one.names, _VALUES)
    codes = np.where(one.codes < 0, len(values), place[one.codes])
    table = np.zeros((len(values) + 1, len(names)), np.int64)
    np.add.at(table, (codes, source), 1)
    rows = [
        [value, count(int(line.sum())), percent(int(line.sum()), len(source)), *map(count, line.tolist())]
        for value, line in zip([*values, "(none)"], table, strict=True)
    ]
    label = in_words(one.name)
    return Table(
        f"{label[0].upper()}{label[1:]} by source", [label, "samples", "share", *names], rows, note=f"{one.about}."
    )


def _examples(signals: Signals, evidence: Evidence) -> Iterator[Block]:
    """Samples from the tails of the columns that have one, and samples in other languages than the first."""
    shown = min(_SHOWN, evidence.settings.examples)
    tails = {one.name: _tail(one, shown) for one in signals.numbers if one.tail and shown}
    rare = {one.name: _spread(np.flatnonzero(one.codes > 0), shown) for one in signals.words if shown}
    rows = np.unique(np.concatenate([*tails.values(), *rare.values()] or [np.empty(0, np.int64)]))
    if not len(rows):
        return
    ids = dict(zip(rows.tolist(), _ids(evidence, rows), strict=True))
    texts = read_texts(evidence.pool, ids.values())

    def sample(row: int, mark: str) -> Sample:
        source, instruction, response = texts[ids[row]]
        return Sample(mark, [source], _ends(instruction), _ends(response))

    yield Heading("Examples", "signals-examples")
    for one in signals.numbers:
        if len(tail := tails.get(one.name, rows[:0])):
            label, number = in_words(one.name), int((one.known > 0).sum())
            about = f"{one.about[0].upper()}{one.about[1:]}."
            if one.truth:
                title = f"{label[0].upper()}{label[1:]}: {len(tail)} of {plural(number, 'sample')}"
            else:
                title = f"{label[0].upper()}{label[1:]}: the highest {count(len(tail))}"
            yield Listing(title, [sample(row, _value(one, float(one.values[row]))) for row in tail.tolist()], about)
    for words in signals.words:
        if len(tail := rare.get(words.name, rows[:0])):
            number = int((words.codes > 0).sum())
            label = in_words(words.name).capitalize()
            title = f"{label} other than {words.names[0]}: {len(tail)} of {plural(number, 'sample')}"
            yield Listing(
                title, [sample(row, words.names[words.codes[row]]) for row in tail.tolist()], f"{words.about}."
            )


def _tail(one: Numbers, shown: int) -> NDArray[np.int64]:
    """Rows with the highest values above 0; of truth values, rows from all over the pool."""
    rows = np.flatnonzero(np.nan_to_num(one.values) > 0)
    if one.truth:
        return _spread(rows, shown)
    return rows[np.argsort(-one.values[rows], kind="stable")[:shown]]


def _spread(rows: NDArray[np.int64], shown: int) -> NDArray[np.int64]:
    return rows if len(rows) <= shown else rows[np.linspace(0, len(rows) - 1, shown).astype(np.int64)]


def _ids(evidence: Evidence, rows: NDArray[np.int64]) -> list[str]:
    ids: list[str] = unpack(evidence.samples.keys_at(rows)).to_pylist()
    return ids


def _known(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values[~np.isnan(values)]


def _value(one: Numbers, value: float) -> str:
    if one.truth:
        return "yes" if value else "no"
    return percent(value, digits=0) if one.share else count(value) if value == round(value) else decimal(value, 2)


def _ends(text: str) -> str:
    """The beginning and the end of a text, because faults may be in either."""
    return text if len(text) <= 2 * _PART else f"{text[:_PART]} […] {text[-_PART:]}"
