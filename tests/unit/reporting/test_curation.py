"""The report on real curations: what only several raters, the model or the graph can tell."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tamis.core.artifacts import Artifact
from tamis.core.samples import sample_id
from tamis.core.settings import parse
from tamis.curation.settings import CurationSettings
from tamis.curation.stage import run as curate
from tamis.rating.settings import RatingSettings
from tamis.rating.stage import run as rate
from tamis.reporting.numbers import DASH
from tamis.reporting.settings import ReportingSettings
from tamis.reporting.stage import run
from tests.artifacts import conversation, make_neighbors, make_pool, make_ratings
from tests.unit.curation.pools import T, draw_ratings
from tests.unit.curation.pools import make_pool as make_known

N, RATERS = 1500, ("gpt", "llama", "mistral")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of three raters, curated each by itself and combined."""
    folder, known = tmp_path_factory.mktemp("curation"), make_known(N, 32, seed=5)
    samples = [conversation(f"What is the number {i} good for?", f"For counting to {i}.") for i in range(N)]
    ids, random = [sample_id(messages) for messages in samples], np.random.default_rng(3)
    pool = make_pool(folder / "pool", samples, source=["chat"] * 900 + ["code"] * (N - 900))
    neighbors = make_neighbors(folder / "neighbors", ids, known.indices, known.distances)
    ratings = [
        make_ratings(folder / rater, rater, ids, (draw_ratings(known.true, T, random) + 4).tolist()) for rater in RATERS
    ]
    settings = CurationSettings(combine=True, per_source=700)
    curate(settings, ratings=ratings, neighbors=neighbors, pool=pool, out=folder / "curated")
    run(ReportingSettings(), pool=pool, ratings=ratings, curation=folder / "curated", out=folder / "report")
    return folder / "report"


def test_raters_stand_beside_each_other(report: Path) -> None:
    text = (report / "results.md").read_text(encoding="utf-8")
    pairs = next(part for part in text.split("**") if part == "Agreement of the raters")
    rows = [line for line in text[text.index(pairs) :].splitlines() if line.startswith("| gpt and llama |")]
    values = [cell.strip() for cell in rows[0].split("|")[2:-1]]
    shares = [float(value.split()[0]) for value in values[1:5]]
    assert values[0] == f"{N:,}"
    assert 25 < shares[0] < 50 < shares[1]  # raters that err independently agree far more once they are curated
    assert float(values[-1]) > float(values[-2])
    assert "**T by neighbours and T by the raters' agreement**" in text
    assert (report / "plots" / "agreed-mistral.svg").exists()


def test_the_combined_rater_has_a_part_of_its_own(report: Path) -> None:
    page = (report / "report.html").read_text(encoding="utf-8")
    assert 'id="curation-combined"' in page
    parts = (report / "results.md").read_text(encoding="utf-8").split("\n### ")
    of_each = {part.splitlines()[0]: part for part in parts[1:]}
    assert all("**By score class**" in of_each[rater] for rater in (*RATERS, "combined"))


def test_the_first_sentence_counts_combined_scores_too(report: Path) -> None:
    results = [line.split(",") for line in (report / "results.csv").read_text(encoding="utf-8").splitlines()]
    (corrected,) = (float(row[3]) for row in results if row[1:3] == ["combined", "ratings corrected"])
    headline = Artifact.open(report, "report").manifest.facts["headline"]
    assert f"{corrected:,.0f} of {N:,} combined scores" in headline


def test_intervals_hold_their_estimate(report: Path) -> None:
    text = (report / "results.md").read_text(encoding="utf-8")
    table = text[text.index("**T with intervals**") :].split("\n\n")[1]
    for line in table.splitlines()[2:]:
        for cell in line.split("|")[2:-1]:
            value, interval = cell.strip().rstrip(")").split(" (")
            low, high = interval.split(" to ")
            assert int(low) - 2 <= int(value) <= int(high) + 2


def test_corrections_come_with_their_nearest_samples(report: Path) -> None:
    page = (report / "report.html").read_text(encoding="utf-8")
    assert page.count("the 5 nearest samples: rated") == 20 * (len(RATERS) + 1)
    assert "What is the number" in page[page.index("the 5 nearest samples") :]


def test_what_is_left_of_the_errors_is_drawn_next_to_the_matrix(report: Path) -> None:
    page = (report / "report.html").read_text(encoding="utf-8")
    assert page.index("Transition matrix T") < page.index("Remaining errors")
    assert (report / "plots" / "curated-gpt.svg").exists()


