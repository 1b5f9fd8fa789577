"""Reads the token counts that services report (`usage`), in their different forms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

_MOST = 100_000_000  # tokens of one request; a higher count is ignored
_PROMPT, _COMPLETION = ("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens")
_OF_PROMPT = ("prompt_tokens_details", "input_tokens_details")
_OF_COMPLETION = ("completion_tokens_details", "output_tokens_details")


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request.

    Attributes:
        prompt_tokens: prompt tokens, including cached ones; None if not reported in a known form.
        completion_tokens: answer tokens, including reasoning; likewise.
        cached_tokens: prompt tokens that the service had in its cache; at most the prompt tokens.
        reasoning_tokens: answer tokens that are reasoning; at most the answer tokens.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        """The sum of two requests; unknown counts are 0."""
        return Usage(
            (self.prompt_tokens or 0) + (other.prompt_tokens or 0),
            (self.completion_tokens or 0) + (other.completion_tokens or 0),
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


def usage_in(outcome: Any) -> Usage:
    """The token counts of a reply, a fault or an answer."""
    return Usage(*(getattr(outcome, field.name) for field in fields(Usage)))


def usage_of(said: Any) -> Usage:
    """Read the `usage` of a chat completion. Counts that are not understood are None; there are no errors.

    Some services include reasoning in the answer tokens, others do not. Reasoning is not included if it has more tokens
    than the answer, or if `total_tokens` also contains it in addition to prompt and answer. Other tokens in the total
    count as reasoning that is not reported separately.
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
