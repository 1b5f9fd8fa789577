"""What a successful response holds, whatever its shape: an answer, an error, or what is kept as it came."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tamis.llm.faults import Fault
from tamis.llm.replies import Reply, reply_in, reply_of
from tests.llm_server import completion

LOGPROBS = [{"token": "a", "logprob": 0.0, "top_logprobs": []}]


def said(content: Any, **more: Any) -> Any:
    """A completion whose message has this content."""
    return completion(content, **more)


def with_usage(usage: Any) -> Any:
    return completion("fine") | {"usage": usage}


def with_logprobs(logprobs: Any) -> Any:
    body = completion("fine")
    body["choices"][0]["logprobs"] = logprobs
    return body


def read(body: Any) -> Reply:
    reply = reply_in(body)
    assert isinstance(reply, Reply)
    return reply


@pytest.mark.parametrize(
    ("content", "text", "thoughts"),
    [
        ("fine", "fine", ""),
        (["fi", "ne"], "fine", ""),
        ([{"type": "text", "text": "fi"}, {"type": "text", "text": "ne"}], "fine", ""),
        ([{"type": "output_text", "text": "fine"}], "fine", ""),
        ([{"type": "text", "text": {"value": "fine"}}], "fine", ""),
        ({"type": "text", "text": "fine"}, "fine", ""),
        ([{"type": "image", "image": "…"}, {"type": "text", "text": "fine"}], "fine", ""),
        ([{"type": "text", "text": ""}], "", ""),
        ([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "fine"}], "fine", "hm"),
        (
            [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "fine"}],
            "fine",
            "hm",
        ),
        (None, "", ""),
        ("", "", ""),
        ([], "", ""),
    ],
)
def test_content_is_text_or_parts(content: Any, text: str, thoughts: str) -> None:
    reply = read(said(content))
    assert (reply.text, reply.thoughts, reply.raw) == (text, thoughts, None)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thoughts_and_their_tokens_are_told_from_the_answer(field: str) -> None:
    body = said(None, **{field: "Let me see."})
    body["usage"]["completion_tokens_details"] = {"reasoning_tokens": 25}
    reply = read(body)
    assert (reply.text, reply.thoughts, reply.reasoning_tokens, reply.completion_tokens) == ("", "Let me see.", 25, 30)


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        (None, (None, None, 0)),
        ([], (None, None, 0)),
        ("many", (None, None, 0)),
        ({"prompt_tokens": "100", "completion_tokens": 30.0}, (100, 30, 0)),
        ({"prompt_tokens": -1, "completion_tokens": 3e9}, (None, None, 0)),
        ({"prompt_tokens": 100, "completion_tokens": 2**31, "prompt_tokens_details": 3}, (100, None, 0)),
        (
            {"prompt_tokens": 100, "completion_tokens": 30, "prompt_tokens_details": {"cached_tokens": 64}},
            (100, 30, 64),
        ),
        ({"prompt_tokens": 100, "completion_tokens": 30, "prompt_tokens_details": None}, (100, 30, 0)),
    ],
)
def test_an_odd_usage_throws_no_answer_away(usage: Any, counts: tuple[int | None, int | None, int]) -> None:
    reply = read(with_usage(usage))
    assert reply.text == "fine"
    assert (reply.prompt_tokens, reply.completion_tokens, reply.cached_tokens) == counts


@pytest.mark.parametrize(
    ("logprobs", "entries"),
    [
        ({"content": LOGPROBS}, LOGPROBS),
        (LOGPROBS, LOGPROBS),
        ({"content": None, "refusal": None}, []),
        ({"tokens": ["a"], "token_logprobs": [0.0]}, []),
        ([0.0], []),
        ("none", []),
        (3, []),
    ],
)
def test_odd_logprobs_throw_no_answer_away(logprobs: Any, entries: list[Any]) -> None:
    reply = read(with_logprobs(logprobs))
    assert (reply.text, reply.logprobs) == ("fine", entries)


@pytest.mark.parametrize(
    "body",
    [
        said(7),
        said(0),
        said({}),
        said({"answer": "fine"}),
        said([{"type": "audio", "audio": "…"}]),
        completion() | {"choices": [{"finish_reason": "stop", "output": "fine"}]},
        {"output": {"text": "fine"}, "usage": {"prompt_tokens": 100, "completion_tokens": 30}},
        completion() | {"choices": {"message": "fine"}},
    ],
)
def test_what_is_paid_for_and_not_understood_is_kept_as_it_came(body: Any) -> None:
    reply = read(body)
    assert json.loads(reply.raw or "") == body
    assert reply.text == ""


def test_a_body_without_a_choice_that_was_paid_for_is_no_answer_and_not_sent_again() -> None:
    assert read(completion() | {"choices": []}).finish == "no choice"
    filtered = {"content_filter_results": {"violence": {"filtered": True}}}
    assert read(completion() | {"choices": [], "prompt_filter_results": [filtered]}).moderated
    assert read(completion() | {"choices": [], "promptFeedback": {"blockReason": "SAFETY"}}).moderated
    nothing = reply_in({"choices": []})
    assert isinstance(nothing, Fault)
    assert nothing.again


@pytest.mark.parametrize(
    ("finish", "moderated"),
    [("content_filter", True), ("SAFETY", True), ("sensitive", True), ("stop", False), ("length", False)],
)
def test_moderation_is_known_by_the_end_of_an_answer(finish: str, moderated: bool) -> None:
    assert read(completion("", finish=finish)).moderated is moderated


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"error": {"code": 502, "message": "Provider returned error"}}, "server error"),
        ({"error": {"code": "429", "message": "slow down"}}, "rate limited"),
        ({"error": {"code": 400, "message": "the request exceeds the available context size"}}, "too long"),
        ({"error": {"code": 400, "message": "a message holds a control character"}}, "bad request"),
        ({"error": {"code": 401, "message": "no such key"}}, "unauthorised"),
        ({"error": {"message": "Content Exists Risk", "code": "invalid_request_error"}}, "content filter"),
        ({"error": {"message": "insufficient", "code": "insufficient_quota"}}, "quota used up"),
        ({"error": "something broke"}, "server error"),
        ([{"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}], "server error"),
        ({"error": {"message": "logprobs are not supported"}}, "parameter refused"),
        (
            {"choices": [{"finish_reason": "error", "error": {"code": 502, "message": "lost"}, "message": {}}]},
            "server error",
        ),
        (completion("half of", finish="insufficient_system_resource"), "server error"),
    ],
)
def test_an_error_that_comes_with_the_status_200_is_read_as_one(body: Any, kind: str) -> None:
    fault = reply_in(body, frozenset({"logprobs", "messages"}), 600)
    assert isinstance(fault, Fault)
    assert fault.kind == kind


def test_an_answer_beside_an_error_counts() -> None:
    assert read(completion("fine") | {"error": {"message": "a warning"}}).text == "fine"
    assert read(completion("fine") | {"error": None}).text == "fine"


def test_a_body_of_nothing_but_brackets_is_no_answer() -> None:
    fault = reply_of(b"[" * 100_000)
    assert isinstance(fault, Fault)
    assert fault.kind == "bad response"
