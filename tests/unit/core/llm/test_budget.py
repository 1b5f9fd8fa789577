"""What may still be spent, answer by answer."""

from __future__ import annotations

import pytest

from tamis.core.errors import ModelError
from tamis.core.llm.backend import Answer, Request, Size
from tamis.core.llm.budget import Allowance, Budget, Words
from tamis.core.llm.settings import PriceSettings
from tamis.core.llm.tally import Tally

WORDS = Words("rater 'x'", "samples", "rating", "rated")


def budget(most: float | None, *, before: int = 0, samples: int = 1000, reused: int = 0) -> Budget:
    """A token costs 1; a text of n letters is thought to take n tokens."""
    allowance = Allowance(1.0, PriceSettings(input=1e6, output=1e6), most)
    return Budget(
        allowance, WORDS, samples, Tally(), reused=reused, before={"prompt_tokens": before},
        measure=lambda texts: [Size(len(text)) for text in texts],
    )  # fmt: skip


def admitted(mine: Budget, names: range, text: str = "x" * 10) -> list[str]:
    """The requests that are let through, until the first that is not."""
    found = []
    for name in names:
        if not mine.admit(Request(str(name), text)):
            break
        found.append(str(name))
    return found


def paid(mine: Budget, names: list[str], tokens: int | None) -> None:
    for name in names:
        mine.pay(Answer(name, prompt_tokens=tokens, completion_tokens=None if tokens is None else 0))


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
    with pytest.raises(ModelError, match=r"cost 95\.0000; another would cost too much\n +allowed: 100 "):
        mine.check()


def test_sizes_are_corrected_by_what_answers_cost() -> None:
    mine = budget(1000)
    paid(mine, admitted(mine, range(20)), 40)  # four times what their size said
    assert mine.cost == 800
    assert len(admitted(mine, range(20, 100))) == 5


def test_requests_without_an_answer_say_nothing_about_the_price_of_answers() -> None:
    mine = budget(1000)
    paid(mine, admitted(mine, range(90)), None)
    assert mine.cost == 0
    assert len(admitted(mine, range(100, 1000))) == 100


def test_the_projection_leaves_out_what_is_reused() -> None:
    mine = budget(None, before=500, samples=1000, reused=500)
    paid(mine, [str(name) for name in range(100)], 2)
    for _ in range(100):
        mine.finish()
    assert mine.note() == "cost 700.00, in all 1500.00"
