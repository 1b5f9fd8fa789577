"""A rater's answer is four integers from 1 to 10 in the agreed form, or it is unparsable with a reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.rating.parsing import KEYS, Scores, UnparsableError, parse, write
from tamis.rating.prompts import load_prompt

GOOD = '{"Rarity": 3, "Complexity": 4, "Informativeness": 5, "Overall rating": 6}'


@pytest.mark.parametrize(
    "answer",
    [
        GOOD,
        f"  \n{GOOD}\n",
        f"```json\n{GOOD}\n```",
        f"```\n{GOOD}\n```  ",
        f"```JSON\r\n{GOOD}\r\n```",
        '{\n  "Overall rating": 6,\n  "Rarity": 3,\n  "Informativeness": 5,\n  "Complexity": 4\n}',
    ],
)
def test_the_agreed_form_is_read(answer: str) -> None:
    assert parse(answer) == Scores(3, 4, 5, 6)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "empty answer"),
        (" \n ", "empty answer"),
        ("I rate this 7.", "not a JSON object"),
        (f"Here is my rating: {GOOD}", "not a JSON object"),
        (f"[{GOOD}]", "not a JSON object"),
        ("7", "not a JSON object"),
        (GOOD + " because it is good", "text after the JSON object"),
        (GOOD + GOOD, "text after the JSON object"),
        (f"```json\n{GOOD}", "not a JSON object"),
        (GOOD[:-1], "not JSON"),
        (GOOD.replace('"', "'"), "not JSON"),
        ("{" * 100_000, "not JSON"),
        (GOOD.replace("6", "6" * 5000), "not JSON"),
        ("{}", "wrong keys: none"),
        ('{"Rarity": 3, "Complexity": 4, "Informativeness": 5}', "wrong keys"),
        (GOOD.replace("}", ', "Reason": "x"}'), "wrong keys"),
        (GOOD.replace("Overall rating", "overall rating"), "wrong keys"),
        (GOOD.replace("}", ', "Rarity": 3}'), "wrong keys"),
        (GOOD.replace("6", '"6"'), "not an integer: Overall rating is '6'"),
        (GOOD.replace("6", '"7/10"'), "not an integer: Overall rating is '7/10'"),
        (GOOD.replace("6", "6.0"), "not an integer: Overall rating is 6.0"),
        (GOOD.replace("6", "true"), "not an integer: Overall rating is True"),
        (GOOD.replace("6", "null"), "not an integer: Overall rating is None"),
        (GOOD.replace("6", "NaN"), "not an integer: Overall rating is nan"),
        (GOOD.replace("6", "[6]"), "not an integer: Overall rating is an array"),
        (GOOD.replace("6", '{"value": 6}'), "not an integer: Overall rating is an object"),
        (GOOD.replace("6", "12"), "out of range: Overall rating is 12"),
        (GOOD.replace("6", "0"), "out of range: Overall rating is 0"),
        (GOOD.replace("3", "-3"), "out of range: Rarity is -3"),
        (GOOD.replace("6", "9" * 4000), "out of range: Overall rating is 999"),
    ],
)
def test_anything_else_is_unparsable_and_says_why(answer: str, reason: str) -> None:
    with pytest.raises(UnparsableError) as error:
        parse(answer)
    assert error.value.problem.startswith(reason)
    assert len(error.value.problem) < 400


def test_the_prompt_itself_is_never_an_answer() -> None:
    prompt = load_prompt("ds2-v1").before
    example = next(line for line in prompt.splitlines() if line.startswith("{"))
    for echo in (prompt, example, prompt + GOOD, f"```json\n{example}\n```"):
        with pytest.raises(UnparsableError):
            parse(echo)


scores = st.builds(Scores, *[st.integers(1, 10)] * 4)


@given(scores, st.permutations(KEYS), st.sampled_from(["", " ", "\n\t"]), st.booleans())
def test_every_rating_survives_being_written(rating: Scores, order: list[str], around: str, fenced: bool) -> None:
    values = json.loads(write(rating))
    text = json.dumps({key: values[key] for key in order}, indent=2 if around else None)
    assert parse(around + (f"```json\n{text}\n```" if fenced else text) + around) == rating


def is_rating(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == set(KEYS)
        and all(type(score) is int and 1 <= score <= 10 for score in value.values())
    )


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda v: st.lists(v) | st.dictionaries(st.text(), v),
)
answers = values | st.fixed_dictionaries({key: st.integers(-2, 13) | values for key in KEYS})


@given(answers)
def test_of_all_json_only_ratings_are_read(value: Any) -> None:
    try:
        read = parse(json.dumps(value))
    except UnparsableError as error:
        assert not is_rating(value)
        error.problem.encode()  # reasons can be written to tables
    else:
        assert is_rating(value)
        assert read == Scores(*(value[key] for key in KEYS))


@given(st.text(alphabet='{}[]",:`jsonRarity 0123456789\n') | st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        parse(text)
    except UnparsableError as error:
        error.problem.encode()
