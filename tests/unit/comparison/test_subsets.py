"""Comparison of subsets."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.comparison.subsets import Comparison, compare, compare_report, jaccard, markdown, overlap_csv, summary
from tamis.core.artifacts import Artifact
from tamis.core.errors import ArtifactError, InputError
from tamis.selection.stage import run
from tests.artifacts import conversation, make_curation, make_pool
from tests.unit.selection.test_stage import IDS, SAMPLES, SOURCES, curation_rows, lines_of, settings_of


@pytest.fixture
def made(tmp_path: Path) -> dict[str, Path]:
    """A pool, a curation by two raters, and three selections."""
    make_pool(tmp_path / "pool", SAMPLES, source=SOURCES)
    make_curation(tmp_path / "curation", curation_rows("llama") + curation_rows("gpt", shift=2))
    for name, strategy, values in (
        ("ds2", "ds2", {"size": 6, "rater": "llama"}),
        ("any", "random", {"size": 9}),
        ("all", "full", {}),
    ):
        settings = settings_of(strategy, **{"name": name} | values)  # type: ignore[arg-type]
        run(settings, pool=tmp_path / "pool", curation=tmp_path / "curation", out=tmp_path / name)
    return {name: tmp_path / name for name in ("pool", "curation", "ds2", "any", "all")}


def compared(made: dict[str, Path], *names: str, curation: bool = True) -> Comparison:
    return compare(
        [Artifact.open(made[name]) for name in names],
        Artifact.open(made["pool"]),
        Artifact.open(made["curation"]) if curation else None,
    )


@given(st.integers(1, 20).flatmap(lambda n: st.lists(st.sets(st.integers(0, n - 1), min_size=1), min_size=1)))
def test_overlap_is_that_of_the_sets(sets: list[set[int]]) -> None:
    shared, overlap = jaccard([np.isin(np.arange(20), list(members)) for members in sets])
    assert shared.tolist() == [[len(a & b) for b in sets] for a in sets]
    np.testing.assert_allclose(overlap, [[len(a & b) / len(a | b) for b in sets] for a in sets])


def test_a_summary_has_mean_median_and_deciles() -> None:
    found = summary(np.arange(11))
    assert (found.mean, found.median, found.p10, found.p90) == (5, 5, 1, 9)


def test_the_parts_of_a_comparison_are_those_of_the_subsets(made: dict[str, Path]) -> None:
    found = compared(made, "ds2", "any", "all")
    ids = {name: {line["id"] for line in lines_of(made[name])} for name in ("ds2", "any", "all")}
    rows = {name: [i for i, identity in enumerate(IDS) if identity in ids[name]] for name in ids}
    assert found.overlap.tolist() == [[len(a & b) / len(a | b) for b in ids.values()] for a in ids.values()]
    for subset in found.subsets:
        here = rows[subset.name]
        assert subset.size == len(here)
        assert subset.sources == {s: sum(SOURCES[i] == s for i in here) for s in ("first", "second")}
        assert subset.lengths == summary(np.array([(i + 1) + (i % 3 + 1) for i in here]))
        assert subset.diversity == summary(np.array([curation_rows()[i]["diversity"] for i in here], np.float32))
        for rater, shift in (("llama", 0), ("gpt", 2)):
            scores = [curation_rows(shift=shift)[i]["score"] for i in here]
            assert subset.scores[rater] == [scores.count(c) for c in range(6)]
    whole = found.subsets[2]
    assert (found.pool.size, found.pool.sources, found.pool.lengths, found.pool.scores) == (
        whole.size,
        whole.sources,
        whole.lengths,
        whole.scores,
    )


def table_below(text: str, heading: str) -> dict[str, list[str]]:
    """First cell to the other cells of each row of the table below `heading`."""
    lines = text.split(f"## {heading}\n")[1].split("## ")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("|")]
    return {row[0]: row[1:] for row in rows[2:]}


def test_the_tables_say_the_same_in_words(made: dict[str, Path]) -> None:
    found = compared(made, "ds2", "all")
    text = markdown(found)
    assert table_below(text, "Overlap") == {"ds2": ["1.000 (6)", "0.250 (6)"], "all": ["0.250 (6)", "1.000 (24)"]}
    assert table_below(text, "Sources")["(pool)"] == ["24", "50.0", "50.0"]
    assert table_below(text, "Length")["all"][0] == f"{found.pool.lengths.mean:,.0f}"
    # 23 samples have a score: four in each class but three in class 0, where sample 5 would be.
    mean = 4 * (1 + 2 + 3 + 4 + 5) / 23
    assert "| (pool) | llama | " + f"{mean:.3f} | 12.5 | 16.7 | 16.7 | 16.7 | 16.7 | 16.7 | 4.2 |" in text
    assert table_below(text, "Diversity")["ds2"][0] == f"{found.subsets[0].diversity.mean:.4f}"  # type: ignore[union-attr]


def test_without_a_curation_there_are_no_scores_and_no_diversity(made: dict[str, Path]) -> None:
    text = markdown(compared(made, "ds2", "any", curation=False))
    assert "## Length" in text
    assert "## Scores" not in text
    assert "## Diversity" not in text


def test_overlap_as_csv_is_a_square_with_names(made: dict[str, Path]) -> None:
    rows = list(csv.reader(overlap_csv(compared(made, "ds2", "all")).splitlines()))
    assert rows == [["subset", "ds2", "all"], ["ds2", "1.000000", "0.250000"], ["all", "0.250000", "1.000000"]]


def test_a_report_is_three_files_with_the_same_bytes_each_time(made: dict[str, Path], tmp_path: Path) -> None:
    uris = [made["ds2"], made["any"], made["all"]]
    arguments: dict[str, Any] = {"pool": made["pool"], "curation": made["curation"]}
    text = compare_report(uris, out=tmp_path / "a", **arguments)
    compare_report(uris, out=tmp_path / "b", **arguments)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["comparison.md", "comparison.png", "overlap.csv"]
    assert (tmp_path / "a" / "comparison.md").read_text() == text
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    from matplotlib.image import imread

    picture = imread(tmp_path / "a" / "comparison.png")
    assert picture.shape[1] > 1000
    assert picture.std() > 0.05  # something is drawn


def test_many_sources_are_drawn_together_and_odd_names_keep_the_tables_whole(tmp_path: Path) -> None:
    names = [f"source {i} | part" for i in range(14)]
    samples = [conversation(f"Question {i}", "An answer") for i in range(28)]
    pool = make_pool(tmp_path / "pool", samples, source=names * 2)
    run(settings_of("full"), pool=pool, out=tmp_path / "all")
    text = compare_report([tmp_path / "all"], pool=pool, out=tmp_path / "out")
    assert "source 3 \\| part" in text
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 10_000


def test_samples_outside_of_the_pool_are_an_error_with_their_count(made: dict[str, Path], tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "half", SAMPLES[:12], source=SOURCES[:12])
    with pytest.raises(InputError, match=r"\b12 of its 24 samples"):
        compare_report([made["all"]], pool=pool, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_selections_of_one_name_are_an_error(made: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'all'"):
        compare_report([made["all"], made["all"]], pool=made["pool"], out=tmp_path / "out")


def test_what_is_no_selection_is_refused(made: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is a pool"):
        compare_report([made["pool"]], pool=made["pool"], out=tmp_path / "out")
