"""Samples that a subset picked and just missed, as the report shows them."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tamis.core.artifacts import Artifact
from tamis.reporting.sections import picks
from tamis.reporting.settings import ReportingSettings
from tamis.reporting.stage import run as report
from tamis.selection.settings import SelectionSettings
from tamis.selection.stage import run as select
from tests.unit.reporting.example import Run, make_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("run"))


def test_the_first_the_last_and_the_just_missed_are_shown_with_what_ranked_them(made: Run, tmp_path: Path) -> None:
    settings = SelectionSettings(name="best", strategy="ds2", size=60, rater="mistral-7b")
    select(settings, pool=made.pool, curation=made.curation, out=tmp_path / "best")
    missed = pq.read_table(tmp_path / "best/missed.parquet")
    picked = pq.read_table(tmp_path / "best/selection.parquet")
    assert missed["rank"].to_pylist() == list(range(60, 70))
    assert not set(missed["id"].to_pylist()) & set(picked["id"].to_pylist())
    last, first = ((t["score"][i].as_py(), t["diversity"][i].as_py()) for t, i in ((picked, -1), (missed, 0)))
    assert last > first
    report(
        ReportingSettings(truth="grade"),
        pool=made.pool,
        curation=made.curation,
        selections=[tmp_path / "best"],
        out=tmp_path / "report",
    )
    page = (tmp_path / "report/report.html").read_text(encoding="utf-8")
    for said in ("The first 10 samples picked", "The last 10 samples picked", "The 10 samples just missed"):
        assert said in page
    rows = picked.to_pylist()
    third = rows[2]
    above = sum(r["score"] == third["score"] and r["diversity"] > third["diversity"] for r in rows)
    assert f"Rank 3: class {third['score']:g}" in page
    assert f"the {picks._ordinal(above + 1)} most diverse of its picked samples" in page
    assert "selections/best/subset.jsonl" in page
    assert "Rank 61: class" in page
    threshold = Artifact.open(tmp_path / "best").manifest.facts["thresholds"][0]
    assert f"{threshold['picked']} were picked and {threshold['cut']} were not" in page


@pytest.mark.parametrize(
    ("number", "said"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (11, "11th"), (12, "12th"), (22, "22nd"), (113, "113th")]
)
def test_places_are_told_as_one_says_them(number: int, said: str) -> None:
    assert picks._ordinal(number) == said


def test_a_subset_of_few_samples_shows_each_once_and_one_of_all_misses_none(made: Run, tmp_path: Path) -> None:
    for name, size in (("few", 6), ("full", None)):
        settings = SelectionSettings(name=name, strategy="full" if size is None else "random", size=size)
        select(settings, pool=made.pool, out=tmp_path / name)
    assert pq.read_table(tmp_path / "few/missed.parquet").num_rows == 10
    assert pq.read_table(tmp_path / "full/missed.parquet").num_rows == 0
    shown = list(picks.parts(Artifact.open(tmp_path / "few"), 10))
    assert [part.rows.num_rows for part in shown] == [6, 10]
