"""What the report says of the curated scores: by human grades, by the model alone, or nothing."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest

from tamis.core.artifacts import Artifact
from tamis.core.reliability import reliability
from tamis.core.settings import StageSettings
from tamis.core.steps import Step, run_step
from tamis.curation.honest import honest_error
from tamis.reporting.numbers import DASH, MINUS
from tamis.reporting.settings import ReportingSettings
from tamis.reporting.stage import run
from tests.artifacts import conversation, make_curation, make_pool
from tests.unit.reporting.conftest import Made
from tests.unit.reporting.markup import Page

N = 300
GRADES = "Scores compared with held-out human grades"
OWN = "How the result depends on the own share"


class Lab:
    """A pool of N samples and reports on made-up curations of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, random = folder, np.random.default_rng(4)
        self.true = random.integers(0, 6, N).astype(np.int8)
        samples = [conversation(f"Question {i}?", f"Answer {i}.") for i in range(N)]
        grades = [{"grade": int(c) + 4} for c in self.true]
        self.pool = make_pool(folder / "pool", samples, metadata=grades)
        self.ids: list[str] = Artifact.open(self.pool).table(["id"])["id"].to_pylist()

    def wrong(self, share: float, seed: int) -> np.ndarray:
        """Classes of which this share is one class off."""
        random = np.random.default_rng(seed)
        off = np.where(self.true == 0, 1, self.true - 1)
        return np.where(random.random(N) < share, off, self.true).astype(np.int8)

    def held_out(self, raw: np.ndarray, score: np.ndarray, graded: int = 120) -> dict[str, Any]:
        """What curation says of grades of the first samples."""
        truth = np.where(np.arange(N) < graded, self.true, -1).astype(np.int8)
        said = reliability(np.full(graded, 0.8), (score == self.true)[:graded])
        assert said is not None
        return honest_error(truth, raw, score) | {"n": graded, "reliability": said.as_json()}

    def report(
        self,
        raters: dict[str, tuple[np.ndarray, np.ndarray, dict[str, Any]]],
        confidence: float | None = None,
        **settings: Any,
    ) -> tuple[Page, str]:
        """The page and the headline of these raters' raw scores, curated scores and diagnoses."""
        rows = [
            {"id": sample, "rater": name, "raw_score": int(raw[i]), "score": int(score[i])}
            | {"confidence": confidence, "error_probability": None if confidence is None else 0.6}
            for name, (raw, score, _) in raters.items()
            for i, sample in enumerate(self.ids)
        ]
        curation = make_curation(self.folder / "c", rows, {name: told for name, (_, _, told) in raters.items()})
        return self.of(curation, **settings)

    def of(self, curation: Path, out: str = "out", **settings: Any) -> tuple[Page, str]:
        manifest = run(ReportingSettings(**settings), pool=self.pool, curation=curation, out=self.folder / out)
        return Page((self.folder / out / "report.html").read_text(encoding="utf-8")), manifest.facts["headline"]

    def results(self) -> dict[tuple[str, str], dict[str, str]]:
        with (self.folder / "out/results.csv").open(encoding="utf-8") as file:
            return {(row["subject"], row["measure"]): row for row in csv.DictReader(file)}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def tones(page: Page, tone: str) -> list[str]:
    return [element.text for element in page.all("td") if tone in element.attributes.get("class", "").split()]


def whole(share: float) -> str:
    return f"{100 * share:.0f}"


