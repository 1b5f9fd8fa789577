"""How far the curated scores can be trusted, according to human grades or to the model alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tamis.reporting.blocks import Cell, KeyFigure, Section, Table, Tone
from tamis.reporting.diagnoses import HeldOut
from tamis.reporting.numbers import DASH, count, decimal, known, percent, plural, signed, span
from tamis.reporting.raters import Curated
from tamis.reporting.statistics import Estimate

_SHOWN = 2  # raters in the headline
_NO_PROBABILITIES = ("paper", "reference")  # modes whose confidence is no probability that the score is right


def headline(raters: Sequence[Curated], truth: str | None) -> str:
    """A few sentences on how far scores can be trusted: of the combined raters, otherwise of each rater."""
    chosen = [rater for rater in raters if rater.combines] or list(raters)
    said = [text for rater in chosen[:_SHOWN] if (text := in_words(rater, alone=len(raters) == 1, truth=truth))]
    if said and len(chosen) > _SHOWN:
        said.append(f"The section Curation describes {plural(len(chosen) - _SHOWN, 'more rater')}.")
    return " ".join(said)


def in_words(rater: Curated, *, alone: bool, truth: str | None) -> str:
    """How far a rater's scores can be trusted before and after curation; empty if the curation does not say.

    Args:
        rater: the rater, or all raters combined.
        alone: whether it is the only one.
        truth: the field that the report compares scores with, if any.
    """
    findings, whose = rater.findings, _whose(rater, alone)
    if findings.held_out is not None:
        said = _by_grades(findings.held_out, whose, changed=rater.corrected > _by_own_grade(rater))
        return f"{said} {_nothing(rater)}" if findings.explained is False else said
    if findings.explained is False:
        return f"{_nothing(rater, whose)} {settled(findings.advice)}".strip()
    right_raw, right = expected(rater)
    if right_raw is None or right is None:
        return ""
    said = (
        f"The curation model expects {percent(right_raw, digits=0)} of {whose} to be right, and "
        f"{percent(right, digits=0)} after curation"
    )
    error_raw, error = findings.expected("error_raw"), findings.expected("error")
    if error_raw is not None and error is not None:
        said += f" (mean error {decimal(error_raw)} and {decimal(error)} classes)"
    if truth is not None:
        return f"{said}; the section Truth compares the scores with '{truth}'."
    graded = findings.grades.get("graded")
    why = (
        f"none of the {count(int(graded))} graded samples was drawn at random"
        if known(graded) and graded
        else "there are no human grades"
    )
    return f"{said}. This has not been checked: {why}. {settled(findings.advice)}".strip()


def expected(rater: Curated) -> tuple[float | None, float | None]:
    """Shares of ratings that the model itself expects to be right, raw and curated; None if it does not say."""
    findings = rater.findings
    if findings.cases:
        return findings.expected("right_raw"), findings.expected("right")
    sure = rater.confidence[(rater.raw >= 0) & np.isfinite(rater.confidence)]
    if not has_probabilities(rater) or not len(sure):
        return None, None
    return rater.believed, float(sure.mean(dtype=np.float64))


def has_probabilities(rater: Curated) -> bool:
    """Whether the table's confidence is a probability that the score is right."""
    return rater.diagnosis.get("mode") not in _NO_PROBABILITIES


def key_figures(raters: Sequence[Curated]) -> list[KeyFigure]:
    """The share of right scores before and after curation by human grades, of the only rater or of all combined."""
    chosen = [rater for rater in raters if rater.combines] or list(raters)
    held_out = chosen[0].findings.held_out if len(chosen) == 1 else None
    if held_out is None:
        return []
    raw, curated = (percent(e.value, digits=0) for e in (held_out.right.raw, held_out.right.curated))
    return [KeyFigure(f"{raw} to {curated}", f"of scores right, by {count(held_out.graded)} human grades")]


def table(raters: Sequence[Curated]) -> Table | None:
    """Raw and curated scores against the held-out grades, and what curation changed."""
    rows: list[list[Cell | str]] = []
    loose = False
    for rater in raters:
        found = rater.findings.held_out
        if found is None:
            continue
        loose |= not found.weighted
        for name, right, error in (
            ("raw", found.right.raw, found.error.raw),
            ("curated", found.right.curated, found.error.curated),
        ):
            rows.append(
                [
                    f"{rater.rater}, {name}",
                    percent(right.value),
                    _points(right) or DASH,
                    decimal(error.value),
                    span(*error.interval) if error.known else DASH,
                    count(found.graded),
                ]
            )
        right, error = found.right.difference, found.error.difference
        rows.append(
            [
                f"{rater.rater}, change",
                Cell(f"{signed(100 * right.value, 1)} points", _tone(right, better=1)),
                f"{signed(100 * right.low, 0)} to {signed(100 * right.high, 0)}" if right.known else DASH,
                Cell(signed(error.value), _tone(error, better=-1)),
                f"{signed(error.low)} to {signed(error.high)}" if error.known else DASH,
                count(found.graded),
            ]
        )
    if not rows:
        return None
    note = (
        "The grades were held out of the fit, so no score depends on its own grade. The model's predictions for all "
        "samples narrow the intervals if they are good; if they are wrong, the intervals are wider but still valid."
    )
    if loose:
        note += " The grades have no weights, so the graded samples are taken for a random draw from all samples."
    columns = ["scores", "right", "95 % interval", "mean error", "95 % interval ", "grades"]
    return Table("Scores compared with held-out human grades", columns, rows, note=note)


