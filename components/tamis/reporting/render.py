"""The views of the sections: the HTML page, Markdown tables, and a CSV file of all numbers."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence

from tamis.reporting import style
from tamis.reporting.blocks import Cell, Heading, Section, Table, Text, Warnings
from tamis.reporting.headline import counts, findings
from tamis.reporting.settings import ReportingSettings

_COLUMNS = ("section", "subject", "measure", "value", "stderr", "low", "high", "n")


def page(settings: ReportingSettings, sections: Sequence[Section], plots: Mapping[str, str], version: str) -> str:
    """The HTML page, which loads nothing else; `plots` has the inline SVG of each figure by name."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("tamis.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["bound"] = _bound
    return environment.get_template("page.html").render(
        settings=settings,
        counts=counts(sections),
        findings=findings(sections),
        sections=sections,
        key_figures=[figure for section in sections for figure in section.key_figures],
        plots={name: Markup(svg) for name, svg in plots.items()},
        light=Markup(style.variables(style.LIGHT)),
        dark=Markup(style.variables(style.DARK)),
        font=Markup(style.FONT),
        version=version,
        as_cell=as_cell,
    )


def _bound(text: str) -> str:
    """`text` with no-break spaces between numbers and their percent or ± signs."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%").replace("± ", "±\N{NO-BREAK SPACE}")


def as_cell(cell: Cell | str) -> Cell:
    """A table cell from a `Cell` or from plain text."""
    return cell if isinstance(cell, Cell) else Cell(cell)


def results_csv(sections: Sequence[Section]) -> str:
    """Every number as one row, in full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for section in sections:
        for result in section.results:
            values = (result.value, result.stderr, result.low, result.high, result.n)
            numbers = ["" if value is None else repr(value) for value in values]
            writer.writerow([result.section, result.subject, result.measure, *numbers])
    return text.getvalue()


def results_markdown(settings: ReportingSettings, headline: str, sections: Sequence[Section]) -> str:
    """Headline, notes, leads, warnings and tables as Markdown."""
    lines = [f"# {_plain(settings.title)}", "", _plain(headline), ""]
    lines += [line for note in settings.notes for line in (f"> {_plain(note)}", "")]
    for section in sections:
        lines += [f"## {_plain(section.title)}", ""]
        heading: list[str] = []  # written above the next block
        for block in section.blocks:
            if isinstance(block, Text) and block.lead:
                lines += [_plain(block.text), ""]
            elif isinstance(block, Heading):
                heading = [f"### {_plain(block.title)}", ""]
            elif isinstance(block, Warnings):
                lines, heading = [*lines, *heading], []
                lines += [*(f"- {_plain(text)}" for text in block.texts), ""]
            elif isinstance(block, Table):
                lines, heading = [*lines, *heading], []
                lines += [*_table(block), ""]
    return "\n".join(lines)


def _table(table: Table) -> list[str]:
    sides = [":--" if i == 0 or column in table.words else "--:" for i, column in enumerate(table.columns)]
    rows = [[as_cell(cell).text for cell in row] for row in table.rows]
    lines = [f"**{_plain(table.caption)}**", "", _row(table.columns), f"| {' | '.join(sides)} |", *map(_row, rows)]
    return [*lines, "", _plain(table.note)] if table.note else lines


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_plain(cell) for cell in cells)} |"


def _plain(text: str) -> str:
    """Text on one line, with Markdown and HTML escaped."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", text)
