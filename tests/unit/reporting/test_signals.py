"""The report's section on signals."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from tamis.core.errors import InputError
from tamis.reporting.settings import ReportingSettings
from tamis.reporting.stage import run
from tamis.signals.settings import DescribeSettings
from tamis.signals.stage import run as describe
from tests import artifacts
from tests.artifacts import conversation
from tests.unit.reporting.markup import Page

HOSTILE = "<script>alert(1)</script>"
PROSE = "The Nile flows north through eleven countries, and most of its water comes from the highlands."
GERMAN = "Der Nil fließt durch elf Länder nach Norden, und das meiste Wasser kommt aus dem Hochland."


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signals")
    answers = [f"{PROSE} {i}." for i in range(40)]
    answers[3] = f"I'm sorry, but I cannot help with that. {HOSTILE}"
    answers[5] = "So it goes on and on. " * 20
    answers[7] = GERMAN
    answers[39] = f"{PROSE} In the end of the long and very dry summer the river and the"
    samples = [conversation(f"Tell me about the river, number {i}.", answer) for i, answer in enumerate(answers)]
    pool = artifacts.make_pool(folder / "pool", samples, source=["web" if i < 30 else "books" for i in range(40)])
    describe(DescribeSettings(), pool=pool, out=folder / "signals")
    run(ReportingSettings(), pool=pool, signals=folder / "signals", out=folder / "report")
    return folder / "report"


def test_shares_are_counted_by_source(report: Path) -> None:
    rows = csv.DictReader(io.StringIO((report / "results.csv").read_text()))
    found = {(row["subject"], row["measure"]): float(row["value"]) for row in rows if row["section"] == "signals"}
    assert found["pool", "refusal, share"] == pytest.approx(1 / 40)
    assert found["source web", "refusal, share"] == pytest.approx(1 / 30)
    assert found["source books", "refusal, share"] == 0
    assert found["source books", "truncated, share"] == pytest.approx(1 / 10)
    assert ("pool", "thoughts loop share, mean") not in found, "no sample has thoughts"


def test_examples_are_those_of_the_tails_and_text_is_no_markup(report: Path) -> None:
    html = (report / "report.html").read_text()
    page = Page(html)
    assert page.unbalanced == []
    assert HOSTILE not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "Refusal: 1 of 1 sample" in html
    assert "Truncated: 1 of 1 sample" in html
    assert "Language other than en: 1 of 1 sample" in html
    assert html.index("Loop share: the highest 1") < html.rindex("So it goes on and on.")


def test_signals_of_another_pool_are_refused(report: Path, tmp_path: Path) -> None:
    pool = artifacts.make_pool(tmp_path / "pool", [conversation("a", "b")])
    with pytest.raises(InputError):
        run(ReportingSettings(), pool=pool, signals=report.parent / "signals", out=tmp_path / "out")