def measure(section: Section, rater: Curated) -> None:
    """The estimates by grades, and what the model expects, for `results.csv`."""
    found = rater.findings.held_out
    if found is not None:
        for what, effect in (("right by grades", found.right), ("mean absolute error by grades", found.error)):
            for name, estimate in (
                (f"raw {what}", effect.raw),
                (f"curated {what}", effect.curated),
                (f"change of {what}", effect.difference),
            ):
                value = estimate.value if np.isfinite(estimate.value) else None
                interval = estimate.interval if estimate.known else None
                section.measured(rater.rater, name, value, interval=interval, n=found.graded)
    for name, share in zip(("raw", "curated"), expected(rater), strict=True):
        if share is not None:
            section.measured(rater.rater, f"{name} right, as the model expects", share, n=rater.rated)


def _whose(rater: Curated, alone: bool) -> str:
    return "the combined ratings" if rater.combines else "the ratings" if alone else f"the ratings by {rater.rater}"


def _nothing(rater: Curated, whose: str = "") -> str:
    """That nothing was corrected, and why."""
    of = f" of {whose}" if whose else ""
    what = f"Curation corrected {'none' if of else 'nothing'}{of}"
    by_grade = _by_own_grade(rater)
    if rater.corrected > by_grade:
        what = (
            f"Curation corrected only {count(rater.corrected)}{of or ' ratings'}, in sources whose own data show errors"
        )
    elif by_grade:
        what += f" except {plural(by_grade, 'graded sample')}, whose grade is now the score"
    why = rater.findings.reasons or ["the neighbours hardly predict the ratings"]
    return f"{what}: {'; '.join(why)}."


def _by_own_grade(rater: Curated) -> int:
    """Number of ratings that were replaced by the sample's own grade."""
    changed = rater.findings.grades.get("scores_changed")
    return int(changed) if isinstance(changed, int) else 0


def settled(advice: Sequence[str]) -> str:
    """The advice as a sentence; empty without advice."""
    return f"What would help: {'; '.join(advice)}." if advice else ""


def _by_grades(found: HeldOut, whose: str, *, changed: bool) -> str:
    """What the grades show, and no more than their intervals allow."""
    right = found.right
    judge = f"According to {plural(found.graded, 'held-out human grade')}"
    said = f"{judge}, {_share(right.raw)} of {whose} are right"
    said += _interval(right.raw, first=True)
    if changed:
        said += f", and after curation {_share(right.curated)}{_interval(right.curated)}; {_change(found)}"
    if not found.weighted:
        said += ". This assumes that the graded samples were drawn at random, which the grades do not say"
    return f"{said}."


def _change(found: HeldOut) -> str:
    error, right = found.error, found.right
    change = error.difference
    if not change.known:
        if change.value == 0:
            return "no graded score's error changed"
        return (
            f"the mean error changed from {decimal(error.raw.value)} to {decimal(error.curated.value)} classes, but "
            "there are too few grades for an interval"
        )
    if change.includes_zero:
        said = (
            f"the grades do not show whether the mean error fell or rose (change {signed(change.value)} classes, 95 % "
            f"interval {signed(change.low)} to {signed(change.high)})"
        )
    elif change.value < 0:
        said = f"the mean error fell by {decimal(-change.value)} classes ({span(-change.high, -change.low)})"
    else:
        said = f"curation made the scores worse: the mean error rose by {decimal(change.value)} classes"
        said += f" ({span(*change.interval)})"
    if not right.difference.includes_zero and right.difference.value < 0:
        low, high = -right.difference.high, -right.difference.low
        points = f"{decimal(-100 * right.difference.value, 0)} points ({span(100 * low, 100 * high, 0)})"
        said += f"; the share of right scores fell by {points}"
    return said


def _share(estimate: Estimate) -> str:
    return percent(estimate.value, digits=0)


def _points(estimate: Estimate) -> str:
    """An interval of a share: 51 to 65 %."""
    return f"{decimal(100 * estimate.low, 0)} to {percent(estimate.high, digits=0)}" if estimate.known else ""


def _interval(estimate: Estimate, *, first: bool = False) -> str:
    points = _points(estimate)
    return f" ({'95 % interval ' if first else ''}{points})" if points else ""


def _tone(change: Estimate, *, better: int) -> Tone:
    if change.includes_zero:
        return ""
    return "good" if change.value * better > 0 else "bad"
