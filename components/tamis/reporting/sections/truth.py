"""Raw and curated scores compared with known grades: are the ratings informative, and did curation help?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tamis.core.reliability import reliability
from tamis.reporting.blocks import Cell, Figure, Figures, Heading, KeyFigure, Section, Table, Text, Tone, Warnings
from tamis.reporting.charts import dots, heat_map
from tamis.reporting.evidence import Evidence
from tamis.reporting.numbers import DASH, count, decimal, listed, plural, signed, span
from tamis.reporting.raters import Curated
from tamis.reporting.samples import CLASSES
from tamis.reporting.sections import calibration, checked
from tamis.reporting.sections.shared import few, shares
from tamis.reporting.statistics import RESAMPLES, Comparison, Estimate, compare, joint_counts

_LABELS = [str(score) for score in range(CLASSES)]


def build(evidence: Evidence) -> Section:
    """Mean absolute error and rank correlation before and after curation, with bootstrap intervals."""
    field = evidence.settings.truth
    section = Section("truth", "Truth")
    if field is None:
        return section
    if evidence.curation is None:
        section.add(Text(f"No scores were compared with '{field}': there is no curation.", lead=True))
        return section
    known = int(np.count_nonzero(evidence.truth >= 0))
    compared = {}
    for rater in evidence.curation.raters.values():
        result = compare(joint_counts(rater.raw, rater.score, evidence.truth, classes=CLASSES))
        if result is None:
            section.add(Text(f"No sample that {rater.rater} rated has a '{field}'."))
        else:
            compared[rater.rater] = result
    if not compared:
        return section
    known_to_curation = _given_to_curation(evidence) == field
    if not known_to_curation:
        section.sentence = _in_short(field, compared)
    section.blocks[:0] = [
        Text(f"{name}: {_on_rater(result)} {_on_curation(result)}", lead=True) for name, result in compared.items()
    ]
    if known_to_curation:
        section.blocks[:0] = [
            Warnings(
                [
                    f"Curation used '{field}' as human grades. The curated scores of these samples depend on their own "
                    "grades, so they look better here than other scores are. For held-out grades, see the section "
                    "Curation."
                ]
            )
        ]
    lowest, highest = evidence.score_range
    section.add(
        Text(
            f"{count(known)} of {plural(len(evidence.samples), 'sample')} have a '{field}', which becomes a score "
            f"class like a rating (up to {lowest} is class 0, {highest} or more is class {highest - lowest}). "
            "A mean absolute error of 0 is perfect. A rank correlation (Spearman) of 1 is perfect, and 0 is none. "
            f"Intervals are 95 %, from {count(RESAMPLES)} bootstrap resamples of the samples."
        ),
        Figures([_errors(compared), _correlations(compared)]),
        _table(compared),
    )
    for name, rater in evidence.curation.raters.items():
        if name in compared:
            section.add(Heading(name, f"truth-{evidence.rater_slugs[name]}"))
            _describe(rater, evidence, section)
    for name, result in compared.items():
        for measure, estimate in _estimates(result).items():
            section.measured(name, measure, _or_none(estimate.value), interval=_interval(estimate), n=result.n)
        section.measured(name, "mean absolute error of a constant guess", result.guess_error, n=result.n)
    if len(compared) == 1 and not known_to_curation:
        (result,) = compared.values()
        change = f"{decimal(result.raw_error.value)} to {decimal(result.curated_error.value)}"
        section.key_figures.append(KeyFigure(change, "mean absolute error, raw to curated"))
    return section


def _given_to_curation(evidence: Evidence) -> str | None:
    """The field of the pool that curation used as human grades."""
    config = evidence.curation.artifact.manifest.config if evidence.curation else {}
    grades = config.get("grades")
    return grades.get("column") if isinstance(grades, Mapping) else None


def _describe(rater: Curated, evidence: Evidence, section: Section) -> None:
    """Heat maps of a rater's classes and, if the curation has confidences, their calibration."""
    figures, judge = _maps(rater, evidence), f"'{evidence.settings.truth}'"
    here = (rater.raw >= 0) & (rater.score >= 0) & (evidence.truth >= 0)
    found = None
    if checked.has_probabilities(rater):
        found = reliability(rater.confidence[here], rater.score[here] == evidence.truth[here])
    if found is None:
        section.add(Figures(figures))
        return
    figures.append(calibration.figure(f"truth-reliability-{evidence.rater_slugs[rater.rater]}", found, judge=judge))
    section.add(Figures(figures), Text(calibration.in_words(found, judge=judge)))
    calibration.measure(section, rater.rater, found, judge=judge)


