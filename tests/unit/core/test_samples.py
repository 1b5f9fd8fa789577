"""Samples: identity and checks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.core.samples import (
    ROLES,
    Message,
    as_text,
    canonical_json_text,
    fault_of,
    instruction_of,
    response_of,
    sample_id,
)
from tests.artifacts import conversation

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
messages = st.lists(st.builds(Message, role=st.sampled_from(ROLES), content=text), min_size=1, max_size=6)


@given(messages, messages)
def test_ids_are_equal_exactly_when_the_conversations_are(one: list[Message], other: list[Message]) -> None:
    assert (sample_id(one) == sample_id(other)) == (one == other)
    assert len(sample_id(one)) == 32


def test_the_id_of_a_sample_never_changes() -> None:
    assert sample_id(conversation("What is 2 + 2?", "4")) == "64487a5c0deb9accb4b0ce04d04691d4"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (None, "no messages"),
        ([], "no messages"),
        ("text", "no messages"),
        ([{"role": "user"}], "no role or no content"),
        ([{"role": "robot", "content": "x"}], "has the role 'robot'"),
        (conversation("hello", "  \n"), "message 2 \\(assistant\\) is empty"),
        ([{"role": "user", "content": 7}], "is empty"),
        (conversation("hello", "\ud800"), "not valid Unicode"),
        ([{"role": "user", "content": "x"}], "no assistant message"),
        ([{"role": "assistant", "content": "x"}], "no user message"),
    ],
)
def test_an_unusable_sample_has_a_reason(bad: Any, reason: str) -> None:
    import re

    assert re.search(reason, fault_of(bad) or "")


CALL = {"id": "c1", "name": "weather", "arguments": '{"city":"Bonn"}'}
CALLING: Any = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT: Any = {"role": "tool", "content": "", "tool_call_id": "c1"}
USER = Message(role="user", content="Weather?")
ANSWER = Message(role="assistant", content="Rain.")


@pytest.mark.parametrize(
    "other",
    [
        {"reasoning": "Hm."},
        {"tool_calls": [CALL]},
        {"name": "Ann"},
        {"train": False},
    ],
)
def test_ids_cover_everything_that_is_taught(other: Any) -> None:
    more: Any = ANSWER | other
    assert sample_id([USER, more]) != sample_id([USER, ANSWER])
    assert sample_id([USER, more]) == sample_id([USER, dict(reversed(more.items()))])  # type: ignore[list-item]


def test_empty_fields_and_a_turn_that_is_learnt_from_do_not_change_the_id() -> None:
    empty: Any = ANSWER | {"reasoning": None, "tool_calls": [], "name": "", "train": True}
    assert sample_id([USER, empty]) == sample_id([USER, ANSWER])


def test_tools_change_the_id() -> None:
    ids = {sample_id([USER, ANSWER], tools) for tools in (None, '[{"name":"a"}]', '[{"name":"b"}]')}
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        (CALLING | {"tool_calls": {"name": "f"}}, "not a list"),
        (CALLING | {"tool_calls": [{"name": "f"}]}, "not {id, name, arguments}"),
        (CALLING | {"tool_calls": [CALL | {"arguments": {}}]}, "not text"),
        (CALLING | {"tool_calls": [CALL | {"name": " "}]}, "without a name"),
        (CALLING | {"tool_calls": [CALL | {"arguments": "\ud800"}]}, "not valid Unicode"),
        (CALLING | {"tool_calls": []}, "is empty"),
        (ANSWER | {"reasoning": 1}, "'reasoning' of type int"),
        (ANSWER | {"reasoning": "\udc00"}, "not valid Unicode"),
        (ANSWER | {"train": "no"}, "'train'"),
        (USER | {"tool_calls": [CALL]}, "only an assistant can"),
    ],
)
def test_a_turn_with_a_faulty_field_has_a_reason(turn: Any, reason: str) -> None:
    assert reason in (fault_of([USER, turn]) or "")


def test_a_conversation_with_tools_is_a_sample_and_has_a_text() -> None:
    thinking: Any = CALLING | {"reasoning": "Look it up."}
    sample = [USER, thinking, RESULT | {"name": "weather", "content": "rain"}, ANSWER]
    assert fault_of(sample, "[]") is None
    assert as_text(sample, '[{"name":"weather"}]').split("\n") == [
        '### tools: [{"name":"weather"}]',
        "### user: Weather?",
        "### assistant thoughts: Look it up.",
        '### assistant calls: weather({"city":"Bonn"})',
        "### tool weather: rain",
        "### assistant: Rain.",
    ]
    assert response_of(sample) == 'Look it up.\nweather({"city":"Bonn"})\nRain.'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": "ü"}, '{"a":"ü","b":1}'),
        ('{ "b": 1, "a": 2 }', '{"a":2,"b":1}'),
        ("city: Bonn", "city: Bonn"),
        ("7", "7"),
        ('{"a": NaN}', '{"a": NaN}'),
        ("", ""),
    ],
)
def test_json_texts_have_one_form_and_other_texts_stay(value: Any, text: str) -> None:
    assert canonical_json_text(value) == text


def test_text_forms() -> None:
    sample = [Message(role="system", content="Be kind."), *conversation("Hi", "Hello", "Bye", "See you")]
    assert fault_of(sample) is None
    assert as_text(sample).startswith("### system: Be kind.\n### user: Hi\n### assistant: Hello")
    assert instruction_of(sample) == "Hi"
    assert response_of(sample) == "Hello\nSee you"
