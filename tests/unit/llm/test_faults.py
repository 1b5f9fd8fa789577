"""What a service's error means."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from tamis.llm.faults import fault_of_status, retry_after
from tamis.llm.wordings import fix_of
from tests.llm_server import error

PARAMETERS = frozenset({"logprobs", "response_format", "messages", "model"})


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, error("Incorrect API key"), "unauthorised"),
        (402, "", "forbidden"),
        (403, error("no access"), "forbidden"),
        (403, error("your input was flagged", metadata={"reasons": ["x"], "flagged_input": "…"}), "content filter"),
        (403, error("filtered", "content_policy_violation"), "content filter"),
        (404, error("no such model"), "not found"),
        (429, error("slow down", "rate_limit_exceeded"), "rate limited"),
        (429, error("You exceeded your current quota", "insufficient_quota"), "quota used up"),
        (429, error("you have no credit", None, type="insufficient_quota"), "quota used up"),
        (408, "", "server error"),
        (500, "<html>", "server error"),
        (502, None, "server error"),
        (503, error("overloaded"), "server error"),
        (400, error("filtered", "content_filter"), "content filter"),
        (400, error("bad", None, innererror={"code": "ResponsibleAIPolicyViolation"}), "content filter"),
        (400, error("too much", "context_length_exceeded"), "too long"),
        (400, error("This model's maximum context length is 8192 tokens"), "too long"),
        (413, "", "too long"),
        # As vLLM, llama.cpp, Anthropic, Gemini, SGLang, TGI, xAI and DashScope word it.
        (400, error("You passed 5000 input tokens. However, the model's context length is only 4096"), "too long"),
        (500, {"detail": "The decoder prompt (length 9) is longer than the maximum model length of 8."}, "too long"),
        (400, error("request (4390 tokens) exceeds the available context size (4096 tokens)"), "too long"),
        (500, error("no room", None, type="exceed_context_size_error"), "too long"),
        (500, error("Context size has been exceeded."), "too long"),
        (400, error("prompt is too long: 208310 tokens > 200000 maximum"), "too long"),
        (400, error("input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000"), "too long"),
        (413, error("Request exceeds the maximum size", None, type="request_too_large"), "too long"),
        (400, [error("The input token count (12) exceeds the maximum number of tokens allowed (10).")], "too long"),
        (400, error("The input (12 tokens) is longer than the model's context length (10 tokens)."), "too long"),
        (422, {"error": "`inputs` must have less than 10 tokens. Given: 12"}, "too long"),
        (400, error("This model's maximum prompt length is 10 but the request contains 12 tokens."), "too long"),
        (400, error("Range of input length should be [1, 10]"), "too long"),
        (429, error("Rate limit reached: too many tokens per minute"), "rate limited"),
        # Moderation of one sample, as DeepSeek, DashScope, OpenAI, Gemini and xAI word it.
        (400, error("Content Exists Risk", "invalid_request_error"), "content filter"),
        (400, {"detail": "Content Exists Risk"}, "content filter"),
        (400, error("Input data may contain inappropriate content.", "data_inspection_failed"), "content filter"),
        (400, error("<400> InternalError.Algo.DataInspectionFailed: Input text data"), "content filter"),
        (500, error("Output data may contain inappropriate content."), "content filter"),
        (400, error("Invalid prompt: it was flagged", "invalid_prompt"), "content filter"),
        (400, [{"error": {"code": 400, "message": "blocked", "status": "PROHIBITED_CONTENT"}}], "content filter"),
        (403, error("Content violates usage guidelines."), "content filter"),
        (403, error("You are not allowed to request logprobs from this model"), "parameter refused"),
        (403, error("your account is closed"), "forbidden"),
        (400, error("logprobs are not supported with this model"), "parameter refused"),
        (400, error("Invalid schema", None, param="response_format"), "parameter refused"),
        (400, error("a message holds a control character"), "bad request"),
        (400, error("Invalid 'messages[0].content': string of length 0"), "bad request"),
        (400, error("no such value", None, param="messages"), "bad request"),
        (400, error("the model cannot read this image"), "bad request"),
        (422, {"error": "strange"}, "bad request"),
        (422, {"detail": [1]}, "bad request"),
    ],
)
def test_kinds(status: int, body: Any, kind: str) -> None:
    assert fault_of_status(status, {}, body, PARAMETERS, 600).kind == kind


def test_only_what_may_pass_is_tried_again_and_only_what_never_passes_stops_all() -> None:
    faults = {status: fault_of_status(status, {}, "", PARAMETERS, 600) for status in (400, 401, 429, 503)}
    assert [fault.again for fault in faults.values()] == [False, False, True, True]
    assert [fault.hopeless for fault in faults.values()] == [False, True, False, False]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (error("no such value"), "no such value"),
        ({"error": "no such value"}, "no such value"),
        ({"detail": "no such value"}, "no such value"),
        ({"detail": [{"loc": ["body", "top_k"], "msg": "no such value", "type": "x"}]}, "body.top_k: no such value"),
        ({"detail": {"error": {"message": "no such value"}}}, "no such value"),
        ([{"error": {"code": 400, "message": "no such value", "status": "INVALID_ARGUMENT"}}], "no such value"),
        ({"type": "about:blank", "title": "Bad", "status": 400, "detail": "no such value"}, "Bad: no such value"),
        ({"title": "no such value", "status": 400}, "no such value"),
        ({"object": "error", "message": "no such value", "code": 400}, "no such value"),
        ({"errors": [{"message": "no such"}, {"message": "value"}]}, "no such; value"),
        ("no such value", "no such value"),
        (None, ""),
        ([], ""),
        ({"detail": [[[[[["deep"]]]]]]}, ""),
    ],
)
def test_the_service_s_own_words_are_shown(body: Any, words: str) -> None:
    fault = fault_of_status(400, {}, body, PARAMETERS, 600)
    assert (fault.kind, fault.detail) == ("bad request", f"400 {words}".strip())


@pytest.mark.parametrize(
    ("words", "setting"),
    [
        ("You are not allowed to request logprobs from this model", "logprobs: false"),
        ("Unsupported parameter: 'max_completion_tokens'", "answer_limit"),
        ("'temperature' does not support 0", "extra: {temperature: null}"),
        ("Invalid parameter: 'response_format' of type 'json_schema'", "structured"),
        ("some other field", "logprobs: false"),
    ],
)
def test_a_refused_parameter_s_cure_is_named(words: str, setting: str) -> None:
    assert setting in fix_of(words)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-2"}, 0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
    ],
)
def test_retry_after_in_seconds(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_retry_after_as_a_date() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    later = {"retry-after": format_datetime(now + timedelta(seconds=90), usegmt=True)}
    assert retry_after(later, now) == 90
    assert retry_after(later, now + timedelta(hours=1)) == 0


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_a_service_that_wants_a_longer_wait_than_the_patience_is_not_waited_for(status: int) -> None:
    fault = fault_of_status(status, {"retry-after": "86400"}, error("daily limit"), PARAMETERS, 600)
    assert (fault.kind, fault.hopeless) == ("long wait", True)
    assert "86400" in fault.detail
