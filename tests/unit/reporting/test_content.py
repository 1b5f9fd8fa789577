"""What the report of the example says: its numbers against those of the artifacts."""

from __future__ import annotations

import csv
import io
import re

import numpy as np
import pytest

from tamis.core.artifacts import Artifact
from tamis.reporting.numbers import DASH, MINUS
from tests.unit.reporting.conftest import Made
from tests.unit.reporting.markup import Page


@pytest.fixture(scope="module")
def page(made: Made) -> Page:
    return Page(made.text("report.html"))


@pytest.fixture(scope="module")
def results(made: Made) -> dict[tuple[str, str, str], dict[str, str]]:
    rows = list(csv.DictReader(io.StringIO(made.text("results.csv"))))
    assert len(rows) == made.manifest.rows
    keyed = {(row["section"], row["subject"], row["measure"]): row for row in rows}
    assert len(keyed) == len(rows), "a number is there once"
    return keyed


def test_the_headline_is_in_the_facts_and_in_the_markdown(made: Made) -> None:
    headline = made.manifest.facts["headline"]
    assert headline.startswith("400 samples from 3 sources; 792 ratings by 2 raters, 8 missing; ")
    assert "the best subset, ds2, reached 37.7 on average, the base model 34.2: +3.5 points" in headline
    assert "Ratings by smollm2-135m are not shown" in headline
    assert headline in made.text("results.md")
    assert "\N{NO-BREAK SPACE}" not in headline


def test_counts_of_corrections_are_those_of_the_curation(made: Made, results: dict, page: Page) -> None:
    table = Artifact.open(made.run.curation).table().to_pandas()
    for rater, rows in table.groupby("rater"):
        rated = rows[rows.raw_score.notna()]
        corrected = int((rated.raw_score != rated.score).sum())
        assert int(results["curation", rater, "ratings corrected"]["value"]) == corrected
        assert int(results["curation", rater, "ratings flagged"]["value"]) == int(rated.flagged.sum())
        for score in range(6):
            value = results["curation", rater, f"raw class {score}"]["value"]
            assert int(value) == int((rated.raw_score == score).sum())
        row = next(r for r in page.rows("Flagged and corrected ratings") if r[0] == rater)
        assert row[1:6:2] == [
            str(len(rated)),
            f"{100 * rated.flagged.mean():.1f} %",
            f"{100 * corrected / len(rated):.1f} %",
        ]


def test_unrated_samples_are_counted_with_reasons_and_not_as_low_scores(results: dict, page: Page) -> None:
    rows = page.rows("Samples without a rating")[1:]
    assert {row[0] for row in rows} == {"smollm2-135m"}
    assert sum(int(row[3]) for row in rows) == 8
    assert {row[1] for row in rows} == {"rater refused", "answer could not be read"}
    assert int(results["ratings", "smollm2-135m", "samples rated"]["value"]) == 392
    assert sum(int(results["ratings", "smollm2-135m", f"ratings of {v}"]["value"]) for v in range(1, 11)) == 392
    assert sum(int(results["curation", "smollm2-135m", f"raw class {c}"]["value"]) for c in range(6)) == 392


def test_agreement_is_that_of_the_samples_that_both_rated(made: Made, results: dict) -> None:
    one, other = (Artifact.open(uri).table().to_pandas().overall for uri in made.run.ratings)
    both = one.notna() & other.notna()
    pair = "mistral-7b and smollm2-135m"
    exact = results["ratings", pair, "exact agreement"]
    assert int(exact["n"]) == int(both.sum())
    assert float(exact["value"]) == pytest.approx((one == other)[both].mean())
    within = float(results["ratings", pair, "agreement within one"]["value"])
    assert within == pytest.approx(((one - other).abs() <= 1)[both].mean())
    assert float(results["ratings", pair, "Pearson"]["value"]) == pytest.approx(
        np.corrcoef(one[both], other[both])[0, 1]
    )


def test_the_truth_section_does_not_call_chance_knowledge(page: Page, results: dict) -> None:
    assert "do not show that the raw ratings rank samples better than chance" in page.text
    assert "includes zero" in page.text
    assert "mistral-7b: the raw ratings carry information about the truth" in page.text
    assert "380 of 400 samples have a 'grade'" in page.text
    spearman = results["truth", "smollm2-135m", "raw Spearman"]
    assert float(spearman["low"]) < 0 < float(spearman["high"])
    assert float(results["truth", "mistral-7b", "change of mean absolute error"]["high"]) < 0


def test_errors_against_the_truth_are_over_the_samples_that_have_it(made: Made, results: dict) -> None:
    pool = Artifact.open(made.run.pool).table(["id", "metadata"]).to_pandas()
    grades = pool.metadata.str.extract(r'"grade": (\d+)')[0].astype(float)
    truth = dict(zip(pool.id, grades.clip(4, 9) - 4, strict=True))
    table = Artifact.open(made.run.curation).table().to_pandas()
    for rater, rows in table[table.raw_score.notna()].groupby("rater"):
        true = rows.id.map(truth)
        for name, column in (("raw", rows.raw_score), ("curated", rows.score)):
            found = results["truth", rater, f"{name} mean absolute error"]
            assert float(found["value"]) == pytest.approx((column - true).abs().mean())
            assert int(found["n"]) == int(true.notna().sum())
            ranked = column[true.notna()].rank().corr(true[true.notna()].rank())
            assert float(results["truth", rater, f"{name} Spearman"]["value"]) == pytest.approx(ranked)


