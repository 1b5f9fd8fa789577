"""`tamis grade next`: which samples are given to people to grade, and in what form."""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from tamis.cli import main
from tamis.core.artifacts import Artifact
from tamis.core.errors import ArtifactError, InputError, SettingsError, StorageError
from tamis.core.ids import pack
from tamis.core.samples import Message, sample_id
from tamis.core.settings import StageSettings, parse
from tamis.core.steps import Step, run_step
from tamis.core.tables import CURATION, curation_with_posterior
from tamis.curation.grade_draw import Scores, draw, expected_loss, read_scores
from tamis.curation.grade_sheets import plain_cell
from tamis.curation.grades import read_grades
from tamis.curation.settings import GradesSettings
from tamis.curation.to_grade import next_to_grade
from tests.artifacts import conversation, make_curation, make_pool

ASKED = [conversation(f"question {i}", f"answer {i}") for i in range(60)]


def scored(samples: Sequence[list[Message]], rater: str = "r", **more: Any) -> list[dict[str, Any]]:
    """Rows of a curation; every seventh sample has no rating, and what the model knows falls from row to row."""
    rows = []
    for i, messages in enumerate(samples):
        known = i % 7 != 0
        rows.append(
            {
                "id": sample_id(messages),
                "rater": rater,
                "raw_score": i % 6 if known else None,
                "score": i % 6 if known else None,
                "suggested": i % 6,
                "confidence": 0.99 - i / 100,
                "error_probability": 0.01 + i / 100 if known else None,
            }
            | more
        )
    return rows


@pytest.fixture
def run(tmp_path: Path) -> Path:
    make_pool(tmp_path / "run" / "pool", ASKED, source=["a"] * 40 + ["b"] * 20)
    make_curation(tmp_path / "run" / "curation", scored(ASKED))
    return tmp_path / "run"


