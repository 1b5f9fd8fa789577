"""Several raters compared: their agreement, and what it says about each rater's matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from tamis.reporting.blocks import Figures, Heading, Section, Table, Text
from tamis.reporting.numbers import count, decimal, percent
from tamis.reporting.raters import Curated
from tamis.reporting.sections.transitions import matrix_of, reach_of, transition_map


def describe(raters: Sequence[Curated], slugs: Mapping[str, str], section: Section) -> None:
    """Add the raters' agreement before and after curation, and T by Dawid and Skene next to T by neighbours."""
    pairs = _agreement(raters)
    if pairs is None:
        return
    section.add(Heading("Raters compared", "curation-raters"), pairs)
    checks = _checks(raters)
    if checks is not None:
        section.add(
            Text(
                "With three or more raters, each rater's matrix can also be estimated from the raters' agreement "
                "alone, without neighbours (Dawid and Skene, 1979). The two estimates rest on different assumptions: "
                "that near samples share their true score, and that raters err independently. If they differ, one of "
                "the assumptions is wrong."
            ),
            checks,
            Figures(
                [
                    transition_map(
                        f"agreed-{slugs[rater.rater]}",
                        f"T of {rater.rater} by the raters' agreement alone",
                        f"the transition matrix of {rater.rater} by Dawid and Skene",
                        matrix,
                        reach=reach_of(rater.diagnosis, len(matrix)),
                        prior=_check(rater).get("p"),
                    )
                    for rater in raters
                    if (matrix := matrix_of(_check(rater).get("T"))) is not None
                ]
            ),
        )


def _agreement(raters: Sequence[Curated]) -> Table | None:
    rows = []
    for one, other in combinations(raters, 2):
        found = (one.diagnosis.get("agreement") or {}).get(other.rater)
        if found is None:
            continue
        raw, curated = found["raw"], found["curated"]
        rows.append(
            [
                f"{one.rater} and {other.rater}",
                count(raw["samples"]),
                *(percent(part[name]) for name in ("exact", "within_one") for part in (raw, curated)),
                *(decimal(part["correlation"]) for part in (raw, curated)),
            ]
        )
    columns = [
        "raters",
        "samples",
        "equal, raw",
        "curated",
        "within one, raw",
        "curated",
        "correlation, raw",
        "curated",
    ]
    return Table("Agreement of the raters", columns, rows) if rows else None


def _check(rater: Curated) -> Mapping[str, Any]:
    found = rater.diagnosis.get("check_by_raters")
    return found if isinstance(found, Mapping) else {}


def _checks(raters: Sequence[Curated]) -> Table | None:
    rows = []
    for rater in raters:
        check, near = matrix_of(_check(rater).get("T")), matrix_of(rater.diagnosis.get("T"))
        if check is not None and near is not None:
            can = reach_of(rater.diagnosis, len(near))
            kept = (float(near.diagonal()[can].mean()), float(check.diagonal()[can].mean()))
            rows.append([rater.rater, *(percent(k) for k in kept), decimal(_check(rater)["difference"], 3)])
    columns = ["rater", "mean diagonal by neighbours", "by agreement", "mean difference of entries"]
    return Table("T by neighbours and T by the raters' agreement", columns, rows) if rows else None