def test_subsets_are_described_beside_the_whole_pool(made: Made, page: Page, results: dict) -> None:
    rows = page.rows("Subsets and the whole pool")
    assert [row[0] for row in rows[1:]] == ["whole pool", "ds2", "random", "longest"]
    assert [row[2] for row in rows[1:]] == ["400", "60", "60", "90"]
    assert float(results["subsets", "longest", "median length in characters"]["value"]) > 2 * float(
        results["subsets", "random", "median length in characters"]["value"]
    )
    assert results["subsets", "random", "mean grade"]["stderr"] != ""
    overlap = float(results["subsets", "ds2 and longest", "Jaccard index"]["value"])
    shared = int(results["subsets", "ds2 and longest", "shared samples"]["value"])
    assert overlap == pytest.approx(shared / (60 + 90 - shared))


def test_missing_and_failed_cells_are_named_and_never_zero(page: Page, results: dict) -> None:
    rows = {row[0]: row for row in page.rows("Scores")}
    assert rows["longest"][1:] == ["59.0 ± 1.0", "failed", "not run", DASH]
    assert list(rows)[1] == "base"
    assert results["evaluation", "longest", "gsm8k exact_match"]["value"] == ""
    assert results["evaluation", "longest", "mean over tasks"]["value"] == ""
    assert ("evaluation", "longest", "truthfulqa_mc2 acc") not in results
    assert "longest has no value for gsm8k; it is left out of the means, not counted as zero." in page.text


def test_differences_come_with_their_own_standard_errors(page: Page) -> None:
    rows = {row[0]: row for row in page.rows("Difference from the base model")}
    assert "base" not in rows
    assert rows["ds2"] == ["ds2", "+3.6 ± 1.4", "+3.1 ± 1.1", "+3.7 ± 2.4", "+3.5 ± 1.0"]
    assert rows["longest"] == ["longest", f"{MINUS}2.2 ± 1.4", DASH, DASH, DASH]


def test_corrections_show_both_scores_the_texts_and_the_grade(made: Made, page: Page) -> None:
    table = Artifact.open(made.run.curation).table().to_pandas()
    rows = table[(table.rater == "mistral-7b") & (table.raw_score != table.score) & table.raw_score.notna()]
    best = rows.sort_values(["confidence", "id"], ascending=[False, True]).iloc[0]
    text = re.sub(r"\s+", " ", page.text)
    position = text.index("corrections with the highest confidence")
    assert (
        text[position:]
        .split(":", 1)[1]
        .strip()
        .startswith(f"{int(best.raw_score)} → {int(best.score)} confidence {best.confidence:.2f}")
    )
    items = [e for e in page.all("li") if e.text.startswith(f"{int(best.raw_score)}") and "confidence" in e.text]
    assert items
    corrections, picks = 2 * 20, 3 * (10 + 10)  # of two raters; of three subsets, the first and the last
    assert len([e for e in page.all("p") if e.attributes.get("class") == "instruction"]) == corrections + picks


def test_pool_counts_are_shown_with_what_was_left_out(page: Page) -> None:
    assert ["handwritten", "181", "172", "2", "7"] in page.rows("Rows of each source")
    lost, other = page.rows("Fields that are not read")[-2:]
    assert (lost, other) == (["handwritten", "messages.weight", "9", "3"], ["handwritten", "id", "172", "0"])
    assert ["reject reasons, empty message", "4"] in page.rows("What the pool stage counted")


def test_what_the_embedding_could_not_read_is_shown(page: Page) -> None:
    rows = page.rows("Limits of the embedding")
    assert [row[-1] for row in rows[-3:]] == ["11", "4", "120"]


def test_cost_and_reproduction_come_from_the_manifests(made: Made, page: Page) -> None:
    manifest = Artifact.open(made.run.curation).manifest
    row = next(row for row in page.rows("Hashes") if row[0] == "curation")
    assert row[1:] == [manifest.config_hash[:16], manifest.content_hash[:16]]
    assert ["ratings mistral-7b", "rater", "example/mistral-7b@main"] in page.rows("Models")
    assert ["tamis", manifest.versions["tamis"]] in page.rows("Versions")


def test_what_services_took_is_shown(made: Made, page: Page) -> None:
    header, *rows = page.rows("Time and memory")
    money = {row[0]: row[header.index("money")] for row in rows}
    assert (money["ratings mistral-7b"], money["ratings smollm2-135m"]) == ("1.25", DASH)
    assert "Services cost 1.25 " in page.text


def test_the_markdown_has_tables_and_neither_times_nor_live_html(made: Made) -> None:
    text = made.text("results.md")
    assert "| mistral-7b | 400 | 149 |" in text
    assert "## Cost" not in text
    assert "<script" not in text
    assert text.startswith("# A &amp; B &lt;b&gt;\n")


def test_what_was_not_trained_on_is_said_with_the_reason(made: Made) -> None:
    said = "longest was not trained on 2 of its 90 samples: a turn is longer than max_tokens: 2."
    assert said in made.text("report.html")
    assert "ds2 was not trained" not in made.text("report.html")
