"""Curation: the estimated errors of each rater, and what was changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.reporting.blocks import (
    Cell,
    Correction,
    Corrections,
    Figure,
    Figures,
    Heading,
    KeyFigure,
    Section,
    Table,
    Text,
    Warnings,
)
from tamis.reporting.charts import heat_map, line, paired_bars
from tamis.reporting.evidence import Evidence
from tamis.reporting.numbers import DASH, clipped, count, decimal, known, listed, percent, plural
from tamis.reporting.raters import Curated, TopCorrection
from tamis.reporting.samples import CLASSES, read_texts
from tamis.reporting.sections import calibration, checked, embedded, model, together
from tamis.reporting.sections.shared import few, folded, in_words, number, scalars, shares
from tamis.reporting.sections.transitions import matrix_of, reach_of, transition_map
from tamis.reporting.statistics import joint_counts

_INSTRUCTION, _RESPONSE, _NEIGHBOR = 220, 360, 140  # characters of a correction's texts that are shown
_SOURCES = 30
_NEARLY_SINGULAR = 0.05  # below this smallest singular value of T, several true scores are rated alike
_LABELS = [str(score) for score in range(CLASSES)]


def build(evidence: Evidence) -> Section:
    """Transition matrix, raw against curated counts, flags, agreement of neighbours, corrections."""
    section = Section("curation", "Curation")
    curation = evidence.curation
    if curation is None:
        return section
    raters = list(curation.raters.values())
    alone, combined = ([rater for rater in raters if rater.combines is both] for both in (False, True))
    rated, corrected = sum(r.rated for r in alone), sum(r.corrected for r in alone)
    lowest, highest = evidence.score_range
    section.clause = f"{count(corrected)} of {count(rated)} ratings corrected ({percent(corrected, rated)})"
    section.key_figures.append(KeyFigure(percent(corrected, rated), "of ratings corrected"))
    for rater in combined:
        if rater.corrected:
            differs = f"{count(rater.corrected)} of {count(rater.rated)}"
            section.clause += f", {differs} combined scores differ from the raters' mean"
        else:
            section.clause += f", all {count(rater.rated)} combined scores equal the raters' mean"
    truth = evidence.settings.truth
    section.sentence = checked.headline(raters, truth)
    section.first = any(rater.findings.held_out is not None for rater in raters)
    section.key_figures += checked.key_figures(raters)
    said = {
        rater.rater: checked.in_words(rater, alone=len(raters) == 1, truth=truth)
        for rater in sorted(raters, key=lambda rater: not rater.combines)
    }
    section.add(*(Text(text, lead=True) for text in said.values() if text))
    section.add(
        Text(
            f"Curation changed the score class of {count(corrected)} of {plural(rated, 'rating')} "
            f"({percent(corrected, rated)}). Score classes: a rating up to {lowest} is class 0, {lowest + 1} is 1, "
            f"and so on; {highest} or more is {highest - lowest}.",
            lead=True,
        ),
        _overview(raters),
    )
    read = embedded.table(curation.artifact.manifest.facts)
    tables = (read, checked.table(raters), model.found(raters), model.grades(raters))
    section.add(*(table for table in tables if table is not None), *model.predicted(raters))
    tops = [top for rater in raters for top in rater.top]
    texts = read_texts(evidence.pool, [top.id for top in tops] + [near.id for top in tops for near in top.neighbors])
    if len(raters) > 1:
        together.describe(raters, evidence.rater_slugs, section)
    for rater in raters:
        _describe(rater, evidence, section, texts, said[rater.rater])
    return section


def _overview(raters: list[Curated]) -> Table:
    rows = [
        [
            rater.rater,
            count(rater.rated),
            count(_flagged(rater)),
            percent(_flagged(rater), rater.rated),
            count(rater.corrected),
            percent(rater.corrected, rater.rated),
            str(rater.diagnosis.get("mode", DASH)),
            str(rater.diagnosis.get("k", DASH)),
            number(rater.diagnosis.get("confidence", DASH)),
        ]
        for rater in raters
    ]
    columns = ["rater", "rated", "flagged", "share flagged", "corrected", "share corrected", "mode", "k", "confidence"]
    note = (
        "Flagged: the rating is probably wrong. Corrected: flagged, and the better score is certain enough to replace "
        "it. A flagged rating that is not corrected stays unchanged."
    )
    return Table("Flagged and corrected ratings", columns, rows, words=("mode",), note=note)


def _per_source(diagnosis: Mapping[str, Any]) -> list[Table]:
    """How the sources that were curated separately differ from the whole pool."""
    found = diagnosis.get("sources")
    if not isinstance(found, Mapping) or not found:
        return []
    rows = []
    for name, of in found.items():
        matrix, counts = matrix_of(of.get("T")), of["counts"]
        kept = DASH
        if matrix is not None and of.get("explained") is not False:
            can = reach_of(diagnosis, len(matrix))
            kept = ", ".join(
                percent(value, digits=0) if score in can else DASH for score, value in enumerate(np.diagonal(matrix))
            )
        rows.append([name, count(counts["rated"]), count(counts["corrected"]), number(of["difference"]), kept])
    note = (
        "These sources have their own transition matrices. Difference: the mean distance from the matrix of all "
        "samples. Kept: the share of each true class, 0 to 5, that is rated correctly. A dash: the source's own data "
        "cannot show errors, so it was curated with the model of all samples."
    )
    columns = ["source", "rated", "corrected", "difference of T", "kept"]
    return [Table("Sources curated separately", columns, rows, words=("source", "kept"), note=note)]


def _flagged(rater: Curated) -> int:
    return int(np.count_nonzero(rater.flagged & (rater.raw >= 0)))


def _describe(
    rater: Curated, evidence: Evidence, section: Section, texts: Mapping[str, tuple[str, str, str]], lead: str
) -> None:
    slug, diagnosis = evidence.rater_slugs[rater.rater], rater.diagnosis
    flow = joint_counts(rater.raw, rater.score, classes=CLASSES)
    section.add(Heading(rater.rater, f"curation-{slug}"))
    warnings = [str(text) for text in diagnosis.get("warnings") or ()]
    if warnings:
        section.add(Warnings(warnings))
    section.add(*model.why(rater, lead))
    transition, left = matrix_of(diagnosis.get("T")), matrix_of(diagnosis.get("T_curated"))
    figures = [
        *([_transition(rater, transition, slug)] if transition is not None else []),
        *([_left(rater, left, slug)] if left is not None else []),
        _flow(rater, flow, slug),
        _counts(rater, slug),
        *_by_rank(rater, slug),
        *_joint(rater, slug, evidence),
    ]
    calibrated = rater.findings.held_out.reliability if rater.findings.held_out else None
    if calibrated is not None:
        figures.append(calibration.figure(f"reliability-{slug}", calibrated, judge="human grades"))
        calibration.measure(section, rater.rater, calibrated, judge="human grades")
    section.add(Figures(figures))
    if transition is None:
        section.add(Text("The diagnosis of this rater has no transition matrix."))
    if calibrated is not None:
        section.add(Text(calibration.in_words(calibrated, judge="human grades")))
    sensitivity = model.sensitivity(rater)
    if sensitivity is not None:
        section.add(sensitivity)
    section.add(*_intervals(rater, transition), _by_class(rater, diagnosis), _by_source(rater, evidence))
    section.add(*_per_source(diagnosis))
    if isinstance(diagnosis.get("identifiability"), Mapping) and diagnosis["identifiability"]:
        checks = scalars(_with_findings(diagnosis["identifiability"]))
        if checks:
            rows = [[name, number(value)] for name, value in checks.items()]
            section.add(Table("Do the ratings determine the matrix?", ["check", "result"], rows))
    if rater.top:
        shown = plural(len(rater.top), "correction")
        section.add(
            Text(f"The {shown} with the highest confidence, out of {count(rater.corrected)}:"),
            Corrections([_correction(top, texts, evidence) for top in rater.top]),
        )
    _measure(rater, flow, transition, section)
    checked.measure(section, rater)
    model.measure(section, rater)


def _with_findings(checks: Mapping[str, Any]) -> dict[str, Any]:
    """The checks of T that found something."""
    found = {name: value for name, value in checks.items() if name != "renamed" or value}
    if found.get("smallest_singular_value", 0) >= _NEARLY_SINGULAR:
        del found["smallest_singular_value"]
    return found


def _transition(rater: Curated, matrix: NDArray[np.float64], slug: str) -> Figure:
    title = "Transition matrix T: how this rater rates each true class"
    if rater.diagnosis.get("explained") is False:
        title = "Transition matrix T, uncertain: the neighbours carry too little information to estimate it"
    return transition_map(
        f"transition-{slug}",
        title,
        f"the transition matrix of {rater.rater}",
        matrix,
        reach=reach_of(rater.diagnosis, len(matrix)),
        prior=rater.diagnosis.get("p"),
    )


def _left(rater: Curated, matrix: NDArray[np.float64], slug: str) -> Figure:
    return transition_map(
        f"curated-{slug}",
        "Remaining errors: T of the curated scores, if the model is right",
        f"the transition matrix after curation of {rater.rater}",
        matrix,
        x="curated",
    )


def _joint(rater: Curated, slug: str, evidence: Evidence) -> list[Figure]:
    """Each rater's T in the model of all raters together."""
    found = rater.diagnosis.get("rater_T")
    return [
        transition_map(
            f"joint-{slug}-{evidence.rater_slugs[name]}",
            f"T of {name} in the model of all raters",
            f"the transition matrix of {name} in the model of all raters",
            matrix,
            reach=reach_of(evidence.curation.raters[name].diagnosis, len(matrix)) if evidence.curation else None,
            prior=rater.diagnosis.get("p"),
        )
        for name, value in (found.items() if isinstance(found, Mapping) else ())
        if name in evidence.rater_slugs and (matrix := matrix_of(value)) is not None
    ]


