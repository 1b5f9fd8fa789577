"""Reads the error messages of services: where they are in a response, and what they mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_QUOTA = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
_FILTERED = {
    "content_filter",
    "content_policy_violation",
    "responsibleaipolicyviolation",
    "invalid_prompt",
    "moderation_blocked",
    "data_inspection_failed",  # DashScope
    "datainspectionfailed",
    "prohibited_content",  # Gemini, as the next
    "safety",
}
_FILTERED_WORDS = re.compile(
    r"content exists risk|data_?inspection_?failed|may contain inappropriate content|flagged as potentially violating"
    r"|content violates usage guidelines|content management policy",
    re.I,
)
_MODERATED = {"flagged_input", "reasons"}  # keys in the metadata of OpenRouter's 403 about one sample
_TOO_LONG = {"context_length_exceeded", "exceed_context_size_error", "request_too_large", "string_above_max_length"}
_TOO_LONG_WORDS = re.compile(
    r"context[ _](length|size|window|limit)|maximum context|too many tokens|string too long"
    r"|prompt is too long|prompt too long|maximum (model|prompt) length"
    r"|token count.{0,40}exceeds|exceeds the maximum number of tokens"
    r"|`?inputs`? (must have less than|tokens \+)|input length should be|longer than the model's",
    re.I,
)
_FIXES = {  # by parameter; longer names first, because they contain shorter ones
    "top_logprobs": "set logprobs: false",
    "logprobs": "set logprobs: false",
    "max_completion_tokens": "set answer_limit to the name that the service knows, max_tokens or max_completion_tokens",
    "max_tokens": "set answer_limit to the name that the service knows, max_tokens or max_completion_tokens",
    "response_format": "set structured: json_object, or none",
    "json_schema": "set structured: json_object, or none",
    "temperature": "set extra: {temperature: null}",
    "top_p": "set top_p: 1",
    "top_k": "set top_k: 0",
    "seed": "set seeded: false",
}
_DEPTH = 3  # levels of nested bodies


@dataclass(frozen=True, slots=True)
class Said:
    """The content of an error response.

    Attributes:
        message: the message; may be empty.
        codes: all codes for the kind of error, in lower case.
        parameter: the field of the request that it names, or empty.
        metadata: other fields next to the message.
    """

    message: str = ""
    codes: frozenset[str] = frozenset()
    parameter: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def of_quota(self) -> bool:
        """Whether the quota of the account is used up."""
        return not self.codes.isdisjoint(_QUOTA)

    @property
    def of_moderation(self) -> bool:
        """Whether the service refuses this request because of its content."""
        return not self.codes.isdisjoint(_FILTERED) or bool(_FILTERED_WORDS.search(self.message))

    @property
    def of_moderation_with_reasons(self) -> bool:
        """Whether the metadata tells why the content was refused."""
        return not self.metadata.keys().isdisjoint(_MODERATED)

    @property
    def of_length(self) -> bool:
        """Whether this request has more tokens than the model accepts."""
        return not self.codes.isdisjoint(_TOO_LONG) or bool(_TOO_LONG_WORDS.search(self.message))


def fix_of(words: str) -> str:
    """The setting to change if a service refuses a parameter that its message names."""
    fixes = [fix for name, fix in _FIXES.items() if re.search(rf"\b{name}\b", words)]
    return fixes[0] if fixes else f"change the setting behind that parameter: {'; '.join(_FIXES.values())}"


def said_in(body: Any) -> Said:
    """Read the body of an error: OpenAI's form, FastAPI's (`detail`), Gemini's (a list), problem+json, or text."""
    return _said(body, _DEPTH)


def _said(body: Any, depth: int) -> Said:
    if isinstance(body, list) and body and depth:
        return _said(body[0], depth - 1)
    if not isinstance(body, Mapping):
        return Said(str(body).strip() if isinstance(body, (str, int, float)) else "")
    error = body.get("error")
    if isinstance(error, Mapping | list) and error and depth:
        return _said(error, depth - 1)
    codes = {str(body.get(name)).lower() for name in ("code", "type", "status", "reason") if body.get(name)}
    if isinstance(inner := body.get("innererror"), Mapping):
        codes.add(str(inner.get("code")).lower())
    metadata = body.get("metadata")
    return Said(
        _message(body, depth),
        frozenset(codes),
        str(body.get("param") or ""),
        metadata if isinstance(metadata, Mapping) else {},
    )


def _message(body: Mapping[str, Any], depth: int) -> str:
    for name in ("message", "msg", "error", "error_description", "detail", "title", "errors"):
        value, words = body.get(name), ""
        if isinstance(value, str):
            # problem+json has a title beside the detail.
            parts = [body.get("title"), body.get("detail")] if name in ("title", "detail") else [value]
            words = ": ".join(part.strip() for part in parts if isinstance(part, str) and part.strip())
        elif isinstance(value, Mapping) and depth:
            words = _said(value, depth - 1).message
        elif isinstance(value, list) and depth:
            words = "; ".join(filter(None, (_complaint(one, depth - 1) for one in value[:3])))
        if words:
            return words
    return ""


def _complaint(one: Any, depth: int) -> str:
    """The message of one of several errors, with the field that FastAPI names."""
    words = _said(one, depth).message
    place = one.get("loc") if isinstance(one, Mapping) else None
    named = ".".join(str(part) for part in place) if isinstance(place, list) else ""
    return f"{named}: {words}" if named and words else words
