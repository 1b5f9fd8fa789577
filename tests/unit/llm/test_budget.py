"""What may still be spent, answer by answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from tamis.core.errors import ModelError, StorageError
from tamis.llm.backend import Answer, Request, Size
from tamis.llm.budget import Allowance, Budget, SpentError, Words
from tamis.llm.ledger import Ledger
from tamis.llm.settings import PriceSettings
from tamis.llm.tally import Tally
from tests.paper_prompt import Rating

WORDS = Words("rater 'x'", "samples", "rating", "rated")


class Sizes:
    """The part of a backend that budgets use."""

    def __init__(self, largest: int) -> None:
        self._largest = largest

    def measure(self, texts: Sequence[str]) -> list[Size]:
        return [Size(len(text), most_completion_tokens=self._largest) for text in texts]


def budget(
    most: float | None,
    *,
    before: int = 0,
    samples: int = 1000,
    reused: int = 0,
    at_once: int | None = None,
    largest: int = 0,
    ledger: Ledger | None = None,
    **price: float,
) -> Budget:
    """A token costs 1; a text of n letters is thought to take n tokens, its answer none, and `largest` at most."""
    allowance = Allowance(1.0, PriceSettings(**{"input": 1e6, "output": 1e6} | price), most, at_once=at_once)
    return Budget(
        allowance, WORDS, samples, Tally(), reused=reused, before={"prompt_tokens": before}, ledger=ledger,
        backend=Sizes(largest),  # type: ignore[arg-type]
    )  # fmt: skip


def admitted(mine: Budget, names: range, text: str = "x" * 10) -> list[str]:
    """The requests that are let through, until the first that is not."""
    found = []
    for name in names:
        if not mine.admit(Request(str(name), text)):
            break
        found.append(str(name))
    return found


def paid(mine: Budget, names: list[str], tokens: int | None, answer: int = 0) -> None:
    for name in names:
        mine.pay(Answer(name, prompt_tokens=tokens, completion_tokens=None if tokens is None else answer))


def test_what_is_under_way_has_its_money_set_aside() -> None:
    mine = budget(100, before=35)
    assert len(admitted(mine, range(20))) == 6
    mine.check()  # it waits for answers: nothing is over yet
    paid(mine, ["0", "1"], 3)
    assert mine.cost == 41
    assert len(admitted(mine, range(20, 40))) == 1


def test_when_nothing_is_under_way_that_could_cost_less_it_is_over() -> None:
    mine = budget(100, before=95)
    assert not admitted(mine, range(3))
    with pytest.raises(SpentError, match=r"cost 95\.0000(.|\n)*allowed: 100 "):
        mine.check()


@pytest.mark.parametrize(("at_once", "few"), [(None, 20), (512, 20), (3, 3)])
def test_few_requests_measure_the_answers_before_many_go_out(at_once: int | None, few: int) -> None:
    mine = budget(1e6, at_once=at_once)
    first = admitted(mine, range(1000))
    assert len(first) == few
    mine.check()
    paid(mine, first, 40)
    assert len(admitted(mine, range(1000, 2000))) == 1000


def test_sizes_are_corrected_by_what_answers_cost() -> None:
    mine = budget(2000)
    paid(mine, admitted(mine, range(20)), 40)  # four times what their size said
    assert mine.cost == 800
    assert len(admitted(mine, range(20, 100))) == 30


def test_of_what_is_asked_beyond_those_at_once_the_largest_answer_must_fit() -> None:
    """2,600 are left, a request takes 20 and may take 110: 20 are asked at once, and 19 for which the most is there."""
    mine = budget(3000, at_once=20, largest=100)
    paid(mine, admitted(mine, range(20)), 10, 10)
    assert len(admitted(mine, range(20, 200))) == 39


def test_near_the_limit_the_largest_possible_answer_must_fit() -> None:
    mine = budget(1000, at_once=1000, largest=128)
    paid(mine, admitted(mine, range(7)), 10, 10)
    assert mine.cost == 140
    mine = budget(1000, at_once=4, largest=128)
    for start in range(0, 1000, 4):
        names = admitted(mine, range(start, start + 4))
        paid(mine, names, 10, 10)
        if not names:
            break
    assert mine.cost is not None
    assert 1000 - 138 < mine.cost <= 1000
    with pytest.raises(ModelError):
        mine.check()


def test_answers_of_many_sizes_leave_room_for_chance() -> None:
    """Every fifth answer takes 100 tokens, the others none: 0 is the middle, 20 the mean, 40 the deviation."""
    mine, admitted_in_all = budget(20_000), 0
    names = admitted(mine, range(20))
    while names:
        admitted_in_all += len(names)
        for name in names:
            mine.pay(Answer(name, prompt_tokens=10, completion_tokens=100 if int(name) % 5 == 0 else 0))
        names = admitted(mine, range(admitted_in_all, 10_000))
        assert mine.cost is not None
        assert mine.cost <= 20_000
    assert admitted_in_all > 500
    assert mine.cost is not None
    assert mine.cost > 19_000


def test_requests_without_an_answer_say_nothing_about_the_price_of_answers() -> None:
    mine = budget(1000)
    for start in range(0, 200, 20):
        paid(mine, admitted(mine, range(start, start + 20)), None)
    assert mine.cost == 0
    paid(mine, admitted(mine, range(200, 220)), 10)
    assert len(admitted(mine, range(300, 1000))) == 80


def test_each_kind_of_token_has_its_price() -> None:
    mine = budget(None, input=1e6, output=10e6, cached_input=0.1e6, reasoning=2e6)
    mine.pay(Answer("0", prompt_tokens=100, completion_tokens=50, cached_tokens=60, reasoning_tokens=40))
    assert mine.cost == pytest.approx(40 + 6 + 100 + 80)
    mine = budget(None, output=10e6)
    mine.pay(Answer("0", prompt_tokens=100, completion_tokens=50, cached_tokens=60, reasoning_tokens=40))
    assert mine.cost == pytest.approx(600)


def records(*names: str) -> list[Rating]:
    return [Rating.model_construct(id=name, status="unparsable", attempts=1) for name in names]


def test_money_without_a_record_counts_in_the_next_run(tmp_path: Path) -> None:
    """Killed: at a run's death its note covers all that was under way, less what was stored, and a step at most."""
    mine = budget(1000, ledger=Ledger(tmp_path, "pool", step=10))
    names = admitted(mine, range(20))
    paid(mine, names, 10)
    mine.recorded(records(*names[:15]))
    assert len(admitted(mine, range(20, 50))) == 30  # then it is killed: 5 answers and 30 requests are lost
    after = Ledger(tmp_path, "pool", step=10)
    assert 350 <= after.lost <= 360
    assert Ledger(tmp_path, "another", step=10).lost == 0
    mine = budget(1000, before=150, ledger=after)
    assert mine.cost == 150 + after.lost
    assert mine.facts() == {"cost": 150 + after.lost, "cost_of_lost_answers": after.lost}
    names = admitted(mine, range(5))
    paid(mine, names, 10)
    mine.recorded(records(*names))
    mine.close()  # in order, and all is recorded: only the first run's note is left
    assert Ledger(tmp_path, "pool", step=10).lost == after.lost


def test_a_run_that_ends_in_order_notes_what_nobody_waits_for(tmp_path: Path) -> None:
    mine = budget(1000, ledger=Ledger(tmp_path, "pool", step=100))
    names = admitted(mine, range(20))
    paid(mine, names, 10)
    mine.recorded(records(*names))
    admitted(mine, range(20, 27))
    mine.close()
    assert Ledger(tmp_path, "pool", step=100).lost == pytest.approx(70)


@pytest.mark.parametrize("said", ["", "{}", "[1]", '{"may_have_spent_without_a_record": NaN, "largest_answer": 0}'])
def test_a_note_of_money_that_cannot_be_read_is_an_error(said: str, tmp_path: Path) -> None:
    (tmp_path / "pool-x.json").write_text(said)
    with pytest.raises(StorageError) as raised:
        Ledger(tmp_path, "pool", step=10)
    assert str(tmp_path / "pool-x.json") in str(raised.value)


def test_the_projection_leaves_out_what_is_reused() -> None:
    mine = budget(None, before=500, samples=1000, reused=500)
    paid(mine, [str(name) for name in range(100)], 2)
    for _ in range(100):
        mine.finish()
    assert re.findall(r"[\d.]+", mine.note()) == ["700.00", "1500.00"]
