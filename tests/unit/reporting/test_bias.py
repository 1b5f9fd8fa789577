"""The section on bias: what scores follow besides quality."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tamis.core.artifacts import Artifact
from tamis.reporting.settings import ReportingSettings
from tamis.reporting.stage import run
from tests.artifacts import conversation, make_curation, make_pool
from tests.unit.reporting.conftest import HOSTILE, Made
from tests.unit.reporting.markup import Page

N = 400
LENGTH = "Rank correlation of scores with length"
GROUPS = "Correlation ratio of scores with groups"
RUSSIAN = "небо голубое "


class Length:
    """A report on answers of known lengths, raw scores that follow nothing and curated ones that follow length."""

    def __init__(
        self,
        folder: Path,
        *,
        n: int = N,
        source: Sequence[str] | str = "one",
        metadata: Sequence[dict[str, Any]] | None = None,
        word: Sequence[str] = ("sky ",),
        follow: float = 1.0,
        mean: bool = False,
        unrated: int = 0,
        truth: str | None = None,
    ) -> None:
        random = np.random.default_rng(8)
        times = random.permutation(n) + 1
        samples = [conversation(f"Question {i}?", word[i % len(word)] * int(t)) for i, t in enumerate(times)]
        self.pool = make_pool(folder / "pool", samples, source=source, metadata=metadata)
        self.ids: list[str] = Artifact.open(self.pool).table(["id"])["id"].to_pylist()
        self.length = np.array([len(sample[1]["content"]) for sample in samples])
        self.raw = random.integers(0, 6, n)
        quantile = stats.rankdata(self.length) / n
        self.score = np.where(random.random(n) < follow, np.minimum(6 * quantile, 5).astype(int), self.raw)
        rows = [
            {"id": sample, "raw_score": None if i < unrated else int(raw), "score": int(score)}
            | ({"mean": float(score) + 0.01} if mean else {})
            for i, (sample, raw, score) in enumerate(zip(self.ids, self.raw, self.score, strict=True))
        ]
        curation = make_curation(folder / "curation", rows)
        settings = ReportingSettings(truth=truth)
        manifest = run(settings, pool=self.pool, curation=curation, out=folder / "out")
        self.headline: str = manifest.facts["headline"]
        self.html = (folder / "out/report.html").read_text(encoding="utf-8")
        self.page = Page(self.html)
        with (folder / "out/results.csv").open(encoding="utf-8") as file:
            rows_ = [row for row in csv.DictReader(file) if row["section"] == "bias"]
        self.results = {row["measure"]: float(row["value"]) for row in rows_ if row["value"]}

    @property
    def cautions(self) -> list[str]:
        return [e.text for e in self.page.all("li") if e.text.startswith("Caution r: ")]


def test_correlations_with_length_are_spearmans(tmp_path: Path) -> None:
    made = Length(tmp_path, follow=0.5, mean=True)
    for name, scores in (("raw", made.raw), ("curated", made.score), ("mean", made.score + 0.01)):
        expected = stats.spearmanr(scores, made.length).statistic
        assert made.results[f"{name} scores and answer length"] == pytest.approx(expected)
    assert made.results["curated and raw scores"] == pytest.approx(stats.spearmanr(made.raw, made.score).statistic)
    rows = made.page.rows(LENGTH)
    assert [row[0] for row in rows[1:]] == ["r, raw", "r, curated", "r, mean"]
    assert rows[1][-1] == str(N)


def test_scores_that_follow_length_much_more_after_curation_are_warned_of(tmp_path: Path) -> None:
    made = Length(tmp_path)
    assert any("answer length" in text for text in made.cautions)
    assert "answer length" in made.headline
    bad = [e.text for e in made.page.all("td") if e.attributes.get("class") == "bad"]
    assert [row[1:3] for row in made.page.rows(LENGTH)[2:]] == [bad]


def test_predicted_scores_are_looked_at_by_themselves(tmp_path: Path) -> None:
    made = Length(tmp_path, n=600, unrated=250, mean=True)
    rows = {row[0]: row for row in made.page.rows(LENGTH)}
    assert [rows[f"r, {name}"][-1] for name in ("raw", "curated", "predicted")] == ["350", "350", "250"]
    expected = stats.spearmanr(made.score[:250], made.length[:250]).statistic
    assert made.results["predicted scores and answer length"] == pytest.approx(expected)
    assert "predicted and raw scores" not in made.results


def test_few_predicted_scores_are_not_looked_at(tmp_path: Path) -> None:
    made = Length(tmp_path, unrated=9)
    assert [row[0] for row in made.page.rows(LENGTH)[1:]] == ["r, raw", "r, curated"]


def test_a_small_change_is_not_warned_of(tmp_path: Path) -> None:
    made = Length(tmp_path, follow=0.05)
    assert made.cautions == []
    assert "length" not in made.headline
    assert 'class="bad"' not in made.html


def test_few_samples_are_not_warned_of(tmp_path: Path) -> None:
    made = Length(tmp_path, n=60)
    assert made.results["curated scores and answer length"] > 0.9
    assert made.cautions == []


def test_without_a_curation_the_section_says_so(small_pool: Path, tmp_path: Path) -> None:
    run(ReportingSettings(), pool=small_pool, out=tmp_path / "out")
    assert Page((tmp_path / "out/report.html").read_text(encoding="utf-8")).rows(LENGTH) == []


def test_the_correlation_ratio_with_sources_is_that_of_ranks(tmp_path: Path) -> None:
    names = ["a", "b", "b", "c"] * (N // 4)
    made = Length(tmp_path, source=names)
    ranks = stats.rankdata(made.score)
    means = {name: ranks[np.array(names) == name].mean() for name in names}
    between = np.var([means[name] for name in names]) / ranks.var()
    assert made.results["curated scores and source"] == pytest.approx(np.sqrt(between))
    header, raw, _ = made.page.rows(GROUPS)
    assert header == ["scores", "source", "source, given length", "source, by chance"]
    assert raw[3] == f"{np.sqrt(2 / (N - 1)):.2f}"


def test_a_source_that_differs_in_length_alone_is_none_at_equal_length(tmp_path: Path) -> None:
    made = Length(tmp_path, source=["a"] * N)
    halves = np.where(stats.rankdata(made.length) > N / 2, "long", "short").tolist()
    again = Length(tmp_path / "again", source=halves)
    assert again.results["curated scores and source"] > 0.8
    assert again.results["curated scores and source, given length"] < 0.35


def test_small_sources_do_not_count_as_groups(tmp_path: Path) -> None:
    made = Length(tmp_path, source=["a"] * (N - 19) + [f"b{i}" for i in range(19)])
    assert made.page.rows(GROUPS) == []


@pytest.mark.parametrize("field", ["language", "lang"])
def test_languages_are_those_that_the_pool_names(field: str, tmp_path: Path) -> None:
    fields: list[dict[str, Any]] = [{field: ["de", "en"][i % 2], "lang": ["de", "en"][i % 2]} for i in range(N)]
    made = Length(tmp_path, metadata=fields, word=("sky ", RUSSIAN))
    assert "curated scores and language" in made.results
    assert f"'{field}': de 50.0 % and en 50.0 %" in made.page.text


def test_scripts_stand_in_for_languages_that_nobody_named(tmp_path: Path) -> None:
    made = Length(tmp_path, word=("sky ", RUSSIAN))
    assert "Cyrillic 50.0 % and Latin 50.0 %" in made.page.text
    assert made.page.rows(GROUPS)[0][1:3] == ["script", "script, given length"]
    expected = made.results["curated scores and script"]
    assert expected == pytest.approx(
        abs(stats.pearsonr(stats.rankdata(made.score), np.arange(N) % 2).statistic), abs=1e-9
    )


def test_names_of_sources_and_languages_are_text(tmp_path: Path) -> None:
    names = [HOSTILE + str(i % 2) for i in range(N)]
    made = Length(tmp_path, source=names, metadata=[{"language": name} for name in names])
    assert "<script>alert(1)" not in made.html
    assert "<script>alert(1)</script>" in made.page.text
    assert made.page.unbalanced == []


def test_the_truth_stands_beside_the_scores(tmp_path: Path) -> None:
    made = Length(tmp_path, metadata=[{"grade": 1 + i % 10} for i in range(N)], truth="grade")
    row = made.page.rows(LENGTH)[-1]
    truth = np.clip(np.arange(N) % 10 + 1, 4, 9)
    assert float(row[1].replace("\N{MINUS SIGN}", "-")) == pytest.approx(
        stats.spearmanr(truth, made.length).statistic, abs=0.006
    )


def test_the_example_is_drawn_for_each_rater(made: Made) -> None:
    assert {path.stem for path in (made.folder / "plots").glob("bias-*.svg")} == {
        "bias-mistral-7b",
        "bias-smollm2-135m",
    }
