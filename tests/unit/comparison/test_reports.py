"""Two reports side by side."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from click.testing import CliRunner

from tamis.cli import main
from tamis.comparison.reports import compare_reports
from tamis.core.errors import ArtifactError
from tamis.reporting.numbers import MINUS
from tamis.reporting.settings import ReportingSettings
from tamis.reporting.stage import run
from tests.unit.reporting.conftest import Made
from tests.unit.reporting.example import make_evaluation
from tests.unit.reporting.markup import Page
from tests.unit.reporting.test_experiment import Lab, ds2

Rows = dict[str, list[tuple[str, str, float | None, float | None, int]]]
FIRST: Rows = {"base": [("t", "acc", 0.5, 0.01, 9)], "ds2": [("t", "acc", 0.6, 0.03, 9)]}
SECOND: Rows = {"base": [("t", "acc", 0.5, 0.01, 9)], "ds2": [("t", "acc", 0.4, 0.04, 9), ("u", "acc", None, None, 0)]}


def report(folder: Path, pool: Path, scores: Rows, title: str) -> Path:
    evaluations = [make_evaluation(folder / name, name, rows) for name, rows in scores.items()]
    run(ReportingSettings(title=title), pool=pool, evaluations=evaluations, out=folder / "report")
    return folder / "report"


@pytest.fixture
def reports(small_pool: Path, tmp_path: Path) -> tuple[Path, Path]:
    first = report(tmp_path / "first", small_pool, FIRST, "May & <June>")
    return first, report(tmp_path / "second", small_pool, SECOND, "July")


def test_every_number_stands_beside_its_counterpart_with_the_difference(
    reports: tuple[Path, Path], tmp_path: Path
) -> None:
    said = compare_reports(*reports, out=tmp_path / "out")
    page = Page((tmp_path / "out/comparison.html").read_text(encoding="utf-8"))
    rows = {(row[0], row[1]): row[2:] for row in page.rows("Evaluation")}
    assert rows["subject", "measure"] == ["May & <June>", "July", "difference"]
    assert rows["ds2", "t acc"] == ["0.6", "0.4", f"{MINUS}0.2 ± 0.05 *"]
    assert rows["base", "t acc"] == ["0.5", "0.5", "+0 ± 0.01414"]
    assert rows["ds2", "u acc"][:2] == ["missing", "no value"]
    assert page.all("p")[0].text == said
    assert "May &amp; <June>" not in said
    assert "July" in said
    assert all(reference.startswith(("#", "data:")) for reference in page.references())


def test_every_section_with_numbers_is_compared(made: Made, tmp_path: Path) -> None:
    compare_reports(made.folder, made.folder, out=tmp_path / "out")
    tables = [tmp_path / "out/comparison.csv", made.folder / "results.csv"]
    compared, reported = ({row["section"] for row in csv.DictReader(path.read_text().splitlines())} for path in tables)
    assert compared == reported


def test_the_table_of_numbers_is_whole(reports: tuple[Path, Path], tmp_path: Path) -> None:
    compare_reports(*reports, out=tmp_path / "out")
    with (tmp_path / "out/comparison.csv").open() as file:
        rows = {(row["section"], row["subject"], row["measure"]): row for row in csv.DictReader(file)}
    row = rows["evaluation", "ds2", "t acc"]
    assert (row["first"], row["second"], float(row["stderr"])) == ("0.6", "0.4", pytest.approx(0.05))
    assert rows["evaluation", "ds2", "u acc"]["difference"] == ""
    for report in reports:
        with (report / "results.csv").open() as file:
            assert {(row["section"], row["subject"], row["measure"]) for row in csv.DictReader(file)} <= set(rows)


def test_a_mean_over_seeds_is_shown_with_their_standard_deviation(tmp_path: Path) -> None:
    reports = []
    for name, values in (("first", (0.50, 0.54)), ("second", (0.40, 0.40))):
        lab = Lab(tmp_path / name, ["t"])
        lab.base(0.3)
        for seed, value in enumerate(values):
            lab.cell(ds2(seed), value)
        lab.report()
        reports.append(lab.folder / "report")
    compare_reports(reports[0], reports[1], out=tmp_path / "out")
    page = Page((tmp_path / "out/comparison.html").read_text(encoding="utf-8"))
    rows = {row[1]: row[2:] for row in page.rows("Experiment")}
    assert rows["t acc, mean over seeds"] == ["0.52 ± 0.02828", "0.4 ± 0", f"{MINUS}0.12"]
    assert "t acc, standard deviation over seeds" not in rows
    assert "t acc, standard deviation over seeds" in (tmp_path / "out/comparison.csv").read_text(encoding="utf-8")


def test_the_command_says_what_was_compared(reports: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(
        main, ["compare-reports", *map(str, reports), "--out", str(out)], catch_exceptions=False
    )
    assert result.exit_code == 0
    assert f"comparison: {out}/comparison.html" in result.output


def test_what_is_no_report_is_refused(reports: tuple[Path, Path], small_pool: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is a pool"):
        compare_reports(reports[0], small_pool, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
