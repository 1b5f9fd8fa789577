"""What a service says an answer took: its `usage`, in the forms that services give it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

_MOST = 100_000_000  # tokens of one request that are believed; more is no count
_PROMPT, _COMPLETION = ("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens")
_OF_PROMPT = ("prompt_tokens_details", "input_tokens_details")
_OF_COMPLETION = ("completion_tokens_details", "output_tokens_details")


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request.

    Attributes:
        prompt_tokens: of the prompt, cached ones included; None where it is not said, or in no known way.
        completion_tokens: of the answer, its reasoning included; likewise.
        cached_tokens: of the prompt, those that the service had in its cache; never more than the prompt's.
        reasoning_tokens: of the answer, those of its reasoning; never more than the answer's.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        """That of two requests; what one of them does not say counts as nothing."""
        return Usage(
            (self.prompt_tokens or 0) + (other.prompt_tokens or 0),
            (self.completion_tokens or 0) + (other.completion_tokens or 0),
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


def usage_in(outcome: Any) -> Usage:
    """The tokens of a reply, a fault or an answer, which have the fields of `Usage`."""
    return Usage(*(getattr(outcome, field.name) for field in fields(Usage)))


def usage_of(said: Any) -> Usage:
    """Read the `usage` of a chat completion. What is not understood is None; nothing is ever an error.

    Services differ in whether the tokens of the answer hold those of its reasoning. They do not where the reasoning
    has more, or where `total_tokens` has room for them beside prompt and answer; what else a total holds is reasoning
    that is not named.
    """
    if not isinstance(said, Mapping):
        return Usage()
    prompt, completion = _first(said, _PROMPT), _first(said, _COMPLETION)
    cached = _first(_details(said, _OF_PROMPT), ("cached_tokens",))
    cached = _first(said, ("cached_tokens", "prompt_cache_hit_tokens")) if cached is None else cached
    reasoning = _first(_details(said, _OF_COMPLETION), ("reasoning_tokens",))
    reasoning = (_first(said, ("reasoning_tokens",)) if reasoning is None else reasoning) or 0
    if completion is not None:
        total = _count(said.get("total_tokens"))
        beside = 0 if total is None or prompt is None else max(0, total - prompt - completion)
        if reasoning > completion or (reasoning and beside >= reasoning):
            beside = max(beside, reasoning)
        completion, reasoning = completion + beside, max(reasoning, beside)
    return Usage(prompt, completion, min(cached or 0, prompt or 0), min(reasoning, completion or 0))


def _details(said: Mapping[str, Any], names: tuple[str, ...]) -> Mapping[str, Any]:
    return next((said[name] for name in names if isinstance(said.get(name), Mapping)), {})


def _first(said: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    return next((count for name in names if (count := _count(said.get(name))) is not None), None)


def _count(value: Any) -> int | None:
    """A whole number of tokens, also as 30.0 or "30"; None for anything else."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 12:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _MOST or value % 1:
        return None
    return int(value)
