"""The report of judgements, which the judging stage itself makes here from given answers and a judge by a rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tamis.core.failures import Failure
from tamis.judging.stage import run as judge
from tamis.reporting import reference
from tests.llm_server import Reaction, Server, completion
from tests.unit.judging.matches import by_number, given, judge_by, settings, shown
from tests.unit.reporting.test_experiment import Lab, ds2, group

pytest.importorskip("openai")
# 6 won, 2 lost, 2 ties; the tie of prompt 9 is a flip: the judge says what is first is better.
NUMBERS = [(9, 1), (8, 2), (7, 3), (6, 2), (9, 3), (5, 4), (1, 3), (2, 4), (5, 5), (4, 4)]


def numbered(pairs: list[tuple[int, int]], words: str = "") -> dict[str, tuple[str, str]]:
    return {f"Question {i}{words}?": (f"ours {one}", f"theirs {other}") for i, (one, other) in enumerate(pairs)}


def flipping(question: str, first: str, second: str) -> tuple[int, int]:
    return (9, 1) if "9" in question else by_number(question, first, second)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(judge_by(flipping)) as running:
        yield running


def judged(lab: Lab, server: Server, name: str, pairs: Mapping[str, tuple[str, str]], **own: Any) -> Path:
    """A judgement of the model `name` against one called "lima"."""
    folder = lab.folder / f"judging-{name}"
    folder.mkdir()
    ours = given(folder, name, {prompt: one for prompt, (one, _) in pairs.items()})
    theirs = given(folder, "lima", {prompt: other for prompt, (_, other) in pairs.items()})
    mine = settings(folder, server, pairs, model=ours, against=theirs, **own)
    judge(mine, out=folder / "out")
    lab.made.setdefault("judgements", []).append(folder / "out")
    return folder / "out"


def test_shares_intervals_and_biases_stand_in_tables_and_in_full_in_the_csv(tmp_path: Path, server: Server) -> None:
    lab = Lab(tmp_path)
    judged(lab, server, "ds2", numbered(NUMBERS))
    page = lab.report()
    _, row = page.rows("Win, tie, lose")
    assert row[:3] == ["ds2", "lima", "10"]
    assert [cell.split(" ")[0] for cell in row[3:]] == ["60.0", "20.0", "20.0", "+40.0"]
    _, biases = page.rows("Biases of the judge")
    assert biases[:4] == ["ds2", "m", "10.0 %", "55.6 %"]
    assert "ds2 won 60.0 %, tied 20.0 % and lost 20.0 % against lima: net +40.0 points" in page.text
    assert "so neither is shown to be better" in page.text
    found = lab.results("judging")
    win = found["ds2 against lima", "win"]
    assert (float(win["value"]), win["n"]) == (0.6, "10")
    assert float(win["low"]) < 0.6 < float(win["high"])
    assert float(found["ds2 against lima", "flips"]["value"]) == 0.1
    assert {path.stem for path in (tmp_path / "report/plots").glob("judging-*.svg")} == {
        "judging-shares",
        "judging-net",
    }


def test_judged_prompts_of_every_end_are_shown_as_plain_text_or_not_at_all(tmp_path: Path, server: Server) -> None:
    lab = Lab(tmp_path)
    judged(lab, server, "ds2", numbered(NUMBERS, " <script>alert(1)</script>\x1b[31m"))
    page = lab.report(examples=4)
    (shown_texts,) = [e.text for e in page.all("pre") if "prompt: Question" in e.text]
    assert page.all("script") == []
    assert "prompt: Question 0 <script>alert(1)</script> [31m?" in shown_texts
    assert "ds2: ours 9 lima: theirs 1 ds2 won; shown first: ds2 (9 to 1), shown second: ds2 (9 to 1)" in shown_texts
    assert "ds2 lost; " in shown_texts
    assert "ds2 tied; shown first: a tie (5 to 5)" in shown_texts
    assert "opposite winners in the two orders; shown first: ds2 (9 to 1), shown second: lima (1 to 9)" in shown_texts
    (tmp_path / "report").rename(tmp_path / "before")
    assert "prompt: Question" not in lab.report(examples=0).text


def test_what_was_not_judged_is_named_with_its_reason(tmp_path: Path, server: Server) -> None:
    def behave(asked: Any) -> Reaction:
        question, _, _ = shown(asked) or ("", "", "")
        return Reaction(completion("Both.")) if "0" in question else judge_by(flipping)(asked)

    server.behave = behave
    lab = Lab(tmp_path)
    lab.cell(ds2(1), 0.5, 0.5)
    lab.cell(ds2(2), 0.5, 0.5)
    judged(lab, server, "ds2-5-s1", numbered(NUMBERS), max_failure_share=0.5)
    lab.failed.append(Failure(name="ds2-5-s2", stage="judgement", reason="the judge is gone"))
    page = lab.report()
    assert page.rows("Prompts that were not judged")[1:] == [["ds2-5-s1", "unparsable: not a JSON object", "1"]]
    assert page.rows("Models without a judgement")[1:] == [["ds2-5-s2", "the judge is gone"]]
    assert "1 of 10 prompts could not be judged" in page.text
    assert page.rows("Cells without a result") == [], "their benchmarks count all the same"
    assert page.rows("Strategies and tasks")[-1][3] == "2"
    (seeds,) = page.rows("Over seeds")[1:]
    assert seeds[4] == "1 of 2"


def test_seeds_have_a_mean_and_the_paper_s_cells_their_figures_beside_them(tmp_path: Path, server: Server) -> None:
    lab, model = Lab(tmp_path), "meta-llama/Llama-3.1-8B"
    for seed, pairs in ((1, NUMBERS), (2, [(1, 2), *NUMBERS[1:]])):
        cell = ds2(seed, 10_000, rater="gpt-4o-mini")
        lab.cell(cell, 0.5, 0.5, model=model)
        judged(lab, server, cell.name, numbered(pairs))
    page = lab.report()
    (seeds,) = page.rows("Over seeds")[1:]
    assert seeds == ["ds2", "gpt-4o-mini", "10,000", "Llama-3.1-8B", "2", "55.0", "20.0", "25.0", "+30.0 ± 14.1"]
    header, first, _ = page.rows("Compared with the paper's figures against LIMA")
    assert header[2:4] == ["win", "win, paper"]
    assert first == ["ds2-10000-s1", "lima", "60.0", "57.5", "20.0", "14.0", "20.0", "28.4"]
    assert "not results of this run" in page.text


def test_a_judge_of_the_raters_family_is_warned_of(tmp_path: Path, server: Server) -> None:
    lab = Lab(tmp_path)
    lab.cell(ds2(1, rater="gpt-4o-mini"), 0.5, 0.5)
    judged(lab, server, "ds2-5-s1", numbered(NUMBERS), backend={"model": "gpt-4.1"})
    assert "The judge gpt-4.1 and the rater gpt-4o-mini are of the same family (OpenAI)" in lab.report().text


def test_a_judge_that_likes_a_place_is_warned_of(tmp_path: Path, server: Server) -> None:
    server.behave = judge_by(lambda *_: (9, 1))
    lab = Lab(tmp_path)
    judged(lab, server, "ds2", numbered(NUMBERS))
    (warnings,) = [part.text for part in lab.report().all("ul") if "prefers that position" in part.text]
    assert "Between ds2 and lima: of 20 verdicts with a winner, 100.0% went to the answer shown first" in warnings
    assert "in 100.0% of the pairs the judge m gave opposite winners" in warnings


def test_a_run_without_judging_has_no_section_of_it(tmp_path: Path) -> None:
    page = Lab(tmp_path).report()
    assert page.rows("Win, tie, lose") == []
    assert "Judging" not in page.text


def test_the_paper_s_figures_belong_to_the_same_model_rater_size_and_to_lima() -> None:
    found = reference.published_judging(group("ds2", rater="gpt-4o-mini"), {}, ("lima-llama", ""))
    assert found == pytest.approx({"win": 0.575, "tie": 0.14, "lose": 0.284})
    mistral = group("ds2", rater="gpt-4o-mini", model="mistralai/Mistral-7B-v0.3", size=1000)
    assert reference.published_judging(mistral, {}, ("x", "GAIR/lima-7b"))["lose"] == 0.485
    assert reference.published_judging(group("ds2", rater="gpt-4o-mini"), {}, ("random", "")) == {}
    assert reference.published_judging(group("random"), {}, ("lima",)) == {}