def _flow(rater: Curated, flow: NDArray[np.int64], slug: str) -> Figure:
    moved = [(int(flow[i, j]), i, j) for i in range(CLASSES) for j in range(CLASSES) if i != j and flow[i, j]]
    largest = max(moved, key=lambda item: (item[0], -item[1], -item[2]), default=None)
    said = f"Largest change: {count(largest[0])} from {largest[1]} to {largest[2]}." if largest else "No class changed."
    return Figure(
        f"flow-{slug}",
        "Ratings by raw and curated score class",
        f"Heat map of ratings by raw and curated class. {said}",
        heat_map(
            shares(flow),
            [[few(v) for v in row] for row in flow],
            rows=_LABELS,
            columns=_LABELS,
            y="raw",
            x="curated",
        ),
        height=300,
    )


def _classes(scores: NDArray[np.int8]) -> list[int]:
    return [int(amount) for amount in np.bincount(scores[scores >= 0], minlength=CLASSES)[:CLASSES]]


def _counts(rater: Curated, slug: str) -> Figure:
    raw, curated = _classes(rater.raw), _classes(np.where(rater.raw >= 0, rater.score, -1))
    said = "; ".join(f"class {i} {count(a)} to {count(b)}" for i, (a, b) in enumerate(zip(raw, curated, strict=True)))
    return Figure(
        f"classes-{slug}",
        "Ratings by score class, before and after",
        f"Bars by score class, raw to curated: {said}.",
        paired_bars(_LABELS, {"raw": raw, "curated": curated}, x="score class"),
    )


