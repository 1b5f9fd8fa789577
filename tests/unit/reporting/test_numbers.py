"""How numbers and names are written."""

from __future__ import annotations

import numpy as np
import pytest

from tamis.reporting import numbers
from tamis.reporting.numbers import DASH, MINUS


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (numbers.count(52002), "52,002"),
        (numbers.count(np.int64(7)), "7"),
        (numbers.count(None), DASH),
        (numbers.decimal(-0.251), f"{MINUS}0.25"),
        (numbers.decimal(-0.001), "0.00"),
        (numbers.decimal(float("nan")), DASH),
        (numbers.signed(0.251), "+0.25"),
        (numbers.signed(-0.251), f"{MINUS}0.25"),
        (numbers.percent(3, 80).replace("\N{NO-BREAK SPACE}", " "), "3.8 %"),
        (numbers.percent(0, 0), DASH),
        (numbers.plural(1, "rater"), "1 rater"),
        (numbers.plural(1200, "rater"), "1,200 raters"),
        (numbers.span(0.1, None), DASH),
        (numbers.duration(0.01).replace("\N{NO-BREAK SPACE}", " "), "under 0.1 s"),
        (numbers.duration(7205).replace("\N{NO-BREAK SPACE}", " "), "2.0 h"),
        (numbers.memory(3 * 2**30).replace("\N{NO-BREAK SPACE}", " "), "3.0 GiB"),
        (numbers.listed(["a"]), "a"),
        (numbers.listed(["a", "b", "c"]), "a, b and c"),
        (numbers.clipped("one  two\nthree", 9), "one two…"),
        (numbers.shortened("a\x00b\tc", 10), "a b c"),
    ],
)
def test_a_number_is_written_as_people_read_it(written: str, expected: str) -> None:
    assert written == expected


def test_a_long_name_is_cut_in_its_middle() -> None:
    short = numbers.shortened("meta-llama/Llama-3.1-70B-Instruct-quantised", 20)
    assert len(short) <= 20
    assert short.startswith("meta-llama/")
    assert short.endswith("tised")


def test_names_that_look_alike_get_different_slugs() -> None:
    assert list(numbers.slugs(["GPT 4", "gpt-4", "日本"]).values()) == ["gpt-4", "gpt-4-2", "unnamed"]