def test_sources_with_matrices_of_their_own_are_listed(report: Path) -> None:
    text = (report / "results.md").read_text(encoding="utf-8")
    table = text[text.index("**Sources curated separately**") :].split("\n\n")[1]
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == ["chat"]


def test_a_neighbourhood_that_says_nothing_is_called_so(tmp_path: Path) -> None:
    known, random = make_known(600, 32, seed=5), np.random.default_rng(3)
    samples = [conversation(f"What is the number {i} good for?", f"For counting to {i}.") for i in range(600)]
    ids = [sample_id(messages) for messages in samples]
    pool = make_pool(tmp_path / "pool", samples)
    neighbors = make_neighbors(tmp_path / "neighbors", ids, known.indices, known.distances)
    ratings = [make_ratings(tmp_path / "gpt", "gpt", ids, random.integers(4, 10, 600).tolist())]
    curate(CurationSettings(), ratings=ratings, neighbors=neighbors, out=tmp_path / "curated")
    run(ReportingSettings(), pool=pool, ratings=ratings, curation=tmp_path / "curated", out=tmp_path / "report")
    text = (tmp_path / "report" / "results.md").read_text(encoding="utf-8")
    assert "Curation corrected none of the ratings: neighbours and embedding hardly predict" in text
    assert "Curation changed the score class of 0 of 600 ratings" in text
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "uncertain: the neighbours carry too little" in page


@pytest.fixture(scope="module")
def on_five(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a rater on 1 to 5 and of one on 1 to 10, both imported; the first leaves two classes out."""
    folder, known = tmp_path_factory.mktemp("five"), make_known(N, 32, seed=5)
    samples = [conversation(f"What is the number {i} good for?", f"For counting to {i}.") for i in range(N)]
    ids, random = [sample_id(messages) for messages in samples], np.random.default_rng(3)
    pool = make_pool(folder / "pool", samples)
    neighbors = make_neighbors(folder / "neighbors", ids, known.indices, known.distances)
    five, ten = (draw_ratings(known.true, T, random) for _ in range(2))
    columns = {"id": ids, "five": [(1, 2, 3, 4, 4, 5)[score] for score in five], "ten": [None, *(ten[1:] + 4).tolist()]}
    pq.write_table(pa.table(columns), folder / "scores.parquet")
    ratings = []
    for name, scale in (("five", {"lowest": 1, "highest": 5}), ("ten", "1-10")):
        backend = {
            "kind": "import",
            "path": str(folder / "scores.parquet"),
            "by": "id",
            "overall": name,
            "scale": scale,
        }
        ratings.append(folder / name)
        rate(parse(RatingSettings, {"name": name, "backend": backend}, where="test"), pool=pool, out=ratings[-1])
    curate(CurationSettings(combine=True), ratings=ratings, neighbors=neighbors, pool=pool, out=folder / "curated")
    run(ReportingSettings(), pool=pool, ratings=ratings, curation=folder / "curated", out=folder / "report")
    return folder


def test_classes_that_a_scale_cannot_reach_are_no_warning_and_have_no_probability(on_five: Path) -> None:
    told = json.loads((on_five / "curated" / "diagnosis.json").read_text())
    assert told["five"]["reachable"] == [True, False, True, False, True, True]
    assert told["ten"]["reachable"] == told["combined"]["reachable"] == [True] * 6
    assert not any("no sample is rated" in warning for found in told.values() for warning in found["warnings"])
    low, high = told["five"]["intervals"]["T"]
    for matrix in (told["five"]["T"], told["combined"]["rater_T"]["five"], low, high):
        assert np.array(matrix)[:, [1, 3]].max() == 0
    np.testing.assert_allclose(np.array(told["five"]["T"]).sum(1), 1)
    assert np.array(told["ten"]["T"])[:, [1, 3]].max() > 0.3
    measures = (on_five / "report" / "results.csv").read_text()
    assert "T true 0 rated 2" in measures
    five = [line for line in measures.splitlines() if ",five," in f",{line}," and "rated 1" in line]
    assert five == []
    text = (on_five / "report" / "results.md").read_text()
    assert "has no rating in class 1 and 3." in text


def test_an_imported_rating_that_is_missing_is_no_answer_that_could_not_be_read(on_five: Path) -> None:
    facts = Artifact.open(on_five / "ten", "ratings").manifest.facts
    assert (facts["missing"], facts["unparsable"], facts["errors"]) == (1, 0, {"missing: no rating in the file": 1})
    text = (on_five / "report" / "results.md").read_text()
    assert f"| ten | no rating in the file | {DASH} | 1 |" in text
