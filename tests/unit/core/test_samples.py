"""Samples: identity and checks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.core.samples import ROLES, Message, as_text, fault_of, instruction_of, response_of, sample_id
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


def test_text_forms() -> None:
    sample = [Message(role="system", content="Be kind."), *conversation("Hi", "Hello", "Bye", "See you")]
    assert fault_of(sample) is None
    assert as_text(sample).startswith("### system: Be kind.\n### user: Hi\n### assistant: Hello")
    assert instruction_of(sample) == "Hi"
    assert response_of(sample) == "Hello\nSee you"