def sheet(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def tamis(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_command_writes_a_sheet_says_what_to_do_and_ends_with_its_place(run: Path) -> None:
    result = tamis("grade", "next", run, "--size", "20")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == f"to grade: {run / 'to-grade.csv'}"
    assert f"--set curation.grades.path={run / 'to-grade.csv'}" in result.output
    assert "20 of 51 samples scored by 'r': 10 drawn at random, 10 with the most doubtful scores" in result.output
    rows = sheet(run / "to-grade.csv")
    assert list(rows[0]) == [
        *("id", "source", "instruction", "response", "grade", "grader", "note"),
        *("raw_score", "score", "confidence", "why", "weight"),
    ]
    assert [row["why"] for row in rows].count("random") == 10
    for row in rows:
        number = int(row["instruction"].removeprefix("question "))
        assert row["id"] == sample_id(ASKED[number])
        assert (row["response"], row["source"]) == (f"answer {number}", "a" if number < 40 else "b")
        assert (row["raw_score"], row["score"]) == (str(number % 6),) * 2
        assert float(row["confidence"]) == pytest.approx(0.99 - number / 100, abs=1e-4)
        assert (row["grade"], row["grader"], row["note"]) == ("", "", "")
        assert (row["weight"] == "") == (row["why"] == "informative")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_sheet_that_was_filled_in_is_read_as_grades(run: Path, kind: str) -> None:
    out = run / f"sheet.{kind}"
    next_to_grade(run, size=20, out=out)
    rows = sheet(out)
    for row in rows[:15]:
        row["grade"] = "7" if kind == "csv" else 7
    if kind == "csv":
        with out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ids = pack(pa.array([sample_id(messages) for messages in ASKED]), where="test")
    grades = read_grades(GradesSettings(path=str(out)), ids, lowest=4, highest=9, scratch=run)
    assert (grades.graded, grades.empty, grades.unknown, grades.weighted) == (15, 5, 0, True)
    assert set(grades.classes[grades.classes >= 0]) == {3}
    assert np.isfinite(grades.weights).sum() == sum(row["why"] == "random" for row in rows[:15])


def test_the_same_command_draws_the_same_samples_and_another_seed_others(run: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        next_to_grade(run, size=20, out=run / f"{name}.jsonl", seed=seed)
    texts = [(run / f"{name}.jsonl").read_bytes() for name in "abc"]
    assert texts[0] == texts[1] != texts[2]


def test_the_informative_ones_are_the_most_doubtful_of_the_rest(run: Path) -> None:
    next_to_grade(run, size=8, out=run / "sheet.jsonl", random_share=0)
    found = {row["instruction"] for row in sheet(run / "sheet.jsonl")}
    doubtful = [i for i in range(59, 0, -1) if i % 7 != 0][:8]
    assert found == {f"question {i}" for i in doubtful}


def test_samples_of_earlier_sheets_are_left_out(run: Path) -> None:
    seen: set[str] = set()
    sheets: list[str] = []
    for number in range(4):
        out = run / f"{number}.{'csv' if number % 2 else 'jsonl'}"
        text = next_to_grade(run, size=15, out=out, graded=sheets)
        ids = {row["id"] for row in sheet(out)}
        assert not ids & seen
        seen |= ids
        sheets.append(str(out))
    assert len(seen) == 51
    assert "15 were requested" in text
    with pytest.raises(InputError, match="none of the 51 samples of the rater 'r' is left to grade"):
        next_to_grade(run, out=run / "last.csv", graded=sheets)


class Graded(StageSettings):
    """Settings of a curation that had grades."""

    OUTPUT_REVISION: ClassVar[int] = 1

    grades: GradesSettings


def curation_with(grades: GradesSettings, out: Path) -> None:
    def write(step: Step[Graded]) -> None:
        table = pa.Table.from_pylist([row | {"flagged": False, "diversity": 0.0} for row in scored(ASKED)], CURATION)
        pq.write_table(table, step.out / "part-00000.parquet")

    run_step("test", "curation", Graded(grades=grades), write, out=out)


def test_what_the_curation_had_a_grade_of_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = [{"truth": 5 if i < 50 else None} for i in range(60)]
    pool = make_pool(tmp_path / "by-field" / "pool", ASKED, metadata=kept)
    curation_with(GradesSettings(column="truth"), tmp_path / "by-field" / "curation")
    next_to_grade(tmp_path / "by-field")
    assert {int(row["instruction"][9:]) for row in sheet(tmp_path / "by-field" / "to-grade.csv")} == {
        i for i in range(50, 60) if i % 7
    }
    file = tmp_path / "grades.jsonl"
    file.write_text("".join(json.dumps({"id": sample_id(ASKED[i]), "grade": 5}) + "\n" for i in range(50)))
    curation_with(GradesSettings(path=str(file)), tmp_path / "by-file" / "curation")
    make_pool(tmp_path / "by-file" / "pool", ASKED)
    next_to_grade(tmp_path / "by-file", out=tmp_path / "first.csv")
    assert len(sheet(tmp_path / "first.csv")) == 9
    file.unlink()
    next_to_grade(tmp_path / "by-file", out=tmp_path / "second.csv")
    assert "the file with --graded" in caplog.text
    assert len(sheet(tmp_path / "second.csv")) == 51
    assert pool.is_dir()


def test_a_sheet_that_is_there_is_never_overwritten(run: Path) -> None:
    next_to_grade(run, size=5)
    before = (run / "to-grade.csv").read_bytes()
    with pytest.raises(StorageError, match="grades"):
        next_to_grade(run, size=5)
    assert (run / "to-grade.csv").read_bytes() == before


def test_without_any_confidence_all_are_drawn_at_random(tmp_path: Path) -> None:
    make_pool(tmp_path / "pool", ASKED)
    make_curation(tmp_path / "curation", scored(ASKED, confidence=None, error_probability=None, suggested=None))
    text = next_to_grade(tmp_path, size=20)
    assert "all samples were drawn at random" in text
    rows = sheet(tmp_path / "to-grade.csv")
    assert {row["why"] for row in rows} == {"random"}
    assert {row["confidence"] for row in rows} == {""}


def test_a_blind_sheet_says_nothing_of_scores(run: Path) -> None:
    next_to_grade(run, size=5, blind=True)
    assert not {"raw_score", "score", "confidence"} & sheet(run / "to-grade.csv")[0].keys()


def test_one_of_several_raters_is_named_or_the_combined_one_taken(tmp_path: Path) -> None:
    make_pool(tmp_path / "pool", ASKED)
    rows = scored(ASKED, "a") + scored(ASKED[:30], "b")
    two = Artifact.open(make_curation(tmp_path / "two", rows), "curation")
    with pytest.raises(SettingsError) as error:
        read_scores(two)
    assert error.value.allowed == "--rater, one of a, b"
    with pytest.raises(SettingsError, match="there is no rater 'c'"):
        read_scores(two, "c")
    assert len(read_scores(two, "b").keys) == 25
    three = Artifact.open(make_curation(tmp_path / "three", rows + scored(ASKED[:10], "combined")), "curation")
    assert read_scores(three).rater == "combined"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--size", "0"], ["--size 0", "1 or more"]),
        (["--random-share", "1.5"], ["--random-share 1.5", "0 to 1"]),
        (["--out", "sheet.xlsx"], ["--out sheet.xlsx", ".csv or .jsonl"]),
        (["--rater", "gpt"], ["there is no rater 'gpt'", "one of r"]),
        (["--graded", "gone.csv"], ["gone.csv", "does not exist"]),
    ],
)
def test_wrong_options_are_explained(run: Path, options: list[str], words: list[str]) -> None:
    result = tamis("grade", "next", run, *options)
    assert result.exit_code == 78
    for word in words:
        assert word in result.output
    assert not (run / "to-grade.csv").exists()


def test_a_folder_that_is_no_run_and_a_curation_of_another_pool_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not exist"):
        next_to_grade(tmp_path / "nowhere")
    make_pool(tmp_path / "mixed" / "pool", ASKED[:50])
    make_curation(tmp_path / "mixed" / "curation", scored(ASKED))
    with pytest.raises(InputError, match="9 of the curation's 51 samples are not in this pool"):
        next_to_grade(tmp_path / "mixed")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", " =", "\n+", "\r"])
def test_text_is_no_formula_in_a_spreadsheet(start: str, tmp_path: Path) -> None:
    text = f"{start}HYPERLINK(1)"
    assert plain_cell(text) == f"'{text}"
    make_pool(tmp_path / "pool", [conversation(text, f'{start}cmd|"a",b')], source="=source")
    make_curation(tmp_path / "curation", scored([conversation("x", "y"), conversation(text, f'{start}cmd|"a",b')])[1:])
    next_to_grade(tmp_path)
    next_to_grade(tmp_path, out=tmp_path / "sheet.jsonl")
    (cells,), (row,) = sheet(tmp_path / "to-grade.csv"), sheet(tmp_path / "sheet.jsonl")
    assert (cells["instruction"], cells["response"]) == (f"'{text}", f'\'{start}cmd|"a",b')
    assert cells["source"] == "'=source"
    assert (row["instruction"], row["source"]) == (text, "=source")


def test_other_text_is_a_cell_as_it_is_unless_it_is_too_long() -> None:
    for text in ("plain", "1 - 2", "a=b", "'quoted", "", "<b>"):
        assert plain_cell(text) == text
    assert plain_cell("=" + "x" * 50_000).startswith("'=xxx")
    assert len(plain_cell("x" * 50_000)) < 32_767
    assert "18,000 more characters" in plain_cell("x" * 50_000)


def test_a_longer_conversation_is_shown_with_its_roles(tmp_path: Path) -> None:
    messages = [Message(role="system", content="be kind"), *conversation("hi", "hello", "who are you?", "a model")]
    make_pool(tmp_path / "pool", [messages])
    make_curation(tmp_path / "curation", scored([ASKED[0], messages])[1:])
    next_to_grade(tmp_path)
    (row,) = sheet(tmp_path / "to-grade.csv")
    assert row["instruction"] == "### system: be kind\n### user: hi\n### assistant: hello\n### user: who are you?"
    assert row["response"] == "a model"


def test_a_mean_far_from_the_score_is_a_loss_and_what_is_not_known_is_nan() -> None:
    raw = np.array([2, 2, 2, -1, 2, 2, 3], np.int8)
    score = np.array([2, 3, 2, -1, 2, 2, 2], np.int8)
    confidence = np.array([0.9, 0.8, 0.3, 0.3, np.nan, 0.9, 0.2613])  # the last one's most probable class is 1
    wrong = np.array([0.1, 0.95, 0.7, np.nan, np.nan, 0.1, 0.761])
    mean = np.array([np.nan, np.nan, np.nan, np.nan, 2.0, 3.5, 2.19])
    loss = expected_loss(raw, score, confidence, wrong, mean)
    np.testing.assert_allclose(loss, [0.1, 0.2, 0.7, 0.7, np.nan, 1.5, 0.7387])


def read_with(folder: Path, more: dict[str, Any], schema: pa.Schema, rows: list[dict[str, Any]]) -> Scores:
    def write(step: Step[Graded]) -> None:
        table = pa.Table.from_pylist([row | {"flagged": False, "diversity": 0.0} | more for row in rows], schema)
        pq.write_table(table, step.out / "part-00000.parquet")

    run_step("test", "curation", Graded(grades=GradesSettings(column="x")), write, out=folder)
    return read_scores(Artifact.open(folder, "curation"))


def test_means_and_posteriors_of_a_table_are_used_and_it_may_lack_them(tmp_path: Path) -> None:
    bare = pa.schema([field for field in CURATION if field.name != "mean"])
    scores = read_with(tmp_path / "bare", {}, bare, scored(ASKED))
    np.testing.assert_allclose(scores.loss, 1 - scores.confidence, rtol=1e-5)
    scores = read_with(tmp_path / "means", {"mean": 5.0}, CURATION, scored(ASKED))
    np.testing.assert_allclose(scores.loss, np.maximum(5.0 - scores.score, 1 - scores.confidence), rtol=1e-6)
    posterior = np.array([0.5, 0.1, 0.1, 0.1, 0.1, 0.1], np.float32)
    rows = [row | {"posterior": posterior.tolist() if i % 2 else None} for i, row in enumerate(scored(ASKED))]
    scores = read_with(tmp_path / "posteriors", {}, curation_with_posterior(6), rows)
    ids = np.array([i for i in range(60) if i % 7])
    exact = (posterior * np.abs(scores.score[:, None] - np.arange(6))).sum(1)
    np.testing.assert_allclose(scores.loss, np.where(ids % 2, exact, 1 - scores.confidence), rtol=1e-6)


def many(n: int, random: np.random.Generator, classes: Sequence[float] = (0.05, 0.1, 0.3, 0.35, 0.18, 0.02)) -> Scores:
    keys = random.integers(0, 256, (n, 16), np.uint8).view("S16").ravel()
    score = random.choice(6, n, p=classes).astype(np.int8)
    return Scores("r", keys, score, score, np.full(n, 0.5), random.random(n))


def test_weights_make_estimates_unbiased_and_every_stratum_is_seen() -> None:
    random = np.random.default_rng(0)
    scores, sources = many(3000, random), random.choice(3, 3000, p=[0.7, 0.28, 0.02])
    value = scores.score + (sources == 2) * 3.0 + random.normal(size=3000)
    totals, counts, seen = [], [], np.zeros(3000)
    for seed in range(400):
        drawn = draw(scores, sources, size=120, random_share=0.5, seed=seed)
        core = np.isfinite(drawn.weights)
        assert (drawn.random, len(np.unique(drawn.rows))) == (60, 120)
        totals.append((drawn.weights[core] * value[drawn.rows[core]]).sum())
        counts.append(drawn.weights[core].sum())
        seen[drawn.rows[core]] += 1
    for found, truth in ((totals, value.sum()), (counts, 3000)):
        assert abs(np.mean(found) - truth) < 4 * np.std(found) / 20
    # No weight is above 4/3 of that of a simple random sample, and the smallest source, 2 % of the pool, is drawn more.
    assert drawn.weights[core].max() <= 3000 / 60 * 4 / 3 + 1e-6
    assert seen[sources == 2].mean() > 1.5 * seen[sources != 2].mean()


def test_the_order_of_the_samples_decides_nothing() -> None:
    random = np.random.default_rng(1)
    scores, sources = many(500, random), random.integers(0, 2, 500)
    order = random.permutation(500)
    one, other = draw(scores, sources, size=50, seed=3), draw(scores.of(order), sources[order], size=50, seed=3)
    assert scores.keys[one.rows].tolist() == scores.keys[order][other.rows].tolist()
    np.testing.assert_allclose(one.weights, other.weights)


@pytest.mark.parametrize("known", [0, 1, 30, 200])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("size", [1, 7, 199, 200, 500])
def test_as_many_are_drawn_as_are_asked_for_whatever_is_known(size: int, share: float, known: int) -> None:
    random = np.random.default_rng(2)
    scores = many(200, random)
    scores.loss[known:] = np.nan
    drawn = draw(scores, random.integers(0, 40, 200), size=size, random_share=share, seed=0)
    assert len(np.unique(drawn.rows)) == len(drawn.rows) == min(size, 200)
    assert np.isfinite(scores.loss[drawn.rows[np.isnan(drawn.weights)]]).all()
    assert (drawn.weights[np.isfinite(drawn.weights)] >= 1 - 1e-9).all()
    if known == 200:
        assert drawn.random == int(min(size, 200) * share + 0.5)


def test_the_run_s_own_scale_and_ids_are_what_the_next_sheet_is_read_with(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool", ASKED, metadata=[{"uid": f"u{i}"} for i in range(60)])
    file = tmp_path / "own.jsonl"
    file.write_text("".join(json.dumps({"uid": f"u{i}", "grade": 1 + i % 5}) + "\n" for i in range(50)))
    used = parse(
        GradesSettings, {"path": str(file), "key": "uid", "scale": {"lowest": 1, "highest": 5}}, where="settings"
    )
    curation_with(used, tmp_path / "curation")
    text = next_to_grade(tmp_path, blind=True)
    assert "1 (worst) to 5 (best)" in text
    rows = sheet(tmp_path / "to-grade.csv")
    assert {int(row["instruction"][9:]) for row in rows} == {i for i in range(50, 60) if i % 7}
    # The setting that is said reads both files, the sheet with its grades on that scale.
    with (tmp_path / "to-grade.csv").open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"grade": "5"} for row in rows)
    said = shlex.split(text.splitlines()[-2])[-1]
    given = json.loads(said.removeprefix("curation.grades="))
    ids = pack(pa.array([sample_id(messages) for messages in ASKED]), where="test")
    grades = read_grades(
        parse(GradesSettings, given, where="said"),
        ids,
        lowest=4,
        highest=9,
        scratch=tmp_path,
        pool=Artifact.open(pool, "pool"),
    )
    assert grades.graded == 50 + len(rows)
    assert {int(grades.classes[i]) for i in range(50, 60) if i % 7} == {5}
