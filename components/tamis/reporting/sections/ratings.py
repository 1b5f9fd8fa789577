"""The ratings of each rater, and the agreement of the raters."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from tamis.core.scales import Scale, classes_in_words, scale_of
from tamis.core.tables import POSSIBLE
from tamis.reporting.blocks import Figure, Figures, KeyFigure, Section, Table, Text
from tamis.reporting.charts import bars
from tamis.reporting.evidence import Evidence
from tamis.reporting.numbers import DASH, count, decimal, listed, percent, plural
from tamis.reporting.raters import Ratings
from tamis.reporting.statistics import joint_counts, mean_absolute_error, pearson

_STATUS = {
    "unparsable": "answer could not be read",
    "refused": "rater refused",
    "too_long": "sample too long",
    "failed": "request failed",
    "missing": "no rating in the file",
    "not_asked": "not asked: outside the rater's sample",
    "absent": "no row in the ratings",
}
_REASONS = 10  # most frequent reasons shown for each rater


def build(evidence: Evidence) -> Section:
    """Histograms of the overall rating, what was not rated and why, agreement."""
    section = Section("ratings", "Ratings")
    raters = evidence.ratings
    if not raters:
        return section
    given, unrated = sum(r.rated for r in raters), sum(len(r.overall) - r.rated for r in raters)
    spared = sum(r.statuses["not_asked"] for r in raters)
    missing = f", {count(unrated - spared)} missing" if unrated > spared else ""
    left_out = f", {count(spared)} not requested" if spared else ""
    section.clause = f"{count(given)} ratings by {plural(len(raters), 'rater')}{missing}{left_out}"
    section.key_figures.append(KeyFigure(count(len(raters)), "rater" if len(raters) == 1 else "raters"))
    section.add(
        Text(" ".join(_lead(rater) for rater in raters), lead=True),
        *([Text(scales)] if (scales := _scales(raters, *evidence.score_range)) else []),
        Figures([_histogram(rater, evidence.rater_slugs[rater.rater]) for rater in raters]),
        _overview(raters),
    )
    reasons = _reasons(raters)
    if reasons.rows:
        section.add(reasons)
    if len(raters) > 1:
        section.add(_agreement(raters, section))
    for rater in raters:
        section.measured(rater.rater, "samples rated", rater.rated, n=len(rater.overall))
        section.measured(rater.rater, "mean overall rating", rater.means.get("overall"), n=rater.rated)
        if rater.expected is not None:
            section.measured(rater.rater, "mean expected score", rater.expected)
        for status, amount in sorted(rater.statuses.items()):
            section.measured(rater.rater, f"status {status}", amount)
        for value, amount in enumerate(rater.histogram, 1):
            section.measured(rater.rater, f"ratings of {value}", int(amount))
    return section


def _scales(raters: list[Ratings], lowest: int, highest: int) -> str:
    """Which ratings were given on another scale than they are shown on, and their score classes."""
    given = {rater.rater: str(rater.artifact.manifest.facts.get("scale", Scale())) for rater in raters}
    others = {name: scale for name, scale in given.items() if scale != str(Scale())}
    if not others:
        return ""
    said = "Given on another scale and mapped to 1 to 10 here: "
    said += f"{listed([f'{name} ({scale})' for name, scale in others.items()])}."
    possible = {rater.rater: rater.artifact.manifest.facts.get(POSSIBLE) for rater in raters}
    for name, text in others.items():
        if (scale := scale_of(text)) is not None:
            said += f" Of the scores by {name}, {classes_in_words(scale, possible[name], lowest, highest)}."
    return said


def _lead(rater: Ratings) -> str:
    if not rater.rated:
        return f"{rater.rater} rated no sample."
    top = int(np.argmax(rater.histogram)) + 1
    return (
        f"{rater.rater} rated {count(rater.rated)} of {plural(len(rater.overall), 'sample')}, "
        f"{decimal(rater.means.get('overall'), 1)} on average; its most frequent rating is {top}, given to "
        f"{percent(rater.histogram[top - 1], rater.rated, 0)}."
    )


def _histogram(rater: Ratings, slug: str) -> Figure:
    values = [int(value) for value in rater.histogram]
    said = ", ".join(f"{count(value)} rated {i}" for i, value in enumerate(values, 1) if value)
    unrated = len(rater.overall) - rater.rated
    return Figure(
        f"ratings-{slug}",
        f"{rater.rater}: overall rating",
        f"Bars of the overall ratings by {rater.rater}: {said or 'none'}; {count(unrated)} not rated.",
        bars(
            [*(str(i) for i in range(1, 11)), DASH],
            [*values, unrated],
            x=f"overall rating ({DASH}: not rated)",
            colours=[*["accent"] * 10, "raw"],
        ),
    )


def _overview(raters: list[Ratings]) -> Table:
    criteria = list(dict.fromkeys(name for rater in raters for name in rater.means if name != "overall"))
    own = {name: said for rater in raters for name, said in rater.artifact.manifest.facts.get("criteria", {}).items()}
    rows = [
        [
            rater.rater,
            count(rater.rated),
            percent(rater.rated, len(rater.overall)),
            decimal(rater.means.get("overall")),
            decimal(rater.expected),
            *(decimal(rater.means.get(name)) for name in criteria),
            count(rater.attempts),
            count(rater.tokens) if rater.tokens else DASH,
        ]
        for rater in raters
    ]
    columns = [
        "rater",
        "rated",
        "share",
        "overall",
        "expected",
        *(_named(name, own) for name in criteria),
        "requests",
        "tokens",
    ]
    note = (
        "Means over the rated samples. Expected: the mean score under the rater's token probabilities, if it returns "
        "them. A sample without a rating is never counted as a low score."
    )
    weights = {said["key"]: said["weight"] for said in own.values() if said["weight"]}
    if len(weights) > 1:
        parts = listed([f"{key} ({percent(weight, 1, 0)})" for key, weight in weights.items()])
        note += f" The overall rating is the mean of {parts}, each mapped to 1 to 10."
    elif weights:
        note += f" The overall rating is {next(iter(weights))}, mapped to 1 to 10."
    return Table("Mean ratings", columns, rows, note=note)


def _named(column: str, own: dict[str, Any]) -> str:
    """A criterion by its name in the prompt, with its scale if the column is on it."""
    return f"{own[column]['key']} ({own[column]['scale']})" if column in own else column


def _reasons(raters: list[Ratings]) -> Table:
    rows = []
    for rater in raters:
        named = rater.reasons.copy()
        if rater.statuses["absent"]:
            named["absent", ""] = rater.statuses["absent"]
        ordered = sorted(named.items(), key=lambda item: (-item[1], item[0]))
        for (status, reason), amount in ordered[:_REASONS]:
            said = _STATUS.get(status, status)
            rows.append([rater.rater, said, reason if reason and reason != said else DASH, count(amount)])
        rest = sum(amount for _, amount in ordered[_REASONS:])
        if rest:
            rows.append([rater.rater, "others", f"{len(ordered) - _REASONS} further reasons", count(rest)])
    return Table("Samples without a rating", ["rater", "status", "reason", "samples"], rows, words=("status", "reason"))


def _agreement(raters: list[Ratings], section: Section) -> Table:
    rows = []
    for one, other in combinations(raters, 2):
        # Ratings 1..10 as classes 0..9; samples that one of the raters did not rate become -1 and are left out.
        table = joint_counts(one.overall - 1, other.overall - 1, classes=10)
        n = int(table.sum())
        distance = np.abs(np.subtract.outer(np.arange(10), np.arange(10)))
        exact, within = (float(table[distance <= limit].sum()) / max(n, 1) for limit in (0, 1))
        correlation, error = float(pearson(table)), float(mean_absolute_error(table))
        pair = listed([one.rater, other.rater])
        rows.append(
            [pair, count(n), percent(exact, n and 1), percent(within, n and 1), decimal(error), decimal(correlation)]
        )
        for measure, value in (("exact agreement", exact), ("agreement within one", within), ("Pearson", correlation)):
            section.measured(pair, measure, value if n and np.isfinite(value) else None, n=n)
    columns = ["raters", "both rated", "equal", "within one", "mean distance", "Pearson"]
    return Table("Agreement of overall ratings", columns, rows)