def _on_rater(result: Comparison) -> str:
    """Whether the rater's own ratings are informative about the truth."""
    raw = result.raw_correlation
    interval = f"{decimal(raw.value)}, 95 % interval {span(raw.low, raw.high)}"
    if not raw.known:
        said = "the raw ratings are (almost) constant, so they do not rank the samples."
    elif raw.includes_zero:
        said = (
            f"these {count(result.n)} samples do not show that the raw ratings rank samples better than chance (rank "
            f"correlation {interval}, which includes zero)."
        )
    elif raw.value < 0:
        said = f"the raw ratings rank the samples in the wrong direction (rank correlation {interval})."
    else:
        said = f"the raw ratings carry information about the truth (rank correlation {interval})."
    if result.raw_error.value >= result.guess_error:
        said += (
            f" Always guessing class {result.guess} would give a mean absolute error of {decimal(result.guess_error)}, "
            f"no more than that of the raw ratings ({decimal(result.raw_error.value)})."
        )
    return said


def _on_curation(result: Comparison) -> str:
    """What curation did to the error, and no more than the interval allows."""
    raw, curated, change = result.raw_error.value, result.curated_error.value, result.error_difference
    numbers = f"from {decimal(raw)} to {decimal(curated)}"
    interval = f"95 % interval of the change {signed(change.low)} to {signed(change.high)}"
    if not change.known:
        return f"The mean absolute error changed {numbers}; {count(result.n)} samples are too few for an interval."
    if raw == curated and change.low == change.high == 0:
        return "Curation changed no score that has a known grade."
    if change.includes_zero:
        return (
            f"The mean absolute error changed {numbers} ({interval}): the interval includes zero, so curation is shown "
            "neither to help nor to harm."
        )
    if change.value > 0:
        return f"Curation made the scores worse: the mean absolute error rose {numbers} ({interval})."
    return f"Curation improved the scores: the mean absolute error fell {numbers} ({interval})."


def _in_short(field: str, compared: dict[str, Comparison]) -> str:
    """A sentence on the effect on each rater's error, and one on raters that rank no better than chance."""
    parts = []
    for verb, sign in (("lowered", -1), ("raised", 1)):
        changed = [
            f"{name} ({decimal(result.raw_error.value)} to {decimal(result.curated_error.value)})"
            for name, result in compared.items()
            if not result.error_difference.includes_zero and result.error_difference.value * sign > 0
        ]
        if changed:
            parts.append(f"{verb} the mean absolute error of {listed(changed)}")
    same = [name for name, result in compared.items() if result.error_difference.includes_zero]
    if same:
        parts.append(f"had no demonstrable effect on the error of {listed(same)}")
    chance = [name for name, result in compared.items() if result.raw_correlation.includes_zero]
    blind = f" Ratings by {listed(chance)} are not shown to rank samples better than chance." if chance else ""
    return f"Compared with '{field}', curation {listed(parts)}.{blind}"


def _estimates(result: Comparison) -> dict[str, Estimate]:
    return {
        "raw mean absolute error": result.raw_error,
        "curated mean absolute error": result.curated_error,
        "change of mean absolute error": result.error_difference,
        "raw Spearman": result.raw_correlation,
        "curated Spearman": result.curated_correlation,
        "change of Spearman": result.correlation_difference,
    }


def _or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _interval(estimate: Estimate) -> tuple[float, float] | None:
    return estimate.interval if estimate.known else None