def test_held_out_grades_open_the_headline_and_the_section(lab: Lab) -> None:
    raw, score = lab.wrong(0.5, 1), lab.wrong(0.2, 2)
    found = lab.held_out(raw, score)
    page, headline = lab.report({"r": (raw, score, {"held_out": found})})
    right, error = found["right"], found["absolute_error"]["difference"]
    curated = [whole(right["curated"][name]) for name in ("value", "low", "high")]
    said = headline.split(". ", 1)[1]
    for part in (
        "According to 120 held-out human grades",
        f"{whole(right['raw']['value'])} % of the ratings",
        f"{whole(right['raw']['low'])} to {whole(right['raw']['high'])} %",
        "{} % ({} to {} %)".format(*curated),
        f"fell by {-error['value']:.2f} classes ({-error['high']:.2f} to {-error['low']:.2f})",
    ):
        assert part in said
    assert page.all("p")[0].text == said
    assert said in [p.text for p in page.all("p") if p.attributes.get("class") == "lead"]
    rows = page.rows(GRADES)
    assert [row[0] for row in rows[1:]] == ["r, raw", "r, curated", "r, change"]
    assert rows[1][1] == f"{100 * right['raw']['value']:.1f} %"
    assert rows[3][3] == f"{error['value']:.2f}".replace("-", MINUS)
    assert tones(page, "good") == [rows[3][1], rows[3][3]]
    csv_row = lab.results()["r", "change of mean absolute error by grades"]
    assert float(csv_row["high"]) == pytest.approx(error["high"])
    assert csv_row["n"] == "120"


def test_what_grades_say_comes_before_what_came_out_later(made: Made) -> None:
    first, *_, last = [
        p.text for p in Page(made.text("report.html")).all("p") if p.attributes.get("class") == "headline"
    ]
    assert first.startswith("According to 120 held-out human grades")
    assert "grade" in last


def test_harm_is_said_as_plainly(lab: Lab) -> None:
    raw, score = lab.wrong(0.2, 1), lab.wrong(0.6, 2)
    page, headline = lab.report({"r": (raw, score, {"held_out": lab.held_out(raw, score)})})
    assert "curation made the scores worse" in headline
    assert "the share of right scores fell by" in headline
    assert len(tones(page, "bad")) == 2


def test_a_change_within_its_interval_is_not_claimed(lab: Lab) -> None:
    raw, score = lab.wrong(0.4, 1), lab.wrong(0.4, 2)
    page, headline = lab.report({"r": (raw, score, {"held_out": lab.held_out(raw, score)})})
    assert "do not show" in headline
    assert tones(page, "good") == tones(page, "bad") == []


def test_three_grades_have_no_interval(lab: Lab) -> None:
    raw, score = lab.wrong(1, 1), lab.true
    page, headline = lab.report({"r": (raw, score, {"held_out": lab.held_out(raw, score, graded=3)})})
    assert "too few grades for an interval" in headline
    assert page.rows(GRADES)[3][4] == DASH


def test_nothing_corrected_is_said_with_reason_and_advice(lab: Lab) -> None:
    raw = lab.wrong(0.4, 1)
    told = {
        "explained": False,
        "reasons": ["too <few> ratings."],
        "advice": ["add a second rater", "grade 100 samples"],
    }
    page, headline = lab.report({"r": (raw, raw, told)})
    assert headline.count("Curation corrected none of the ratings: too <few> ratings.") == 1
    assert headline.endswith("add a second rater; grade 100 samples.")
    assert page.text.count("add a second rater; grade 100 samples.") == 2, "in the headline and in the lead"


def test_nothing_corrected_and_grades_are_both_said(lab: Lab) -> None:
    raw = lab.wrong(0.4, 1)
    told = {"explained": False, "reasons": ["why"], "held_out": lab.held_out(raw, raw)}
    _, headline = lab.report({"r": (raw, raw, told)})
    assert "after curation" not in headline
    assert "human grades" in headline
    assert "Curation corrected nothing: why." in headline


