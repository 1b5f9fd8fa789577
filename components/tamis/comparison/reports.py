"""Comparison of two reports: every number of both, and the differences."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from tempfile import TemporaryDirectory

import tamis
from tamis.core.artifacts import Artifact
from tamis.core.errors import explained_os_errors
from tamis.core.steps import Uri
from tamis.reporting import render
from tamis.reporting.blocks import Cell, Section, Table, Text
from tamis.reporting.numbers import DASH, MINUS, count, plural
from tamis.reporting.settings import ReportingSettings

_Z = 1.96
_MEAN, _SPREAD = "mean over seeds", "standard deviation over seeds"  # suffixes of the names of such measures
# Sections of a report with their titles, in order. Sections about the run itself are not compared.
_SECTIONS = {
    "experiment": "Experiment",
    "evaluation": "Evaluation",
    "judging": "Judging",
    "truth": "Truth",
    "bias": "Bias",
    "curation": "Curation",
    "ratings": "Ratings",
    "subsets": "Subsets",
    "pool": "Pool",
}
Key = tuple[str, str, str]


@dataclass(frozen=True)
class Number:
    """A value in a report, with its standard error if it has one."""

    value: float | None
    stderr: float | None


def compare_reports(first: Uri, second: Uri, *, out: Path) -> str:
    """Compare two report artifacts.

    Writes `comparison.html` (one file, like a report's page), `comparison.md` and `comparison.csv` (section, subject,
    measure, both values, difference, and its standard error if both values have one) to the folder `out`.

    Returns:
        A summary in one sentence.

    Raises:
        ArtifactError: when one of the two is not a finished report.
        StorageError: when `out` cannot be written.
    """
    with TemporaryDirectory(prefix="tamis-") as cache:
        reports = [Artifact.open(uri, "report", cache=Path(cache)) for uri in (first, second)]
        numbers = [_numbers(report.path("results.csv")) for report in reports]
    names = [str(report.manifest.config.get("title") or "report") for report in reports]
    if names[0] == names[1]:
        names = [f"{name} ({side})" for name, side in zip(names, ("first", "second"), strict=True)]
    sections = list(_sections(numbers[0], numbers[1], names))
    shared = len(numbers[0].keys() & numbers[1].keys())
    only = [len(one.keys() - other.keys()) for one, other in (numbers, numbers[::-1])]
    summary = (
        f"{plural(shared, 'number')} in both reports, {count(only[0])} only in {names[0]}, "
        f"{count(only[1])} only in {names[1]}."
    )
    settings = ReportingSettings(title=f"{names[0]} and {names[1]}")
    if sections:
        sections[0].clause = summary.removesuffix(".")
    with explained_os_errors(f"writing {out}"):
        out.mkdir(parents=True, exist_ok=True)
        page = render.page(settings, sections, {}, tamis.__version__)
        (out / "comparison.html").write_text(page, encoding="utf-8")
        (out / "comparison.md").write_text(render.results_markdown(settings, summary, sections), encoding="utf-8")
        _write_csv(out / "comparison.csv", numbers[0], numbers[1])
    return summary


def _numbers(file: Path) -> dict[Key, Number]:
    """The rows of a report's `results.csv`."""

    def known(text: str) -> float | None:
        return float(text) if text else None

    with file.open(encoding="utf-8", newline="") as lines:
        return {
            (row["section"], row["subject"], row["measure"]): Number(known(row["value"]), known(row["stderr"]))
            for row in csv.DictReader(lines)
        }


def _sections(first: dict[Key, Number], second: dict[Key, Number], names: list[str]) -> Iterator[Section]:
    keys = list(dict.fromkeys([*first, *second]))
    for anchor, title in _SECTIONS.items():
        inside = [key for key in keys if key[0] == anchor]
        if not inside:
            continue
        section = Section(anchor, title)
        alike = [key for key in inside if key in first and key in second]
        changed = sum(first[key].value != second[key].value for key in alike)
        lead = f"{count(changed)} of {plural(len(alike), 'shared number')} differ." if alike else "No shared numbers."
        section.add(Text(lead, lead=True))
        rows: list[list[Cell | str]] = []
        above = ""
        for key in inside:
            _, subject, measure = key
            if not measure.endswith(_SPREAD):  # shown next to its mean
                values = _values(*((numbers.get(key), _spread(key, numbers)) for numbers in (first, second)))
                rows.append([Cell(subject, "muted" if subject == above else ""), measure, *values])
                above = subject
        note = "*: more than 1.96 standard errors of the difference, if both values are independent."
        if len(rows) < len(inside):
            note = f"± after a mean over seeds is the standard deviation; such differences have no *. {note}"
        section.add(Table(title, ["subject", "measure", *names, "difference"], rows, words=("measure",), note=note))
        yield section


def _spread(key: Key, numbers: dict[Key, Number]) -> float | None:
    """The standard deviation over seeds for a mean over seeds."""
    section, subject, measure = key
    if not measure.endswith(_MEAN):
        return None
    found = numbers.get((section, subject, measure.removesuffix(_MEAN) + _SPREAD))
    return found.value if found else None


def _values(*pair: tuple[Number | None, float | None]) -> list[Cell | str]:
    difference, stderr = _difference(*(number for number, _ in pair))
    clear = difference is not None and stderr is not None and abs(difference) > _Z * stderr
    text = DASH if difference is None else _plain(difference, sign=True)
    if stderr is not None:
        text = f"{text} ± {_plain(stderr)}"
    return [*(_cell(*one) for one in pair), f"{text} *" if clear else text]


def _cell(number: Number | None, spread: float | None) -> Cell:
    if number is None:
        return Cell("missing", "muted")
    if number.value is None:
        return Cell("no value", "bad")
    return Cell(_plain(number.value) if spread is None else f"{_plain(number.value)} ± {_plain(spread)}")


def _difference(one: Number | None, other: Number | None) -> tuple[float | None, float | None]:
    """The second value minus the first, and the standard error of the difference if both have one."""
    if one is None or other is None or one.value is None or other.value is None:
        return None, None
    known = one.stderr is not None and other.stderr is not None
    return other.value - one.value, sqrt((one.stderr or 0) ** 2 + (other.stderr or 0) ** 2) if known else None


def _plain(value: float, *, sign: bool = False) -> str:
    digits = ",.0f" if abs(value) >= 1000 else ".4g"
    return format(value, f"+{digits}" if sign else digits).replace("-", MINUS)


def _write_csv(file: Path, first: dict[Key, Number], second: dict[Key, Number]) -> None:
    with file.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(["section", "subject", "measure", "first", "second", "difference", "stderr"])
        for key in dict.fromkeys([*first, *second]):
            one, other = first.get(key), second.get(key)
            values = [one.value if one else None, other.value if other else None, *_difference(one, other)]
            writer.writerow([*key, *("" if value is None else repr(value) for value in values)])
