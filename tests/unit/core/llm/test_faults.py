"""What a service's error means."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from tamis.core.llm.faults import fault_of_status, retry_after
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
    assert (fault.kind, fault.hopeless) == ("wants to wait", True)
    assert "86400" in fault.detail