def test_without_grades_the_model_alone_speaks_and_that_is_said(lab: Lab) -> None:
    raw, score = lab.wrong(0.4, 1), lab.wrong(0.3, 2)
    cases = [(0.1, 0.75, 0.5, 0.9, 0.6, 0.2), (0.5, 0.25, 0.7, 0.5, 0.4, 0.8)]
    names = (
        "own_share",
        "plausibility",
        "expected_right_raw",
        "expected_right",
        "expected_error_raw",
        "expected_error",
    )
    told = {"sensitivity": [dict(zip(names, case, strict=True)) | {"corrected": 12} for case in cases]}
    page, headline = lab.report({"r": (raw, score, told | {"advice": ["add a second rater"]})})
    assert (
        "expects 55 % of the ratings to be right, and 80 % after curation (mean error 0.55 and 0.35 classes)"
        in headline
    )
    assert "not been checked" in headline
    assert headline.endswith("add a second rater.")
    rows = page.rows(OWN)[1:]
    assert rows[0] == ["10 %", "75 %", "12", "50.0 %", "90.0 %", "0.60", "0.20"]
    assert rows[2][3:] == ["55.0 %", "80.0 %", "0.55", "0.35"]
    assert tones(page, "bad") == ["50.0 %", "0.80"]
    assert float(lab.results()["r", "plausibility at own share 0.1"]["value"]) == 0.75


def test_without_a_table_of_cases_the_confidences_speak(lab: Lab) -> None:
    raw, score = lab.wrong(0.4, 1), lab.wrong(0.3, 2)
    _, headline = lab.report({"r": (raw, score, {"mode": "exact", "explained": True})}, confidence=0.7)
    assert "expects 40 % of the ratings to be right, and 70 % after curation" in headline


def test_scores_that_became_the_grade_of_their_sample_are_no_corrections_of_the_model(lab: Lab) -> None:
    raw = lab.wrong(0.3, 1)
    score = np.where(np.arange(N) < 20, lab.true, raw).astype(np.int8)
    changed = int((score != raw).sum())
    told = {"explained": False, "reasons": ["why"], "grades": {"graded": 20, "scores_changed": changed}}
    _, headline = lab.report({"r": (raw, score, told | {"held_out": lab.held_out(raw, raw, graded=20)})})
    assert f"except {changed} graded samples" in headline
    assert "after curation" not in headline


def test_with_a_truth_nobody_is_said_to_have_checked_nothing(lab: Lab) -> None:
    raw, score = lab.wrong(0.4, 1), lab.wrong(0.3, 2)
    _, headline = lab.report({"r": (raw, score, {"mode": "exact"})}, confidence=0.7, truth="grade")
    assert "expects 40 %" in headline
    assert "not been checked" not in headline


@pytest.mark.parametrize("mode", ["paper", "reference"])
def test_confidences_that_are_no_probabilities_are_not_taken_for_any(mode: str, lab: Lab) -> None:
    raw, score = lab.wrong(0.4, 1), lab.wrong(0.3, 2)
    page, headline = lab.report({"r": (raw, score, {"mode": mode})}, confidence=0.7, truth="grade")
    assert "expects" not in headline
    assert not (lab.folder / "out/plots/truth-reliability-r.svg").exists()
    assert "expected calibration error" not in page.text


def test_the_combined_rater_speaks_for_all(lab: Lab) -> None:
    raw, score = lab.wrong(0.5, 1), lab.wrong(0.2, 2)
    told = {"held_out": lab.held_out(raw, score)}
    combined = told | {"raters": ["a", "b"], "rater_T": {"a": np.eye(6).tolist(), "b": "none", "c": np.eye(6).tolist()}}
    raters = {"a": (raw, score, told), "b": (raw, score, told), "combined": (raw, score, combined)}
    page, headline = lab.report(raters)
    assert headline.count("human grades") == 1
    assert "of the combined ratings are right" in headline
    assert len(page.rows(GRADES)) == 1 + 3 * 3
    assert {path.stem for path in (lab.folder / "out/plots").glob("joint-*.svg")} == {"joint-combined-a"}


def test_of_many_raters_the_headline_names_two(lab: Lab) -> None:
    raw, score = lab.wrong(0.5, 1), lab.wrong(0.2, 2)
    told = {"held_out": lab.held_out(raw, score)}
    page, headline = lab.report({name: (raw, score, told) for name in "abcd"})
    assert headline.count("According to 120 held-out human grades") == 2
    assert "2 more raters" in headline
    assert len([p for p in page.all("p") if p.attributes.get("class") == "lead" and "According to 120" in p.text]) == 4