def _table(compared: dict[str, Comparison]) -> Table:
    rows: list[list[Cell | str]] = []
    for name, result in compared.items():
        for scores, error, correlation in (
            ("raw", result.raw_error, result.raw_correlation),
            ("curated", result.curated_error, result.curated_correlation),
        ):
            rows.append(
                [
                    f"{name}, {scores}",
                    decimal(error.value),
                    span(*error.interval) if error.known else DASH,
                    decimal(correlation.value) if np.isfinite(correlation.value) else "not defined",
                    span(*correlation.interval) if correlation.known else DASH,
                    count(result.n),
                ]
            )
        error, correlation = result.error_difference, result.correlation_difference
        rows.append(
            [
                f"{name}, change",
                Cell(signed(error.value), _tone(error, better=-1)),
                f"{signed(error.low)} to {signed(error.high)}" if error.known else DASH,
                Cell(
                    signed(correlation.value) if np.isfinite(correlation.value) else DASH, _tone(correlation, better=1)
                ),
                f"{signed(correlation.low)} to {signed(correlation.high)}" if correlation.known else DASH,
                count(result.n),
            ]
        )
        guess = f"always class {result.guess}"
        rows.append([f"{name}'s samples, {guess}", decimal(result.guess_error), DASH, DASH, DASH, count(result.n)])
    columns = ["scores", "mean absolute error", "95 % interval", "Spearman", "95 % interval ", "samples"]
    return Table("Scores compared with the truth", columns, rows)


def _tone(change: Estimate, *, better: int) -> Tone:
    if change.includes_zero:
        return ""
    return "good" if change.value * better > 0 else "bad"


def _errors(compared: dict[str, Comparison]) -> Figure:
    pairs = [(result.raw_error, result.curated_error) for result in compared.values()]
    return _intervals(
        list(compared), pairs, "truth-error", "Mean absolute error (left is better)", "error, in score classes", None
    )


def _correlations(compared: dict[str, Comparison]) -> Figure:
    pairs = [(result.raw_correlation, result.curated_correlation) for result in compared.values()]
    return _intervals(list(compared), pairs, "truth-correlation", "Rank correlation (right is better)", "Spearman", 0.0)


def _intervals(
    raters: Sequence[str],
    pairs: Sequence[tuple[Estimate, Estimate]],
    name: str,
    caption: str,
    x: str,
    reference: float | None,
) -> Figure:
    """Raw (grey) and curated (accent) estimates of every rater with their intervals."""
    estimates = [estimate for pair in pairs for estimate in pair]
    rows = [f"{rater}, {scores}" for rater in raters for scores in ("raw", "curated")]
    said = "; ".join(
        f"{row} {decimal(e.value)}, interval {span(e.low, e.high)}" for row, e in zip(rows, estimates, strict=True)
    )
    ends = [(e.low, e.high) if e.known else (None, None) for e in estimates]
    return Figure(
        name,
        caption,
        f"Dots with 95 % intervals: {said}.",
        dots(
            rows,
            [_or_none(e.value) for e in estimates],
            [low for low, _ in ends],
            [high for _, high in ends],
            x=x,
            reference=reference,
            highlighted=range(1, len(rows), 2),
            empty="not defined",
        ),
        height=70 + 30 * len(rows),
    )


def _maps(rater: Curated, evidence: Evidence) -> list[Figure]:
    """True class against raw and against curated class; colours by the share of the true class."""
    slug, field = evidence.rater_slugs[rater.rater], evidence.settings.truth
    figures = []
    for kind, scores in (("raw", rater.raw), ("curated", rater.score)):
        table = joint_counts(evidence.truth, np.where(rater.raw >= 0, scores, -1), classes=CLASSES)
        right = int(np.trace(table))
        figures.append(
            Figure(
                f"truth-{kind}-{slug}",
                f"Samples by true and {kind} class",
                f"Heat map of samples by true and {kind} class; {count(right)} of {count(int(table.sum()))} are equal.",
                heat_map(
                    shares(table),
                    [[few(v) for v in row] for row in table],
                    rows=_LABELS,
                    columns=_LABELS,
                    y=f"class of '{field}'",
                    x=f"{kind} class",
                ),
                height=300,
            )
        )
    return figures
