"""The subsets: the contents of each, and their overlap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tamis.reporting.blocks import Cell, Figure, Figures, KeyFigure, Section, Table, Text
from tamis.reporting.charts import category_colours, ranges, scale_colours, stacked
from tamis.reporting.evidence import Evidence
from tamis.reporting.numbers import DASH, count, decimal, listed, percent, plural, shortened
from tamis.reporting.outcomes import Subset
from tamis.reporting.raters import Curated
from tamis.reporting.samples import CLASSES
from tamis.reporting.sections import picks
from tamis.reporting.sections.shared import folded, shares

_PARTS = 8  # sources or groups shown separately in a plot: as many as there are colours
_WHOLE = "whole pool"
_ROW, _FRAME = 28, 52  # pixels of a plot: per row, and for legend and margins


def build(evidence: Evidence) -> Section:
    """Size, mix of scores, sources and groups, lengths, diversity, overlap, mean truth."""
    section = Section("subsets", "Subsets")
    subsets = evidence.subsets
    if not subsets:
        return section
    sizes = sorted(len(subset.positions) for subset in subsets)
    extent = count(sizes[0]) if sizes[0] == sizes[-1] else f"{count(sizes[0])} to {count(sizes[-1])}"
    section.clause = f"{plural(len(subsets), 'subset')} of {extent} samples"
    section.key_figures.append(KeyFigure(count(len(subsets)), "subset" if len(subsets) == 1 else "subsets"))
    names = listed([subset.name for subset in subsets])
    share = (
        percent(sizes[0], len(evidence.samples))
        if sizes[0] == sizes[-1]
        else f"{percent(sizes[0], len(evidence.samples))} to {percent(sizes[-1], len(evidence.samples))}"
    )
    section.add(
        Text(f"{plural(len(subsets), 'subset')} of {extent} samples, {share} of the pool: {names}.", lead=True),
        _overview(evidence, section),
        Figures(_figures(evidence)),
    )
    if evidence.samples.groups:
        section.add(_groups(evidence))
    if len(subsets) > 1:
        section.add(_overlap(subsets, section))
    section.add(*picks.blocks(evidence))
    return section


def _rows(evidence: Evidence) -> list[tuple[str, str, NDArray[np.int64]]]:
    """Name, strategy and positions of the whole pool and of every subset."""
    return [
        (_WHOLE, "", np.arange(len(evidence.samples))),
        *((subset.name, subset.strategy, subset.positions) for subset in evidence.subsets),
    ]


def _overview(evidence: Evidence, section: Section) -> Table:
    samples, curation = evidence.samples, evidence.curation
    raters = list(curation.raters.values()) if curation else []
    predicted = {subset.name: subset.artifact.manifest.facts.get("predicted") for subset in evidence.subsets}
    some_predicted = any(predicted.values())
    unscored = {subset.name: _not_scored(subset) for subset in evidence.subsets}
    some_unscored = any(unscored.values())
    rows: list[list[Cell | str]] = []
    for name, strategy, positions in _rows(evidence):
        section.measured(name, "samples", len(positions))
        length = float(np.median(samples.length[positions])) if len(positions) else None
        section.measured(name, "median length in characters", length)
        row: list[Cell | str] = [name, strategy or DASH, count(len(positions)), count(length)]
        if some_predicted:
            row.append(count(predicted.get(name)))
        if predicted.get(name):
            section.measured(name, "samples never rated, with a predicted class", predicted[name])
        if some_unscored:
            left = unscored.get(name, {})
            row.append(count(sum(left.values())) if left else DASH)
            for reason, number in left.items():
                section.measured(name, f"samples without a score, {reason}", number)
        for rater in raters:
            mean, _ = _mean(np.where(rater.score >= 0, rater.score, np.nan)[positions])
            row.append(decimal(mean))
            section.measured(name, f"mean curated class by {rater.rater}", mean)
        if curation:
            mean, _ = _mean(curation.diversity[positions])
            row.append(decimal(mean, 3))
            section.measured(name, "mean diversity", mean)
        if samples.grade is not None:
            mean, error = _mean(samples.grade[positions])
            row.append(DASH if mean is None else f"{decimal(mean)} ± {decimal(error)}")
            section.measured(name, f"mean {evidence.settings.truth}", mean, stderr=error)
        rows.append(row)
    columns = ["subset", "strategy", "samples", "median characters"]
    columns += ["never rated"] if some_predicted else []
    columns += ["not scored"] if some_unscored else []
    columns += [f"mean class, {rater.rater}" for rater in raters]
    columns += ["mean diversity"] if curation else []
    notes = []
    if some_predicted:
        notes.append("Never rated: samples that were picked by a predicted class.")
    if some_unscored:
        reasons = {(reason, number) for left in unscored.values() for reason, number in left.items()}
        listing = listed([f"{count(number)} {reason}" for reason, number in sorted(reasons)])
        notes.append(f"Not scored: samples that could not be picked because they have no score: {listing}.")
    if samples.grade is not None:
        columns.append(f"mean {evidence.settings.truth}")
        notes.append(f"Mean {evidence.settings.truth} over the samples that have one, ± its standard error.")
    return Table("Subsets and the whole pool", columns, rows, words=("strategy",), note=" ".join(notes))


def _not_scored(subset: Subset) -> dict[str, int]:
    """The number of the pool's samples without the score that the strategy ranks by, by reason."""
    reasons = subset.artifact.manifest.facts.get("not_scored") or {}
    return {reason.replace("_", " "): number for reason, number in reasons.items() if number}


