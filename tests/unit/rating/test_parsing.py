"""A rater's answer is four integers from 1 to 10 in a form that means one thing, or unparsable with a reason."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.core.errors import UnparsableError
from tamis.llm.forms import Form
from tamis.rating.prompts import load_prompt
from tests.paper_prompt import KEYS, Scores, scores_in, write

GOOD = '{"Rarity": 3, "Complexity": 4, "Informativeness": 5, "Overall rating": 6}'

read = scores_in


def other(**values: object) -> str:
    """`GOOD` with other values of some keys."""
    return json.dumps(json.loads(GOOD) | values)


# The table of rating/README.md ("Which answers are taken"): each form with the names of what is forgiven.
FORMS = [
    (GOOD, []),
    (f"  \n{GOOD}\n", []),
    ('{\n  "Overall rating": 6,\n  "Rarity": 3,\n  "Informativeness": 5,\n  "Complexity": 4\n}', []),
    (f"```json\n{GOOD}\n```", ["code fence"]),
    (f"```\n{GOOD}\n```  ", ["code fence"]),
    (f"```JSON\r\n{GOOD}\r\n```", ["code fence"]),
    (f"\ufeff{GOOD}", ["byte order mark"]),
    (f"<think>{other(Rarity=9)} no, rather less.</think>\n\n{GOOD}", ["thoughts"]),
    (f"Let me think: {other(Rarity=9)}?</think>{GOOD}", ["thoughts"]),
    (f"[THINK]Hm.[/THINK]{GOOD}", ["thoughts"]),
    (f"<|channel|>analysis<|message|>Hm.<|end|><|channel|>final<|message|>{GOOD}<|return|>", ["thoughts"]),
    (f"Here is my rating: {GOOD}", ["words around"]),
    (GOOD + " because it is good", ["words around"]),
    (f"Sure!\n```json\n{GOOD}\n```\nAsk me {{again}}.", ["words around"]),
    (f"```json\n{GOOD}", ["words around"]),
    (f"[{GOOD}]", ["words around"]),
    (f'The sample says {{"name": "x"}}. {GOOD}', ["words around"]),
    (GOOD + GOOD, ["said twice"]),
    (GOOD.replace("}", ', "Reason": "clear, and {short}"}'), ["extra keys"]),
    (GOOD.replace("}", ",}"), ["trailing comma"]),
    (GOOD.replace("Overall rating", "overall_rating").replace("Rarity", "RARITY"), ["key spelling"]),
    (GOOD.replace("Overall rating", "OverallRating"), ["key spelling"]),
    (other(Rarity="3"), ["number as text"]),
    (GOOD.replace("6", "6.0"), ["fraction of zero"]),
    (GOOD.replace("6", '"6.0"'), ["fraction of zero", "number as text"]),
    (
        f"\ufeffSo: {GOOD.replace('Rarity', 'rarity').replace('}', ', }')}",
        ["byte order mark", "key spelling", "trailing comma", "words around"],
    ),
]


@pytest.mark.parametrize(("answer", "forgiven"), FORMS)
def test_an_answer_that_means_one_thing_is_taken_and_what_was_forgiven_is_named(
    answer: str, forgiven: list[str]
) -> None:
    scores, names = read(answer)
    assert scores == Scores(3, 4, 5, 6)
    assert sorted(names) == sorted(forgiven)


def test_the_names_of_all_that_is_forgiven_stand_in_the_documentation() -> None:
    table = Path("components/tamis/rating/README.md").read_text(encoding="utf-8")
    names = {name for _, forgiven in FORMS for name in forgiven} | {"bare number", "answer among thoughts"}
    assert {name for name in names if f"`{name}`" not in table} == set()


@pytest.mark.parametrize(
    ("answer", "value", "forgiven"),
    [
        ("2", 2, ["bare number"]),
        (" 2.0\n", 2, ["bare number", "fraction of zero"]),
        ("```\n2\n```", 2, ["bare number", "code fence"]),
        ("<think>1 or 2?</think>2", 2, ["bare number", "thoughts"]),
        ('{"better_answer": 1}', 1, ["key spelling"]),
        ("2/2", None, []),
        ("3", None, []),
        ("Two", None, []),
        ("2 and 1", None, []),
        ("-1", None, []),
    ],
)
def test_a_bare_number_is_an_answer_where_one_is_asked_for(answer: str, value: int | None, forgiven: list[str]) -> None:
    form = Form.alike(("Better answer",), 0, 2)
    if value is None:
        with pytest.raises(UnparsableError):
            form.read(answer)
    else:
        values, names, _ = form.read(answer)
        assert values == (value,)
        assert sorted(names) == forgiven


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "empty answer"),
        (" \n ", "empty answer"),
        ("\ufeff", "empty answer"),
        (f"<think>Perhaps {GOOD}", "thoughts without an answer"),
        (f"<think>Perhaps {GOOD}</think>", "thoughts without an answer"),
        ("I rate this 7.", "not a JSON object"),
        ("7", "not a JSON object"),
        (GOOD + other(Rarity=4), "several objects"),
        (f'{GOOD} {{"Rarity": 3}}', "several objects"),
        (f'{GOOD} {{"Rarity": 4, "Comp', "several objects"),
        (f"[{GOOD}, {other(Rarity=4)}]", "several objects"),
        (f'Write {{"Rarity": <integer>}}, so: {GOOD}', "several objects"),
        (GOOD[:-1], "not JSON"),
        (GOOD.replace('"', "'"), "not JSON"),
        ("{" * 100_000, "not JSON"),
        ('{"a":' + "[" * 100_000, "not JSON"),
        (GOOD.replace("6", "6" * 5000), "not JSON"),
        ("{}", "wrong keys: none"),
        ('{"Rarity": 3, "Complexity": 4, "Informativeness": 5}', "wrong keys"),
        (GOOD.replace("}", ', "Rarity": 3}'), "wrong keys"),
        (GOOD.replace("}", ', "rarity": 4}'), "wrong keys"),
        (f'{{"scores": {GOOD}}}', "wrong keys"),
        (GOOD.replace("6", '"7/10"'), "not an integer: Overall rating is '7/10'"),
        (GOOD.replace("6", '"six"'), "not an integer: Overall rating is 'six'"),
        (GOOD.replace("6", "6.5"), "not an integer: Overall rating is 6.5"),
        (GOOD.replace("6", "true"), "not an integer: Overall rating is True"),
        (GOOD.replace("6", "null"), "not an integer: Overall rating is None"),
        (GOOD.replace("6", "NaN"), "not an integer: Overall rating is nan"),
        (GOOD.replace("6", "1e999"), "not an integer: Overall rating is inf"),
        (GOOD.replace("6", "[6]"), "not an integer: Overall rating is an array"),
        (GOOD.replace("6", '{"value": 6}'), "not an integer: Overall rating is an object"),
        (GOOD.replace("6", "12"), "out of range: Overall rating is 12"),
        (GOOD.replace("6", "0"), "out of range: Overall rating is 0"),
        (GOOD.replace("3", "-3"), "out of range: Rarity is -3"),
        (GOOD.replace("6", '"12"'), "out of range: Overall rating is 12"),
        (GOOD.replace("6", "9" * 4000), "out of range: Overall rating is 999"),
    ],
)
def test_anything_else_is_unparsable_and_says_why(answer: str, reason: str) -> None:
    with pytest.raises(UnparsableError) as error:
        read(answer)
    assert error.value.problem.startswith(reason)
    assert len(error.value.problem) < 400


def test_the_prompt_itself_is_never_an_answer() -> None:
    prompt = load_prompt("ds2-v1").before
    example = next(line for line in prompt.splitlines() if line.startswith("{"))
    for echo in (prompt, example, prompt + GOOD, f"```json\n{example}\n```"):
        with pytest.raises(UnparsableError):
            read(echo)


scores = st.builds(Scores, *[st.integers(1, 10)] * 4)


@given(scores, st.permutations(KEYS), st.sampled_from(["", " ", "\n\t"]), st.booleans())
def test_every_rating_survives_being_written(rating: Scores, order: list[str], around: str, fenced: bool) -> None:
    values = json.loads(write(rating))
    text = json.dumps({key: values[key] for key in order}, indent=2 if around else None)
    assert read(around + (f"```json\n{text}\n```" if fenced else text) + around)[0] == rating


def number(value: Any) -> int | None:
    """The whole number that a JSON value is in one way only."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str):
        return int(float(value)) if re.fullmatch(r"\s*[0-9]{1,9}(\.0+)?\s*", value) else None
    return int(value) if math.isfinite(value) and value == int(value) else None


def rating_in(value: Any) -> Scores | None:
    """The scores of a JSON object that has each key once, in any spelling."""
    if not isinstance(value, dict):
        return None
    plain = [re.sub(r"[\s_-]", "", key).casefold() for key in value]
    wanted = [key.replace(" ", "").casefold() for key in KEYS]
    if any(plain.count(key) != 1 for key in wanted):
        return None
    numbers = [number(list(value.values())[plain.index(key)]) for key in wanted]
    return Scores(*numbers) if all(one is not None and 1 <= one <= 10 for one in numbers) else None  # type: ignore[arg-type]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda v: st.lists(v) | st.dictionaries(st.text(), v),
)
answers = values | st.fixed_dictionaries({key: st.integers(-2, 13) | st.just(7.0) | values for key in KEYS})


@given(answers)
def test_of_all_json_only_ratings_are_read(value: Any) -> None:
    try:
        scores, _ = read(json.dumps(value))
    except UnparsableError as error:
        assert rating_in(value) is None
        error.problem.encode()  # reasons can be written to tables
    else:
        assert scores == rating_in(value)


@given(st.text(alphabet='{}[]",:`jsonRarity 0123456789\n') | st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        read(text)
    except UnparsableError as error:
        error.problem.encode()
