"""Reads the responses of services: answers, errors, and paid responses that are not understood."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import inf
from typing import Any

from tamis.core.secrets import masked
from tamis.llm.faults import Fault, fault_in_answer, shortened, storable
from tamis.llm.usage import usage_of

# Values of finish_reason for answers that were stopped by moderation, and by a fault of the service.
_MODERATED = {"content_filter", "sensitive", "safety", "prohibited_content", "blocklist", "moderation", "refusal"}
_BROKEN_OFF = {"error", "insufficient_system_resource", "abort"}
_LONGEST_RAW = 50_000  # characters of a response that is stored unchanged


@dataclass(frozen=True, slots=True)
class Reply:
    """A service's answer.

    Attributes:
        text: the answer; may be empty.
        finish: why it ended: "stop", "length", "content_filter", …
        refusal: text of a refusal, if the service marks one.
        logprobs: one entry per token of the answer with `token`, `logprob`, `top_logprobs`; empty if not requested.
        prompt_tokens: as counted by the service; None if not reported.
        completion_tokens: likewise, including reasoning.
        cached_tokens: prompt tokens that the service had in its cache.
        reasoning_tokens: answer tokens that are reasoning.
        thoughts: the model's thoughts, if the service returns them separately.
        raw: the response, if it was paid for but has no answer that is understood.
    """

    text: str
    finish: str = "stop"
    refusal: str | None = None
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    thoughts: str = ""
    raw: str | None = None

    @property
    def moderated(self) -> bool:
        """Whether moderation removed the answer, or a part of it."""
        return self.refusal is not None or self.finish.lower() in _MODERATED


def reply_of(content: bytes, parameters: frozenset[str] = frozenset(), patience: float = inf) -> Reply | Fault:
    """Read the body of a successful response.

    Args:
        content: the body.
        parameters: names of the request's fields, as for `fault_of_status`.
        patience: seconds, likewise.
    """
    if not content.strip():
        return Fault("bad response", "an empty body")
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return Fault("bad response", f"not JSON: {shortened(content[:80].decode(errors='replace'))}")
    return reply_in(body, parameters, patience)


def reply_in(body: Any, parameters: frozenset[str] = frozenset(), patience: float = inf) -> Reply | Fault:
    """Read a chat completion, as parsed JSON."""
    if isinstance(body, list) and len(body) == 1:  # the form of Gemini's errors
        body = body[0]
    if not isinstance(body, Mapping):
        return Fault("bad response", "JSON, but no chat completion")
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], Mapping) else {}
    counts, finish = asdict(usage_of(body.get("usage"))), _kept(str(choice.get("finish_reason") or "stop"))
    message = choice.get("message")
    message = message if isinstance(message, Mapping) else {}
    content = message.get("content", choice.get("text"))
    text, thoughts, refusal, known = _parts(content)
    thoughts = thoughts or next(filter(None, (_text(message.get(name)) for name in _THOUGHTS)), "")
    refusal = refusal or _text(message.get("refusal"))
    for erring in (choice, body):
        if erring.get("error") and not text:
            return fault_in_answer(erring, parameters, patience)
    if finish.lower() in _BROKEN_OFF:
        return Fault("server error", f"the answer was broken off: finish_reason {shortened(finish)}")
    if not choice and not body.get("usage"):
        return Fault("bad response", "JSON, but no chat completion")
    # Null is no answer. Other content without text is an answer that cannot be read.
    if not known or (not message and content is None and choices != []):
        return Reply("", finish, raw=_raw(body), **counts)
    if not choice:
        finish = "content_filter" if _blocked(body) else "no choice"
    return Reply(
        _kept(text),
        finish,
        _kept(refusal) if refusal else None,
        _logprobs(choice.get("logprobs")),
        thoughts=_kept(thoughts),
        **counts,
    )


_THOUGHTS = ("reasoning_content", "reasoning", "thinking", "thought")  # names of this field by kind of server


def _raw(body: Mapping[str, Any]) -> str:
    """A response as text, without probabilities, which may be a hundred times as long as the answer."""
    choices = body.get("choices")
    if isinstance(choices, list):
        short = [
            {k: v for k, v in one.items() if k != "logprobs"} if isinstance(one, Mapping) else one for one in choices
        ]
        body = {**body, "choices": short}
    return masked(json.dumps(body))[:_LONGEST_RAW]


def _kept(text: str) -> str:
    """A service's text as it may be stored and shown."""
    return masked(storable(text))


def _text(value: Any) -> str:
    """A text, or the text inside an object."""
    if isinstance(value, Mapping):
        value = next((value[name] for name in ("text", "content", "value") if isinstance(value.get(name), str)), None)
    return value if isinstance(value, str) else ""


def _parts(content: Any) -> tuple[str, str, str, bool]:
    """Answer, thoughts and refusal in a message's content, which is text, a part, a list of parts, or null.

    The last value is false if there are parts of unknown kinds and no text.
    """
    found: dict[str, list[str]] = {"answer": [], "thoughts": [], "refusal": []}
    known = True
    for part in content if isinstance(content, list) else [] if content is None else [content]:
        kind = str(part.get("type") or "text") if isinstance(part, Mapping) else "text"
        if isinstance(part, str):
            found["answer"].append(part)
        elif not isinstance(part, Mapping):
            known = False
        elif kind in ("thinking", "reasoning", "thought"):
            inner = next((part[name] for name in ("thinking", "reasoning", "text") if part.get(name)), "")
            found["thoughts"].append(_parts(inner)[0])
        elif kind == "refusal":
            found["refusal"].append(_text(part.get("refusal")))
        elif kind in ("text", "output_text") and isinstance(part.get("text"), str | Mapping):
            found["answer"].append(_text(part["text"]))
        else:
            known = False
    answer, thoughts, refusal = ("".join(texts) for texts in found.values())
    return answer, thoughts, refusal, known or bool(answer)


def _logprobs(value: Any) -> list[dict[str, Any]]:
    entries = value.get("content") if isinstance(value, Mapping) else value
    return entries if isinstance(entries, list) and all(isinstance(one, Mapping) for one in entries) else []


def _blocked(body: Mapping[str, Any]) -> bool:
    """Whether a response without a choice says that moderation is the reason."""
    feedback = body.get("promptFeedback") or body.get("prompt_feedback")
    if isinstance(feedback, Mapping) and (feedback.get("blockReason") or feedback.get("block_reason")):
        return True
    results = body.get("prompt_filter_results")
    for result in results if isinstance(results, list) else []:
        found = result.get("content_filter_results") if isinstance(result, Mapping) else None
        for verdict in found.values() if isinstance(found, Mapping) else ():
            if isinstance(verdict, Mapping) and verdict.get("filtered") is True:
                return True
    return False