def _mean(values: NDArray[np.generic]) -> tuple[float | None, float | None]:
    """Mean and its standard error over the values that are known."""
    known = np.asarray(values, float)
    known = known[~np.isnan(known)]
    if not len(known):
        return None, None
    return float(known.mean()), float(known.std(ddof=1) / np.sqrt(len(known))) if len(known) > 1 else None


def _figures(evidence: Evidence) -> list[Figure]:
    samples = evidence.samples
    rows = _rows(evidence)
    labels = [name for name, _, _ in rows]
    figures = [_scores(rater, rows, slug) for rater, slug in _rated(evidence)]
    if len(samples.sources) > 1:
        figures.append(_mix("source", "By source, in percent", samples.sources, samples.source, rows))
    if len(samples.groups) > 1:
        title = f"By {evidence.settings.group}, in percent"
        figures.append(_mix("group", title, samples.groups, samples.group, rows))
    lengths = [np.percentile(np.maximum(samples.length[p], 1), [10, 25, 50, 75, 90]) for _, _, p in rows if len(p)]
    named = [name for name, _, p in rows if len(p)]
    said = "; ".join(f"{name} {count(q[2])}" for name, q in zip(named, lengths, strict=True))
    figures.append(
        Figure(
            "subset-lengths",
            "Characters: median, middle half, 10th to 90th percentile",
            f"Median length in characters: {said}.",
            ranges(named, np.array(lengths), x="characters"),
            height=_FRAME + _ROW * len(labels),
        )
    )
    return figures


def _rated(evidence: Evidence) -> list[tuple[Curated, str]]:
    raters = evidence.curation.raters if evidence.curation else {}
    return [(rater, evidence.rater_slugs[name]) for name, rater in raters.items()]


def _scores(rater: Curated, rows: list[tuple[str, str, NDArray[np.int64]]], slug: str) -> Figure:
    mix = np.array([_counts(rater.score[positions], CLASSES) for _, _, positions in rows])
    top = "; ".join(
        f"{name} {percent(part[-2:].sum(), part.sum(), 0)}" for (name, _, _), part in zip(rows, mix, strict=True)
    )
    return Figure(
        f"subset-scores-{slug}",
        f"Curated score classes by {rater.rater}, in percent",
        f"Stacked bars of curated score classes. In classes 4 and 5: {top}.",
        stacked([name for name, _, _ in rows], shares(mix), [str(i) for i in range(CLASSES)], scale_colours(CLASSES)),
        height=_FRAME + _ROW * len(rows),
    )


def _mix(
    kind: str,
    caption: str,
    names: list[str],
    codes: NDArray[np.int32],
    rows: list[tuple[str, str, NDArray[np.int64]]],
) -> Figure:
    parts, new = folded(names, _PARTS)
    mix = np.array([_counts(new[codes[positions]], len(parts)) for _, _, positions in rows])
    said = "; ".join(
        f"{name} most from {parts[int(np.argmax(part))]}" for (name, _, _), part in zip(rows, mix, strict=True)
    )
    columns = 3 if max(len(part) for part in parts) < 12 else 2
    return Figure(
        f"subset-{kind}s",
        caption,
        f"Stacked bars by {kind}: {said}.",
        stacked(
            [name for name, _, _ in rows],
            shares(mix),
            [shortened(part, 18) for part in parts],
            category_colours(len(parts)),
            legend=columns,
        ),
        height=_FRAME + _ROW * len(rows) + 16 * (-(-len(parts) // columns) - 1),
    )


def _counts(codes: NDArray[np.generic], size: int) -> NDArray[np.int64]:
    whole = np.asarray(codes, np.int64)
    return np.bincount(whole[whole >= 0], minlength=size)[:size]


def _groups(evidence: Evidence) -> Table:
    """Samples of each group in each subset, with the share of the group that is in the subset."""
    samples = evidence.samples
    names, new = folded(samples.groups, 30)
    code = new[samples.group]
    taken = [_counts(code[subset.positions], len(names)) for subset in evidence.subsets]
    whole = _counts(code, len(names))
    rows = [
        [
            name,
            count(int(whole[i])),
            *(f"{count(int(part[i]))} ({percent(int(part[i]), int(whole[i]), 0)})" for part in taken),
        ]
        for i, name in enumerate(names)
    ]
    columns = [str(evidence.settings.group), "pool", *(subset.name for subset in evidence.subsets)]
    note = "In brackets: the share of the group's samples that are in the subset."
    return Table(f"Samples by {evidence.settings.group} in each subset", columns, rows, note=note)


def _overlap(subsets: list[Subset], section: Section) -> Table:
    """Jaccard index of every two subsets: shared samples divided by samples in either."""
    sets = [np.unique(subset.positions) for subset in subsets]
    rows: list[list[Cell | str]] = []
    for i, one in enumerate(sets):
        row: list[Cell | str] = [subsets[i].name]
        for j, other in enumerate(sets):
            shared = len(np.intersect1d(one, other, assume_unique=True))
            index = shared / max(len(one) + len(other) - shared, 1)
            row.append(Cell(decimal(index), "muted" if i == j else "", f"{count(shared)} samples in both"))
            if i < j:
                pair = f"{subsets[i].name} and {subsets[j].name}"
                section.measured(pair, "Jaccard index", index)
                section.measured(pair, "shared samples", shared)
        rows.append(row)
    note = "Jaccard index: samples in both subsets divided by samples in either. 0: none shared, 1: the same samples."
    return Table("Overlap of the subsets", ["subset", *(subset.name for subset in subsets)], rows, note=note)