def _by_rank(rater: Curated, slug: str) -> list[Figure]:
    """Agreement with the neighbour of each rank."""
    clusterability = rater.diagnosis.get("clusterability")
    if isinstance(clusterability, Mapping):
        clusterability = next((value for value in clusterability.values() if isinstance(value, list)), None)
    values = clusterability if isinstance(clusterability, list) else []
    shares_by_rank = [value if known(value) else None for value in values]
    if not any(value is not None for value in shares_by_rank):
        return []
    prior = np.array(_classes(rater.raw)) / max(rater.rated, 1)
    chance = float((prior**2).sum())
    first = next(value for value in shares_by_rank if value is not None)
    return [
        Figure(
            f"neighbours-{slug}",
            "Samples whose neighbour has the same raw score class",
            f"Line of agreement by neighbour rank, {percent(first)} at the nearest; chance gives {percent(chance)}.",
            line(shares_by_rank, x="rank of the neighbour", y="", low=chance),
        )
    ]


def _by_class(rater: Curated, diagnosis: Mapping[str, Any]) -> Table:
    prior, observed = diagnosis.get("p"), diagnosis.get("observed_prior")
    can = reach_of(diagnosis, CLASSES)
    rows = []
    for score, total in enumerate(_classes(rater.raw)):
        here = rater.raw == score
        flagged = int(np.count_nonzero(rater.flagged & here))
        corrected = int(np.count_nonzero(here & (rater.score != rater.raw)))
        after = int(np.count_nonzero((rater.raw >= 0) & (rater.score == score)))
        rows.append(
            [
                str(score),
                *(
                    [percent(_entry(observed, score), 1)]
                    if score in can and known(_entry(observed, score))
                    else [percent(total, rater.rated) if score in can else DASH]
                ),
                percent(_entry(prior, score), 1),
                count(total) if score in can else DASH,
                percent(flagged, total),
                percent(corrected, total),
                count(after),
            ]
        )
    columns = ["score class", "observed", "estimated true", "raw", "flagged", "corrected away", "curated"]
    note = "Estimated true: the share of samples that would have this class if the rater made no errors (the prior p)."
    if len(can) < CLASSES:
        left = listed([str(score) for score in range(CLASSES) if score not in can])
        note += f" The rater's scale has no rating in class {left}."
    return Table("By score class", columns, rows, note=note)