def test_a_curation_that_says_nothing_adds_nothing(lab: Lab) -> None:
    raw, score = lab.wrong(0.4, 1), lab.wrong(0.3, 2)
    page, headline = lab.report({"r": (raw, score, {})})
    assert headline == f"{N} samples from 1 source; {(raw != score).sum()} of {N} ratings corrected " + (
        f"({100 * (raw != score).mean():.1f} %)."
    )
    for caption in (GRADES, OWN, "What the model found", "Human grades", "Predicted scores"):
        assert page.rows(caption) == []


def test_the_reliability_by_grades_is_drawn_and_counted(lab: Lab) -> None:
    raw, score = lab.wrong(0.5, 1), lab.wrong(0.2, 2)
    found = lab.held_out(raw, score)
    page, _ = lab.report({"r": (raw, score, {"held_out": found})})
    drawn = next(e for e in page.all("svg") if "confidence" in e.attributes["aria-label"])
    share = found["reliability"]["bins"][0]["right"]
    assert f"confidence 80 %, right {whole(share)} % of 120" in drawn.attributes["aria-label"].replace(
        "\N{NO-BREAK SPACE}", " "
    )
    row = lab.results()["r", "expected calibration error by human grades"]
    assert float(row["value"]) == pytest.approx(abs(0.8 - share))


def test_the_reliability_by_the_truth_is_that_of_the_table(lab: Lab) -> None:
    raw, score = lab.wrong(0.5, 1), lab.wrong(0.2, 2)
    lab.report({"r": (raw, score, {})}, confidence=0.7, truth="grade")
    row = lab.results()["r", "expected calibration error by 'grade'"]
    assert float(row["value"]) == pytest.approx(abs(0.7 - (score == lab.true).mean()), abs=1e-6)
    assert row["n"] == str(N)
    assert (lab.folder / "out/plots/truth-reliability-r.svg").exists()


class Graded(StageSettings):
    """Settings of a curation that was given the pool's own field as grades."""

    OUTPUT_REVISION: ClassVar[int] = 1

    grades: dict[str, str] = {"column": "grade"}  # noqa: RUF012 (a model's field)


def test_a_truth_that_curation_has_seen_makes_no_headline(lab: Lab) -> None:
    raw, score = lab.wrong(0.5, 1), lab.wrong(0.2, 2)
    lab.report({"r": (raw, score, {})}, truth="grade")
    plain = Artifact.open(lab.folder / "c")

    def write(step: Step[Graded]) -> None:
        for name in ("diagnosis.json", "corrections.parquet"):
            (step.out / name).write_bytes(plain.path(name).read_bytes())
        pq.write_table(plain.table(), step.out / "part-00000.parquet")
        step.rows = plain.manifest.rows

    run_step("curation", "curation", Graded(), write, out=lab.folder / "seen")
    page, headline = lab.of(lab.folder / "seen", out="again", truth="grade")
    assert "'grade'" not in headline
    cautions = [e.text for e in page.all("li") if e.text.startswith("Caution")]
    assert any("'grade'" in text for text in cautions)


def test_predicted_scores_are_counted_with_their_error(made: Made) -> None:
    page = Page(made.text("report.html"))
    assert page.rows("Predicted scores")[1:] == [["smollm2-135m", "392", "8", "2.0 %", "0.05", "1.10"]]


def test_what_the_model_found_stands_in_a_row_of_each_rater(made: Made) -> None:
    header, *rows = Page(made.text("report.html")).rows("What the model found")
    assert rows[0][header.index("own share") : header.index("shared errors") + 1] == ["31 %", "12 to 55 %", "8 %"]
    assert rows[1][header.index("shared errors")] == DASH
    assert rows[1][-1] == "+0.002 ± 0.012"


def test_agreement_of_graders_is_shown(made: Made) -> None:
    assert ["agreement, krippendorff alpha", "0.71"] in Page(made.text("report.html")).rows("Human grades")
