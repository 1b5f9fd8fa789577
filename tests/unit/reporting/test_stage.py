"""The reporting stage: absent inputs, wrong inputs, the same bytes twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tamis.core.artifacts import Artifact
from tamis.core.errors import ArtifactError, InputError
from tamis.core.scales import Scale
from tamis.core.steps import Step, run_step
from tamis.core.tables import SELECTION
from tamis.reporting.numbers import DASH, MINUS
from tamis.reporting.samples import read_samples
from tamis.reporting.settings import ReportingSettings
from tamis.reporting.stage import run
from tamis.selection.settings import SelectionSettings
from tamis.selection.stage import run as select
from tests.artifacts import conversation, make_curation, make_pool, make_ratings
from tests.unit.reporting.conftest import SETTINGS, Made
from tests.unit.reporting.example import Strategy, about, make_evaluation
from tests.unit.reporting.markup import Page

PLAIN = ReportingSettings()


def ids_of(pool: Path) -> list[str]:
    ids: list[str] = Artifact.open(pool).table(["id"])["id"].to_pylist()
    return ids


def page_of(out: Path) -> Page:
    return Page((out / "report.html").read_text(encoding="utf-8"))


def test_sections_that_a_run_does_not_have_are_not_there(small_pool: Path, tmp_path: Path) -> None:
    manifest = run(PLAIN, pool=small_pool, out=tmp_path / "out")
    assert manifest.facts["sections"] == ["pool", "cost"]
    assert manifest.facts["headline"] == "6 samples from 1 source."
    assert manifest.kind == "report"


def test_the_same_inputs_give_the_same_bytes(made: Made, tmp_path: Path) -> None:
    again = run(SETTINGS, **made.run.inputs(), out=tmp_path / "again")
    assert again.content_hash == made.manifest.content_hash


def test_results_do_not_depend_on_how_long_the_stages_took(tmp_path: Path) -> None:
    samples = [conversation(f"Question {i}?", f"Answer {i}.") for i in range(4)]
    hashes = []
    for name in ("one", "two"):
        pool = make_pool(tmp_path / name / "pool", samples)
        manifest = run(PLAIN, pool=pool, out=tmp_path / name / "report")
        hashes.append({file.name: file.sha256 for file in manifest.files})
    assert hashes[0]["results.csv"] == hashes[1]["results.csv"]
    assert hashes[0]["results.md"] == hashes[1]["results.md"]


def test_a_diagnosis_without_anything_in_it_is_enough(small_pool: Path, tmp_path: Path) -> None:
    rows = [{"id": i, "raw_score": n % 6, "score": 2} for n, i in enumerate(ids_of(small_pool))]
    curation = make_curation(tmp_path / "curation", rows)
    run(PLAIN, pool=small_pool, curation=curation, out=tmp_path / "out")
    text = page_of(tmp_path / "out").text
    assert "Curation changed the score class of 5 of 6 ratings (83.3 %)" in text
    assert "The diagnosis of this rater has no transition matrix." in text


@pytest.mark.parametrize(
    "broken",
    [
        {"T": [[1.0, 0.0], [0.5]]},
        {"T": "none"},
        {"T": [[None, 1.0], [0.0, 1.0]]},
        {"clusterability": [None, None]},
        {"clusterability": {"agreement": [0.5, None, 0.4]}},
        {"identifiability": None, "warnings": None, "p": [0.5], "observed_prior": None, "k": None},
        {"held_out": None, "sensitivity": {}, "own_share": "much", "predicted": [], "grades": 3, "reasons": 4},
        {"held_out": {"right": {"raw": 1}, "reliability": {"bins": [{}, 3]}}, "sensitivity": [3, {"own_share": 0.2}]},
        {"held_out": {"right": {"raw": {"value": 0.5}, "curated": {"value": 0.5}}, "absolute_error": None}},
        {"own_share": 0.3, "own_share_interval": [0.1], "weights": [1], "regression": None},
        {"explained": "no", "advice": "more grades", "predicted": {"rated": 5}, "gain_standard_error": "x"},
        {"sensitivity": [{"own_share": 0.1, "plausibility": 0.0}, {"own_share": 0.2, "plausibility": 0.0}]},
    ],
)
def test_a_diagnosis_of_another_shape_does_not_stop_the_report(
    broken: dict[str, Any], small_pool: Path, tmp_path: Path
) -> None:
    rows = [{"id": i, "raw_score": 1, "score": 1} for i in ids_of(small_pool)]
    curation = make_curation(tmp_path / "curation", rows, {"r": broken})
    manifest = run(PLAIN, pool=small_pool, curation=curation, out=tmp_path / "out")
    assert "0 of 6 ratings corrected (0.0 %)" in manifest.facts["headline"]


def test_names_that_plots_could_misread_are_plain_text(small_pool: Path, tmp_path: Path) -> None:
    ids = ids_of(small_pool)
    names = ["_a$b$ <x>", "評価者", "A$B$ <X>"]
    ratings = [make_ratings(tmp_path / f"r{n}", name, ids, [3, 5, 7, None, 9, 10]) for n, name in enumerate(names)]
    rows = [{"id": i, "rater": name, "raw_score": 1, "score": 2} for name in names for i in ids]
    curation = make_curation(tmp_path / "curation", rows)
    run(PLAIN, pool=small_pool, ratings=ratings, curation=curation, out=tmp_path / "out")
    page = page_of(tmp_path / "out")
    assert [element.text for element in page.all("h3")] == names
    plots = {path.stem for path in (tmp_path / "out" / "plots").glob("ratings-*.svg")}
    assert plots == {"ratings-a-b-x", "ratings-unnamed", "ratings-a-b-x-2"}


def test_a_sample_that_the_ratings_lack_is_counted_as_absent(small_pool: Path, tmp_path: Path) -> None:
    ratings = make_ratings(tmp_path / "ratings", "r", ids_of(small_pool)[:4], [1, 2, 3, 4])
    run(PLAIN, pool=small_pool, ratings=[ratings], out=tmp_path / "out")
    page = page_of(tmp_path / "out")
    assert page.rows("Samples without a rating")[1] == ["r", "no row in the ratings", DASH, "2"]


def test_picked_samples_that_were_never_rated_are_counted(small_pool: Path, tmp_path: Path) -> None:
    rows = [{"id": i, "raw_score": None if n < 2 else 3, "score": 4 - n % 2} for n, i in enumerate(ids_of(small_pool))]
    given = {"pool": small_pool, "curation": make_curation(tmp_path / "curation", rows)}
    subsets = [tmp_path / name for name in ("random", "ds2")]
    for out in subsets:
        settings = SelectionSettings.model_validate({"name": out.name, "strategy": out.name, "size": 6})
        select(settings, **given, out=out)
    for number in (1, 2):
        run(PLAIN, **given, selections=subsets[:number], out=tmp_path / f"of-{number}")
    assert "never rated" not in page_of(tmp_path / "of-1").rows("Subsets and the whole pool")[0]
    header, *described = page_of(tmp_path / "of-2").rows("Subsets and the whole pool")
    column = header.index("never rated")
    assert [(row[0], row[column]) for row in described] == [("whole pool", DASH), ("random", DASH), ("ds2", "2")]


def test_samples_that_have_no_score_to_be_picked_by_are_counted_by_reason(small_pool: Path, tmp_path: Path) -> None:
    def subset(name: str, facts: dict[str, Any]) -> Path:
        ids = ids_of(small_pool)[:3]

        def write(step: Step[Strategy]) -> None:
            rows = [{"id": i, "rank": rank, "score": 1.0, "diversity": None} for rank, i in enumerate(ids)]
            pq.write_table(pa.Table.from_pylist(rows, schema=SELECTION), step.out / "selection.parquet")
            step.rows, step.facts = len(ids), facts

        run_step("selection", "selection", Strategy(strategy=name, size=3), write, out=tmp_path / name, name=name)
        return tmp_path / name

    subsets = [subset("random", {}), subset("perplexity", {"not_scored": {"too_long": 2, "empty": 0, "refused": 1}})]
    for number in (1, 2):
        run(PLAIN, pool=small_pool, selections=subsets[:number], out=tmp_path / f"of-{number}")
    table = "Subsets and the whole pool"
    assert "not scored" not in page_of(tmp_path / "of-1").rows(table)[0]
    page = page_of(tmp_path / "of-2")
    header, *described = page.rows(table)
    column = header.index("not scored")
    assert [(row[0], row[column]) for row in described] == [("whole pool", DASH), ("random", DASH), ("perplexity", "3")]
    assert "1 refused and 2 too long" in (tmp_path / "of-2/report.html").read_text()
    results = (tmp_path / "of-2/results.csv").read_text()
    assert 'perplexity,"samples without a score, too long",2' in results


def test_samples_outside_a_rater_s_part_of_the_pool_are_counted_apart(small_pool: Path, tmp_path: Path) -> None:
    ids = ids_of(small_pool)
    ratings = make_ratings(tmp_path / "ratings", "r", ids, [3, 4, 5, None, None, None], not_asked=ids[4:])
    manifest = run(PLAIN, pool=small_pool, ratings=[ratings], out=tmp_path / "out")
    page = page_of(tmp_path / "out")
    assert ["r", "not asked: outside the rater's sample", DASH, "2"] in page.rows("Samples without a rating")
    assert "; 3 ratings by 1 rater, 1 missing, 2 not requested" in manifest.facts["headline"]


def test_artifacts_of_another_pool_are_refused(small_pool: Path, tmp_path: Path) -> None:
    ratings = make_ratings(tmp_path / "ratings", "r", ["0" * 32], [5])
    with pytest.raises(InputError, match="1 of 1 ids"):
        run(PLAIN, pool=small_pool, ratings=[ratings], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_id_that_is_none_is_refused(small_pool: Path, tmp_path: Path) -> None:
    ratings = make_ratings(tmp_path / "ratings", "r", ["nine"], [5])
    with pytest.raises(InputError, match="entry 1 is 'nine'"):
        run(PLAIN, pool=small_pool, ratings=[ratings], out=tmp_path / "out")


def test_two_ratings_of_one_name_are_refused(small_pool: Path, tmp_path: Path) -> None:
    ids = ids_of(small_pool)
    ratings = [make_ratings(tmp_path / name, "r", ids, [5] * 6) for name in ("one", "two")]
    with pytest.raises(InputError, match=r"two of the ratings .*'r'"):
        run(PLAIN, pool=small_pool, ratings=ratings, out=tmp_path / "out")


def test_an_artifact_of_the_wrong_kind_is_refused(small_pool: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is a pool"):
        run(PLAIN, pool=small_pool, curation=small_pool, out=tmp_path / "out")


def graded_pool(out: Path, metadata: list[dict[str, Any]]) -> Path:
    return make_pool(out, [conversation(f"Q{i}?", "A.") for i in range(len(metadata))], metadata=metadata)


@pytest.mark.parametrize("option", ["truth", "group"])
def test_a_field_that_no_sample_has_is_an_error_that_lists_the_fields(option: str, tmp_path: Path) -> None:
    pool = graded_pool(tmp_path / "pool", [{"grade": 3, "topic": "x"}, {"grade": 4}])
    with pytest.raises(InputError, match=f"report.{option} is 'note'") as raised:
        run(ReportingSettings(**{option: "note"}), pool=pool, out=tmp_path / "out")
    assert raised.value.allowed == "grade, topic"


@pytest.mark.parametrize("value", ["7", True, 0.3, 11])
def test_a_truth_that_is_no_grade_is_an_error_with_the_value(value: object, tmp_path: Path) -> None:
    pool = graded_pool(tmp_path / "pool", [{"grade": 3}, {"grade": value}])
    with pytest.raises(InputError, match="in its metadata field 'grade'") as raised:
        run(ReportingSettings(truth="grade"), pool=pool, out=tmp_path / "out")
    assert repr(value) in raised.value.problem


@pytest.mark.parametrize("grades", [[1, 2, 3, 4, 5] * 2, [0, 1, 2, 3, 4, 5] * 2, [1, 7, 5] * 10])
def test_a_truth_that_looks_like_another_scale_is_asked_about(grades: list[int], tmp_path: Path) -> None:
    samples = [conversation(f"Question {i}?", f"Answer {i}.") for i in range(len(grades))]
    pool = make_pool(tmp_path / "pool", samples, metadata=[{"grade": grade} for grade in grades])
    low, high = min(grades), max(grades)
    with pytest.raises(InputError) as error:
        read_samples(Artifact.open(pool), ReportingSettings(truth="grade"))
    assert error.value.code == "input"
    assert "truth_scale" in error.value.action
    assert low == 0 or f"{low} to {high}" in error.value.problem
    scaled = ReportingSettings(truth="grade", truth_scale=Scale(lowest=low, highest=high))
    classes = read_samples(Artifact.open(pool), scaled).truth(4, 9)
    assert {grade: int(one) for grade, one in zip(grades, classes, strict=True)} == {
        grade: min(max(Scale(lowest=low, highest=high).rating(grade), 4), 9) - 4 for grade in grades
    }
    assert (classes[grades.index(low)], classes[grades.index(high)]) == (0, 5)


def test_a_truth_in_the_lower_half_of_its_scale_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    samples = [conversation(f"Question {i}?", f"Answer {i}.") for i in range(30)]
    pool = make_pool(tmp_path / "pool", samples, metadata=[{"grade": 0.1 * (i % 5)} for i in range(30)])
    settings = ReportingSettings(truth="grade", truth_scale=Scale(lowest=0, highest=1, step=0.1))
    read = read_samples(Artifact.open(pool), settings)
    assert read.rated is not None
    assert read.rated[:5].tolist() == [1, 2, 3, 4, 5]  # 1 + 0.9 a step, rounded half up
    assert any("from 0 to 0.4" in record.getMessage() for record in caplog.records)


def truth_text(tmp_path: Path, grades: Sequence[int], raw: Sequence[int], score: Sequence[int]) -> str:
    pool = graded_pool(tmp_path / "pool", [{"grade": grade} for grade in grades])
    columns = zip(ids_of(pool), raw, score, strict=True)
    curation = make_curation(tmp_path / "c", [{"id": i, "raw_score": a, "score": b} for i, a, b in columns])
    run(ReportingSettings(truth="grade"), pool=pool, curation=curation, out=tmp_path / "out")
    return page_of(tmp_path / "out").text


def test_curation_that_made_scores_worse_is_said_to_have_done_so(tmp_path: Path) -> None:
    truth = [0, 1, 2, 3, 4, 5] * 10
    text = truth_text(tmp_path, [c + 4 for c in truth], truth, [min(c + 2, 5) for c in truth])
    assert "Curation made the scores worse: the mean absolute error rose from 0.00 to 1.50" in text
    assert "curation raised the mean absolute error of r (0.00 to 1.50)" in text


def test_constant_ratings_are_said_to_order_nothing(tmp_path: Path) -> None:
    truth = [0, 1, 2, 3, 4, 5] * 5
    text = truth_text(tmp_path, [c + 4 for c in truth], [3] * 30, [3] * 30)
    assert "the raw ratings are (almost) constant, so they do not rank" in text
    assert "Curation changed no score that has a known grade." in text
    assert "no more than that of the raw ratings" in text
    assert "not defined" in text


Rows = dict[str, list[tuple[str, str, float | None, float | None, int]]]


def headline_of(tmp_path: Path, pool: Path, scores: Rows) -> str:
    evaluations = [make_evaluation(tmp_path / name, name, rows) for name, rows in scores.items()]
    manifest = run(PLAIN, pool=pool, evaluations=evaluations, out=tmp_path / "out")
    text: str = manifest.facts["headline"]
    return text


def test_a_difference_within_its_margin_is_not_claimed(small_pool: Path, tmp_path: Path) -> None:
    scores: Rows = {"base": [("t", "acc", 0.50, 0.01, 9)], "ds2": [("t", "acc", 0.52, 0.01, 9)]}
    assert "no difference from the base model is shown" in headline_of(tmp_path, small_pool, scores)


def test_the_margin_grows_with_the_number_of_subsets_to_choose_from(small_pool: Path, tmp_path: Path) -> None:
    base, gain = [("t", "acc", 0.50, 0.01, 9)], [("t", "acc", 0.53, 0.01, 9)]
    alone: Rows = {"base": base, "s0": gain}
    assert "a gain that the choice of test items does not explain" in headline_of(tmp_path / "alone", small_pool, alone)
    many: Rows = {"base": base} | {f"s{i}": gain for i in range(10)}
    assert "no difference from the base model is shown" in headline_of(tmp_path / "many", small_pool, many)


def test_a_value_without_standard_error_is_not_compared_with_chance(small_pool: Path, tmp_path: Path) -> None:
    scores: Rows = {"base": [("t", "acc", 0.5, None, 9)], "ds2": [("t", "acc", 0.9, None, 9)]}
    assert "without a standard error, so chance cannot be ruled out" in headline_of(tmp_path, small_pool, scores)


def test_without_the_base_model_nothing_is_claimed(small_pool: Path, tmp_path: Path) -> None:
    headline_of(tmp_path, small_pool, {"ds2": [("t", "acc", 0.9, 0.1, 9)]})
    assert "the base model was not evaluated, so there is nothing to compare it with" in page_of(tmp_path / "out").text


def test_values_that_are_no_shares_have_no_mean_and_less_may_be_better(small_pool: Path, tmp_path: Path) -> None:
    scores: Rows = {
        "base": [("wiki", "word_perplexity", 20.0, 0.1, 9), ("t", "acc", 0.5, 0.1, 9)],
        "ds2": [("wiki", "word_perplexity", 15.0, 0.1, 9), ("t", "acc", 0.5, 0.1, 9)],
    }
    headline_of(tmp_path, small_pool, scores)
    page = page_of(tmp_path / "out")
    assert page.rows("Difference from the base model")[1] == ["ds2", f"{MINUS}5.000 ± 0.141", "+0.000 ± 0.141"]
    assert [e.attributes["class"] for e in page.all("td") if e.text == f"{MINUS}5.000 ± 0.141"] == ["good"]
    assert "there is no mean over tasks" in page.text


def test_further_metrics_of_a_task_are_in_the_csv_only(small_pool: Path, tmp_path: Path) -> None:
    scores: Rows = {"base": [("t", "acc", 0.5, 0.1, 9), ("t", "acc_norm", 0.6, 0.1, 9)]}
    headline_of(tmp_path, small_pool, scores)
    assert "acc_norm" not in page_of(tmp_path / "out").text
    assert "evaluation,base,t acc_norm,0.6,0.1,,,9" in (tmp_path / "out" / "results.csv").read_text()


def test_what_the_suite_says_of_its_tasks_stands_beside_the_scores(small_pool: Path, tmp_path: Path) -> None:
    rows = [("t", "acc", 0.5, 0.1, 9), ("g", "bleu_acc", 0.3, 0.1, 7)]
    suite = about(["t", "g"], beside=["g"], differs="fewer words", notes="Ours.")
    other = make_evaluation(tmp_path / "ds2", "ds2", [("t", "acc", 0.7, 0.1, 9), ("new", "acc", 0.1, 0.1, 2)])
    evaluations = [make_evaluation(tmp_path / "base", "base", rows, suite=suite), other]
    run(PLAIN, pool=small_pool, evaluations=evaluations, out=tmp_path / "out")
    page = page_of(tmp_path / "out")
    assert page.rows("How the benchmarks were run")[1:] == [
        ["t", "9", "3", "fewer words"],
        ["g", "7", "3", "fewer words"],
    ]
    assert "“mine”, version 7. Ours." in page.text
    assert "The mean excludes g." in page.text


def test_a_task_that_its_suite_keeps_out_of_the_mean_enters_none(small_pool: Path, tmp_path: Path) -> None:
    suite = about(["t", "u", "g"], beside=["g"])
    for name, values in (("base", (0.5, 0.3, 0.9)), ("ds2", (0.6, 0.4, 0.1))):
        rows = [(task, "acc", value, 0.1, 9) for task, value in zip(("t", "u", "g"), values, strict=True)]
        make_evaluation(tmp_path / name, name, rows, suite=suite)
    run(PLAIN, pool=small_pool, evaluations=[tmp_path / "base", tmp_path / "ds2"], out=tmp_path / "out")
    page = page_of(tmp_path / "out")
    assert [row[-1].split(" ")[0] for row in page.rows("Scores")[1:]] == ["40.0", "50.0"]
    assert "Over 2 tasks, the best subset, ds2" in page.text


def test_fewer_examples_than_corrections_are_the_most_confident(small_pool: Path, tmp_path: Path) -> None:
    ids = ids_of(small_pool)
    rows = [{"id": i, "raw_score": 1, "score": 2, "confidence": n / 10} for n, i in enumerate(ids)]
    curation = make_curation(tmp_path / "curation", rows)
    run(ReportingSettings(examples=2), pool=small_pool, curation=curation, out=tmp_path / "out")
    shown = [e.text for e in page_of(tmp_path / "out").all("small") if e.text.startswith("confidence")]
    assert shown == ["confidence 0.50", "confidence 0.40"]


def test_no_examples_means_no_text_of_the_pool_on_the_page(small_pool: Path, tmp_path: Path) -> None:
    rows = [{"id": i, "raw_score": 1, "score": 2, "confidence": 0.9} for i in ids_of(small_pool)]
    curation = make_curation(tmp_path / "curation", rows)
    run(ReportingSettings(examples=0), pool=small_pool, curation=curation, out=tmp_path / "out")
    assert "fact about" not in page_of(tmp_path / "out").text