def _intervals(rater: Curated, transition: NDArray[np.float64] | None) -> list[Table]:
    """T with its intervals, if the diagnosis has them."""
    found = rater.diagnosis.get("intervals")
    if transition is None or not isinstance(found, Mapping):
        return []
    low, high = found["T"]
    can = reach_of(rater.diagnosis, len(transition))
    true = [i for i in range(len(transition)) if i in can or (_entry(rater.diagnosis.get("p"), i) or 0) > 0]
    rows = [[str(i), *(_between(transition[i, j], low[i][j], high[i][j]) for j in can)] for i in true]
    columns = ["true class", *(f"rated {j}" for j in can)]
    note = (
        f"In percent, with the model's {percent(found['level'], digits=0)} interval, which does not include errors of "
        "the model itself."
    )
    return [Table("T with intervals", columns, rows, note=note)]


def _between(value: float, low: float, high: float) -> str:
    return f"{100 * value:.0f} ({100 * low:.0f} to {100 * high:.0f})"


def _entry(values: Any, place: int) -> float | None:
    return values[place] if isinstance(values, Sequence) and place < len(values) and known(values[place]) else None


def _by_source(rater: Curated, evidence: Evidence) -> Table:
    """Flagged share by source (and by group, if one is set), with the mean class before and after."""
    samples, rated = evidence.samples, rater.raw >= 0
    kinds = [("source", samples.sources, samples.source)]
    if samples.groups:
        kinds.append((str(evidence.settings.group), samples.groups, samples.group))
    rows: list[list[Cell | str]] = []
    for kind, names, codes in kinds:
        kept, new = folded(names, _SOURCES)
        code = new[codes]
        for i, name in enumerate(kept):
            here = rated & (code == i)
            total = int(np.count_nonzero(here))
            raw, score = (float(np.mean(s[here])) if total else None for s in (rater.raw, rater.score))
            rows.append(
                [
                    name,
                    Cell(in_words(kind), "muted"),
                    count(total),
                    percent(int(np.count_nonzero(rater.flagged & here)), total),
                    percent(int(np.count_nonzero(here & (rater.raw != rater.score))), total),
                    decimal(raw),
                    decimal(score),
                ]
            )
    columns = ["name", "kind", "rated", "flagged", "corrected", "mean raw class", "mean curated class"]
    title = f"By source and {evidence.settings.group}" if samples.groups else "By source"
    return Table(title, columns, rows, words=("kind",))


def _correction(top: TopCorrection, texts: Mapping[str, tuple[str, str, str]], evidence: Evidence) -> Correction:
    source, instruction, response = texts[top.id]
    grade = None if evidence.samples.grade is None else float(evidence.samples.grade[top.position])
    truth = f"{evidence.settings.truth} {number(grade)}" if known(grade) else ""
    return Correction(
        raw=top.raw,
        score=top.score,
        confidence=top.confidence,
        source=source,
        instruction=clipped(instruction, _INSTRUCTION),
        response=clipped(response, _RESPONSE),
        truth=truth,
        neighbors=[
            (DASH if near.raw is None else str(near.raw), near.distance, clipped(texts[near.id][1], _NEIGHBOR))
            for near in top.neighbors
        ],
    )


def _measure(rater: Curated, flow: NDArray[np.int64], transition: NDArray[np.float64] | None, section: Section) -> None:
    name, n = rater.rater, rater.rated
    section.measured(name, "ratings flagged", _flagged(rater), n=n)
    section.measured(name, "ratings corrected", rater.corrected, n=n)
    for score, (raw, curated) in enumerate(zip(flow.sum(1), flow.sum(0), strict=True)):
        section.measured(name, f"raw class {score}", int(raw), n=n)
        section.measured(name, f"curated class {score}", int(curated), n=n)
    if transition is not None:
        can = reach_of(rater.diagnosis, len(transition))
        for i, row in enumerate(transition):
            if i not in can and not _entry(rater.diagnosis.get("p"), i):
                continue
            for j in can:
                section.measured(name, f"T true {i} rated {j}", float(row[j]))
    if known(rater.diagnosis.get("log_likelihood")):
        section.measured(name, "log likelihood", rater.diagnosis["log_likelihood"])
