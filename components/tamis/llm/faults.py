"""What went wrong with a request: its kind, and what to do about it."""

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
    "wants to wait",
    "parameter refused",
    "batch ended",
]
_ABSENT = {"server error", "timeout", "no connection", "connection lost", "bad response"}
_AGAIN = _ABSENT | {"rate limited"}
_DENIED = {"unauthorised", "not found", "quota used up", "wants to wait"}
_HOPELESS = _DENIED | {"forbidden", "parameter refused"}
_ABOUT_TEXT = {"too long", "content filter"}
_OVERLOAD = _AGAIN - {"bad response"}
_LATER = {408, 409, 425, 429, 503}  # statuses that ask to come again
_CONTENT = {"messages", "prompt", "input"}  # fields of a request that no other has alike
_SHOWN = 200  # characters of a service's own words


@dataclass(frozen=True, slots=True)
class Fault:
    """Why one sending of a request gave no answer.

    Attributes:
        kind: one of few, for counting.
        detail: the service's own words, or the network's; short, without any key.
        retry_after: seconds that the service asks to wait; None where it does not.
        prompt_tokens: paid for in finding out that the request fails and not the service; None where nothing was.
        completion_tokens: likewise.
        cached_tokens: those of the prompt that the service had in its cache.
        reasoning_tokens: those of the answer that are thoughts.
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
        """Whether every other request would fail the same way, if it was not this one's text that caused it."""
        return self.kind in _HOPELESS

    @property
    def denied(self) -> bool:
        """Whether it is about the account, and hardly ever about a text."""
        return self.kind in _DENIED

    @property
    def absent(self) -> bool:
        """Whether it is what a service shows that is away or out of order."""
        return self.kind in _ABSENT

    @property
    def about_text(self) -> bool:
        """Whether it is about this request's text by the service's own words."""
        return self.kind in _ABOUT_TEXT

    @property
    def passing(self) -> bool:
        """Whether it may be gone a moment later. A firewall, or a balancer between services, may be in its bad hour."""
        return self.again or self.denied or self.kind == "forbidden"

    @property
    def overload(self) -> bool:
        """Whether fewer requests at once may help."""
        return self.kind in _OVERLOAD

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}" if self.detail else self.kind


def fault_of_status(
    status: int, headers: Mapping[str, str], body: Any, parameters: frozenset[str], patience: float
) -> Fault:
    """The fault behind an HTTP status.

    Args:
        status: 400 or more.
        headers: of the response, by lower-case name.
        body: parsed JSON of the response, or its text.
        parameters: names of the request's fields. Of one that all requests have alike, a 400 may say that the service
            has no such parameter; one about the messages is about this request alone.
        patience: seconds; a service that wants to be left alone for longer is not waited for.
    """
    said = said_in(body)
    detail = f"{status} {shortened(said.message)}".strip()
    wait = retry_after(headers)
    if said.of_quota:
        return Fault("quota used up", detail)
    # Some servers answer a request that is too long, or moderated, by a 500.
    if status not in _LATER and status != 401:
        if said.of_moderation or (status == 403 and said.of_moderation_with_reasons):
            return Fault("content filter", detail)
        if said.of_length:
            return Fault("too long", detail)
    if status in _LATER or status >= 500:
        if wait is not None and wait > patience:
            return Fault("wants to wait", f"{detail} (Retry-After: {wait:.0f} s, more than 'patience')")
        return Fault("rate limited" if status == 429 else "server error", detail, wait)
    if status == 401:
        return Fault("unauthorised", detail)
    if status == 403 and "logprobs" in said.message:  # allowed for some models only
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
    """The fault behind an error that came with the status 200: by the status that it names, or else by its words."""
    error = body.get("error") if isinstance(body, Mapping) else None
    named = error.get("code", error.get("status")) if isinstance(error, Mapping) else None
    status = int(str(named)) if re.fullmatch(r"[45]\d\d", str(named)) else 400
    fault = fault_of_status(status, {}, body, parameters, patience)
    if status == 400 and fault.kind == "bad request" and str(named) != "400":
        return Fault("server error", fault.detail.removeprefix("400 "))  # nothing says that it is this request's own
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
    """Whether a 400 is about a parameter that every request has, and not about this request's content."""
    if named.partition(".")[0] in parameters:
        return True
    # "model" stands in too many sentences to mean the parameter.
    return any(re.search(rf"\b{re.escape(name)}\b", message) for name in parameters - {"model"})


def storable(text: str) -> str:
    """The text without halves of surrogate pairs, which JSON can hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


def shortened(text: str) -> str:
    """The beginning of `text`, in one line, without secrets: services repeat the key that they refuse."""
    line = shown(" ".join(storable(text).split()))
    return line if len(line) <= _SHOWN else line[:_SHOWN] + "..."
