"""Classifies why a request failed, and whether a retry may help."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from tamis.core.secrets import shown
from tamis.llm.wordings import said_in

Kind = Literal[
    "rate limited",
    "server error",
    "timeout",
    "no connection",
    "connection lost",
    "bad response",
    "bad request",
    "too long",
    "content filter",
    "unauthorised",
    "forbidden",
    "not found",
    "quota used up",
    "long wait",
    "parameter refused",
    "batch ended",
]
_ABSENT = {"server error", "timeout", "no connection", "connection lost", "bad response"}
_AGAIN = _ABSENT | {"rate limited"}
_DENIED = {"unauthorised", "not found", "quota used up", "long wait"}
_HOPELESS = _DENIED | {"forbidden", "parameter refused"}
_ABOUT_TEXT = {"too long", "content filter"}
_OVERLOAD = _AGAIN - {"bad response"}
_LATER = {408, 409, 425, 429, 503}  # statuses that ask for a retry
_CONTENT = {"messages", "prompt", "input"}  # fields that differ between requests
_SHOWN = 200  # characters of a service's message


@dataclass(frozen=True, slots=True)
class Fault:
    """Why one try of a request failed.

    Attributes:
        kind: one of a few kinds, for counting.
        detail: short message of the service or the network, without keys.
        retry_after: seconds that the service asks to wait, or None.
        prompt_tokens: tokens of the probes that showed that the request fails and not the service, or None.
        completion_tokens: likewise.
        cached_tokens: prompt tokens that the service had in its cache.
        reasoning_tokens: answer tokens that are reasoning.
    """

    kind: Kind
    detail: str = ""
    retry_after: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def again(self) -> bool:
        """Whether the same request may succeed later."""
        return self.kind in _AGAIN

    @property
    def hopeless(self) -> bool:
        """Whether all requests would fail in the same way, unless the text of this one is the cause."""
        return self.kind in _HOPELESS

    @property
    def denied(self) -> bool:
        """Whether it concerns the account, and hardly ever a text."""
        return self.kind in _DENIED

    @property
    def absent(self) -> bool:
        """Whether it looks like a service that is down."""
        return self.kind in _ABSENT

    @property
    def about_text(self) -> bool:
        """Whether the service says that the text of this request is the cause."""
        return self.kind in _ABOUT_TEXT

    @property
    def passing(self) -> bool:
        """Whether it may be temporary; firewalls and load balancers also deny requests for a while."""
        return self.again or self.denied or self.kind == "forbidden"

    @property
    def overload(self) -> bool:
        """Whether fewer concurrent requests may help."""
        return self.kind in _OVERLOAD

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}" if self.detail else self.kind


def fault_of_status(
    status: int, headers: Mapping[str, str], body: Any, parameters: frozenset[str], patience: float
) -> Fault:
    """The fault behind an HTTP status.

    Args:
        status: 400 or higher.
        headers: headers of the response, by lower-case name.
        body: parsed JSON of the response, or its text.
        parameters: names of the request's fields. A 400 about a field that all requests share means that the service
            does not support it; a 400 about the messages concerns only this request.
        patience: seconds; if the service asks for a longer wait, the fault is "long wait".
    """
    said = said_in(body)
    detail = f"{status} {shortened(said.message)}".strip()
    wait = retry_after(headers)
    if said.of_quota:
        return Fault("quota used up", detail)
    # Some servers respond with a 500 to a request that is too long or moderated.
    if status not in _LATER and status != 401:
        if said.of_moderation or (status == 403 and said.of_moderation_with_reasons):
            return Fault("content filter", detail)
        if said.of_length:
            return Fault("too long", detail)
    if status in _LATER or status >= 500:
        if wait is not None and wait > patience:
            return Fault("long wait", f"{detail} (Retry-After: {wait:.0f} s, more than 'patience')")
        return Fault("rate limited" if status == 429 else "server error", detail, wait)
    if status == 401:
        return Fault("unauthorised", detail)
    if status == 403 and "logprobs" in said.message:  # only some models allow it
        return Fault("parameter refused", detail)
    if status in (402, 403):
        return Fault("forbidden", detail)
    if status == 404:
        return Fault("not found", detail)
    if status == 413:
        return Fault("too long", detail)
    if _names_a_parameter(said.parameter, said.message, parameters - _CONTENT):
        return Fault("parameter refused", detail)
    return Fault("bad request", detail)


def fault_in_answer(body: Any, parameters: frozenset[str], patience: float) -> Fault:
    """The fault behind an error with the HTTP status 200, by the status or the message in its body."""
    error = body.get("error") if isinstance(body, Mapping) else None
    named = error.get("code", error.get("status")) if isinstance(error, Mapping) else None
    status = int(str(named)) if re.fullmatch(r"[45]\d\d", str(named)) else 400
    fault = fault_of_status(status, {}, body, parameters, patience)
    if status == 400 and fault.kind == "bad request" and str(named) != "400":
        return Fault("server error", fault.detail.removeprefix("400 "))  # nothing shows that this request is the cause
    return fault


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that the service asks to wait: `retry-after-ms`, or `Retry-After` as seconds or as an HTTP date."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after", "").strip()
    seconds = _number(value)
    if seconds is not None:
        return seconds
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return max(0.0, number) if math.isfinite(number) else None


def _names_a_parameter(named: str, message: str, parameters: frozenset[str]) -> bool:
    """Whether a 400 concerns a parameter that all requests share, and not the content of this request."""
    if named.partition(".")[0] in parameters:
        return True
    # "model" occurs in too many messages that do not mean the parameter.
    return any(re.search(rf"\b{re.escape(name)}\b", message) for name in parameters - {"model"})


def storable(text: str) -> str:
    """The text without halves of surrogate pairs, which JSON allows but UTF-8 does not."""
    return text.encode("utf-8", "replace").decode()


def shortened(text: str) -> str:
    """The beginning of `text` in one line, without secrets, because services repeat the key that they refuse."""
    line = shown(" ".join(storable(text).split()))
    return line if len(line) <= _SHOWN else line[:_SHOWN] + "..."
