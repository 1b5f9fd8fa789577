"""`tamis rating next`: which samples of a run are to be rated next, what is said of it, and how the file goes back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from tamis.cli import main
from tamis.core.artifacts import Artifact
from tamis.core.errors import ArtifactError, InputError, SettingsError, StorageError
from tamis.core.samples import sample_id
from tamis.core.settings import parse
from tamis.rating import stage as rating
from tamis.rating.settings import RatingSettings
from tamis.selection.settings import SelectionSettings
from tamis.selection.stage import run as select
from tamis.selection.to_rate import next_ratings
from tests.artifacts import conversation, make_curation, make_pool, make_ratings
from tests.llm_server import Server

SAMPLES = [conversation(f"question {i}", f"answer {i}") for i in range(40)]
IDS = [sample_id(messages) for messages in SAMPLES]
RATED, UNRATED = range(20), range(20, 40)
SIZE = 10
# Rated are 20 samples, the first 15 of class 3. With ten places the cut is in that class, so that an unrated one is
# above it with the probability of the class 4.
ENTERS = {30: 0.75, 31: 0.5, 32: 0.25, 33: 0.125}


def posterior_of(i: int) -> list[float]:
    above = ENTERS.get(i, 0.0)
    return [0.5 * (1 - above), 0.5 * (1 - above), 0.0, 0.0, above, 0.0]


def rows_of(rater: str = "r", **more: Any) -> list[dict[str, Any]]:
    rated = [
        {"id": IDS[i], "rater": rater, "raw_score": 3 - i // 15, "score": 3 - i // 15, "diversity": (i % 15 + 3) / 20}
        for i in RATED
    ]
    rest = [
        {"id": IDS[i], "rater": rater, "diversity": 0.5, "mean": 0.5, "posterior": posterior_of(i)} | more
        for i in UNRATED
    ]
    return rated + rest


def make_run(folder: Path, rows: Sequence[dict[str, Any]], **subset: Any) -> Path:
    make_pool(folder / "pool", SAMPLES, source=["a"] * 20 + ["b"] * 20)
    make_curation(folder / "curation", rows)
    settings = {"name": "best", "strategy": "ds2", "size": SIZE} | subset
    given = {"pool": folder / "pool", "curation": folder / "curation"}
    select(parse(SelectionSettings, settings, where="here"), **given, out=folder / "selections" / "best")
    return folder


def rate(folder: Path, name: str = "r", **facts: Any) -> None:
    overall = [7 if i in RATED else None for i in range(40)]
    not_asked = [IDS[i] for i in UNRATED]
    make_ratings(folder / "ratings" / name, name, IDS, overall, not_asked=not_asked, facts={"ok": 20} | facts)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = make_run(tmp_path / "run", rows_of())
    rate(folder, cost=0.5, prompt_tokens=2000, completion_tokens=100)
    return folder


def tamis(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def listed(file: Path) -> list[int]:
    return [IDS.index(line) for line in file.read_text().splitlines()]


def test_the_command_writes_those_at_the_cut_first_and_says_what_that_does(run: Path) -> None:
    result = tamis("rating", "next", run, "--subset", "best", "--size", "2")
    assert result.exit_code == 0, result.output
    assert listed(run / "to-rate-1.txt") == [30, 31]
    assert result.output.splitlines() == [
        "2 samples to rate: those most likely to change the subset 'best'",
        "if the true classes of the 20 samples without a rating by 'r' were known, at most 16.2% of the 10 "
        "samples in 'best' would change",
        "once they are rated, if their ratings are right: at most 3.75%",
        "target of 2%: not reached; it takes 1 more sample",
        "cost: about 0.05, based on 0.025000 per sample so far",
        "next: add the file to `also`, next to `sample` of the rater 'r', and run again: tamis run SETTINGS",
        f"to rate: {run / 'to-rate-1.txt'}",
    ]


def test_without_a_size_as_few_are_written_as_meet_the_target(run: Path) -> None:
    said = next_ratings(run, subset="best")
    assert listed(run / "to-rate-1.txt") == [30, 31, 32]
    assert "target of 2%: reached\n" in said


def test_a_certain_sample_is_never_asked_about(run: Path) -> None:
    said = next_ratings(run, subset="best", size=20)
    assert listed(run / "to-rate-1.txt") == [30, 31, 32, 33]
    assert "20 were requested; no other sample can change it" in said
    assert "target of 2%: reached with the first 3 of them" in said


def test_where_the_target_is_met_there_is_nothing_to_rate(run: Path) -> None:
    result = tamis("rating", "next", run, "--subset", "best", "--size", "5", "--target", "0.2")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == "the target of 20% is met: there is nothing to rate"
    assert not list(run.glob("to-rate*"))


def test_the_next_file_gets_the_next_number_and_none_is_overwritten(run: Path) -> None:
    next_ratings(run, subset="best", size=1)
    next_ratings(run, subset="best", size=2)
    assert [listed(run / f"to-rate-{n}.txt") for n in (1, 2)] == [[30], [30, 31]]
    with pytest.raises(StorageError, match=r"to-rate-1\.txt"):
        next_ratings(run, subset="best", size=3, out=run / "to-rate-1.txt")


def test_a_file_of_json_lines_has_the_probabilities(run: Path, tmp_path: Path) -> None:
    next_ratings(run, subset="best", size=2, out=tmp_path / "next.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "next.jsonl").read_text().splitlines()]
    assert rows == [{"id": IDS[30], "probability": 0.75}, {"id": IDS[31], "probability": 0.5}]


def test_a_budget_pays_for_as_many_as_the_ratings_so_far_cost(run: Path) -> None:
    next_ratings(run, subset="best", budget=0.08)
    assert listed(run / "to-rate-1.txt") == [30, 31, 32]
    with pytest.raises(SettingsError, match="--budget") as caught:
        next_ratings(run, subset="best", budget=0.01)
    assert "0.025000" in caught.value.allowed


def test_without_a_price_a_budget_says_nothing_and_tokens_are_told(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rows_of())
    with pytest.raises(SettingsError, match="--budget"):
        next_ratings(run, subset="best", budget=1)
    assert "cost: unknown" in next_ratings(run, subset="best", size=1)
    rate(run, prompt_tokens=2000, completion_tokens=100)
    with pytest.raises(SettingsError, match="ratings by r were made without `price`") as caught:
        next_ratings(run, subset="best", budget=1)
    assert "--size" in caught.value.action
    said = next_ratings(run, subset="best", size=2)
    assert "cost: about 200 prompt tokens and 10 answer tokens for 'r'" in said


def test_what_was_asked_about_in_vain_is_not_asked_again(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rows_of())
    overall = [7 if i in RATED else None for i in range(40)]
    make_ratings(run / "ratings" / "r", "r", IDS, overall, not_asked=[IDS[i] for i in UNRATED if i != 30])
    said = next_ratings(run, subset="best")
    assert listed(run / "to-rate-1.txt") == [31, 32, 33]
    assert "target of 2%: not reached, even if all" in said
    shutil.rmtree(run / "ratings")
    make_ratings(run / "ratings" / "r", "r", IDS, overall)
    with pytest.raises(InputError, match=r"at most .*'best'"):
        next_ratings(run, subset="best")


def test_one_that_curation_put_into_the_subset_may_leave(tmp_path: Path) -> None:
    rows = rows_of()
    rows[25] |= {"score": 4, "mean": 4.0, "posterior": [0.0, 0.0, 0.875, 0.0, 0.125, 0.0]}
    run = make_run(tmp_path / "run", rows)
    next_ratings(run, subset="best", size=2)
    assert listed(run / "to-rate-1.txt") == [25, 30]


def test_a_subset_by_means_is_looked_at_by_means(tmp_path: Path) -> None:
    """Nine rated samples have the mean 4.5: only one place is left to the class 4, which the most diverse has."""
    rows = rows_of(diversity=0.8)
    for i in range(9):
        rows[i]["mean"] = 4.5
    rows[9] |= {"mean": 4.0, "diversity": 0.75}
    run = make_run(tmp_path / "means", rows, rank_by="mean")
    next_ratings(run, subset="best", target=0)
    assert listed(run / "to-rate-1.txt") == [30, 31, 32, 33]
    rows[9]["diversity"] = 0.9
    assert "nothing to rate" in next_ratings(make_run(tmp_path / "none", rows, rank_by="mean"), subset="best")


def test_excluded_samples_and_full_sources_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "seen.txt").write_text(IDS[30])
    run = make_run(tmp_path / "excluded", rows_of(), exclude=str(tmp_path / "seen.txt"))
    next_ratings(run, subset="best", size=1)
    assert listed(run / "to-rate-1.txt") == [31]
    run = make_run(tmp_path / "quota", rows_of(), sources={"a": SIZE})
    assert "nothing to rate" in next_ratings(run, subset="best")


def test_the_named_rater_s_scores_decide_else_the_subset_s(tmp_path: Path) -> None:
    other = rows_of("s")
    other[35]["posterior"] = [0.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    run = make_run(tmp_path / "run", [*rows_of("r"), *other], rater="r")
    rate(run, "r", cost=1.0)
    rate(run, "s", cost=2.0)
    assert "without a rating by 'r'" in next_ratings(run, subset="best", size=1)
    said = next_ratings(run, subset="best", size=1, rater="s")
    assert [listed(run / f"to-rate-{n}.txt") for n in (1, 2)] == [[30], [35]]
    assert "of the rater 's'" in said
    assert "0.100000 per sample" in said
    with pytest.raises(SettingsError, match="'t'") as caught:
        next_ratings(run, subset="best", rater="t")
    assert caught.value.allowed == "r, s"


def test_for_scores_of_all_raters_together_all_are_asked(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rows_of("combined"))
    rate(run, "r", cost=1.0)
    rate(run, "s", cost=2.0)
    said = next_ratings(run, subset="best", size=2)
    assert "cost: about 0.30, based on 0.150000 per sample so far" in said
    assert "of the rater 'r', 's', and run again" in said
    shutil.rmtree(run / "ratings" / "s")
    rate(run, "s")
    assert "cost: about 0.10 for 'r'; unknown for 's'" in next_ratings(run, subset="best", size=2)


def test_samples_of_which_nothing_is_known_are_counted(tmp_path: Path) -> None:
    rows = rows_of()
    for i in (34, 35):
        rows[i]["posterior"] = None
    run = make_run(tmp_path / "run", rows)
    assert "not counting 2 samples" in next_ratings(run, subset="best")
    rows = [row | {"posterior": None} if row["id"] in [IDS[i] for i in UNRATED] else row for row in rows]
    rows[0]["posterior"] = [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    run = make_run(tmp_path / "nothing", rows)
    with pytest.raises(InputError, match=r"\b20 samples without a rating by 'r'"):
        next_ratings(run, subset="best")


def test_a_run_that_rated_everything_has_nothing_to_rate(tmp_path: Path) -> None:
    rows = [row | {"raw_score": 1, "score": 1, "posterior": [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]} for row in rows_of()]
    said = next_ratings(make_run(tmp_path / "run", rows), subset="best")
    assert said == "every sample has a rating by 'r'\nthe target of 2% is met: there is nothing to rate"


def test_a_curation_without_posteriors_is_told_what_to_set(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [{k: v for k, v in row.items() if k != "posterior"} for row in rows_of()])
    result = tamis("rating", "next", run, "--subset", "best")
    assert result.exit_code == 78
    assert "no column 'posterior'" in result.output
    assert "set curation.posterior: true" in result.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--size", "0"], "--size 0"),
        (["--size", "1", "--budget", "1"], "--size and --budget are both given"),
        (["--budget", "0"], "an amount of money above 0"),
        (["--budget", "nan"], "an amount of money above 0"),
        (["--target", "2"], "a share of the subset, 0 to 1"),
        (["--out", "next.csv"], "a file that ends in .txt or .jsonl"),
        (["--subset", "worst"], "selections/worst does not exist"),
    ],
)
def test_an_odd_option_is_told_in_words(run: Path, options: list[str], words: str) -> None:
    result = tamis("rating", "next", run, "--subset", "best", *options)
    assert result.exit_code == 78
    assert words in result.output
    assert "Traceback" not in result.output


def test_a_subset_by_another_strategy_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rows_of(), strategy="random")
    with pytest.raises(SettingsError, match=r"strategy random\b.*'"):
        next_ratings(run, subset="best")


def test_parts_of_two_runs_are_refused(run: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", rows_of(diversity=0.25))
    shutil.rmtree(run / "curation")
    shutil.copytree(other / "curation", run / "curation")
    with pytest.raises(InputError, match="was made from another curation"):
        next_ratings(run, subset="best")
    shutil.rmtree(run / "curation")
    with pytest.raises(ArtifactError, match="curation does not exist"):
        next_ratings(run, subset="best")


def test_the_help_says_what_comes_before_and_after() -> None:
    said = " ".join(tamis("rating", "next", "--help").output.split())
    for words in ("`sample`", "`curation.posterior: true`", "`also`", "Example:"):
        assert words in said


def test_the_file_goes_back_to_the_rater_which_asks_about_these_only(tmp_path: Path) -> None:
    pytest.importorskip("openai")
    run = tmp_path / "run"
    pool = make_pool(run / "pool", SAMPLES, source=["a"] * 20 + ["b"] * 20)
    with Server() as server:

        def rated(out: Path, **own: Any) -> dict[str, int]:
            backend = {"kind": "openai", "model": "m", "api_key_env": None, "base_url": server.url}
            price = {"input": 1000, "output": 1000}
            values = {"name": "r", "backend": backend, "sample": 20, "price": price, "store": str(tmp_path / "store")}
            rating.run(parse(RatingSettings, values | own, where="here"), pool=pool, out=out)
            return {row["id"]: row["overall"] for row in Artifact.open(out).table().to_pylist() if row["overall"]}

        first = rated(run / "ratings" / "r")
        rng = np.random.default_rng(0)
        rows = [
            {
                "id": one,
                "raw_score": first.get(one) and 3,
                "score": first.get(one) and 3,
                "diversity": float(rng.random()),
            }
            | {"posterior": rng.dirichlet(np.ones(6)).tolist()}
            for one in IDS
        ]
        make_curation(run / "curation", rows)
        settings = SelectionSettings(name="best", strategy="ds2", size=SIZE)
        select(settings, pool=pool, curation=run / "curation", out=run / "selections" / "best")
        said = next_ratings(run, subset="best", size=6)
        file = run / "to-rate-1.txt"
        assert f'also: ["{file}"]' in said.splitlines()[-2]
        facts = Artifact.open(run / "ratings" / "r").manifest.facts
        assert f"cost: about {facts['cost'] / 20 * 6:.2f}" in said

        before = len(server.asked)
        second = rated(tmp_path / "again", also=str(file))
        assert len(server.asked) == before + 6
        assert set(second) == set(first) | {IDS[i] for i in listed(file)}
        shutil.rmtree(run / "ratings")
        shutil.copytree(tmp_path / "again", run / "ratings" / "r")
        said = next_ratings(run, subset="best", size=1)
        assert json.dumps([str(file), str(run / "to-rate-2.txt")]) in said
        assert not set(listed(run / "to-rate-2.txt")) & set(listed(file))
