"""A rater's answer, read strictly: exactly four integers from 1 to 10, or a reason why not."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from tamis.core.errors import TamisError

KEYS = ("Rarity", "Complexity", "Informativeness", "Overall rating")
LOW, HIGH = 1, 10
_FENCED = re.compile(r"```(?:json)?[ \t]*\r?\n(.*?)\r?\n?[ \t]*```", re.DOTALL | re.IGNORECASE)
_SHOWN = 40  # characters of a wrong value in a reason


class Scores(NamedTuple):
    """The four scores of one sample, each 1..10, in the order of `KEYS`."""

    rarity: int
    complexity: int
    informativeness: int
    overall: int


class UnparsableError(TamisError):
    """An answer is not four scores. Its text is "kind" or "kind: detail"; the kinds are few, for counting."""


def write(scores: Scores) -> str:
    """The answer that says `scores`, as a rater is asked to write it."""
    return json.dumps(dict(zip(KEYS, scores, strict=True)))


def parse(answer: str) -> Scores:
    """Read an answer: one JSON object with exactly the keys of `KEYS` and integers from 1 to 10.

    White space and one Markdown fence around the object are accepted, nothing else is: no text before or after, no
    number as text ("7", "7/10"), no fraction (7.0), no key twice. A rater that keeps the form says what it means;
    guessing at the others once turned bad answers into lowest scores.

    Raises:
        UnparsableError: with the reason.
    """
    text = answer.strip()
    if not text:
        raise UnparsableError("empty answer")
    if fenced := _FENCED.fullmatch(text):
        text = fenced[1].strip()
    if not text.startswith("{"):
        raise UnparsableError(f"not a JSON object: it begins with {_shown(text)}")
    try:
        pairs, end = json.JSONDecoder(object_pairs_hook=_Pairs).raw_decode(text)
    except (ValueError, RecursionError):  # the decoder also refuses integers of thousands of digits
        raise UnparsableError("not JSON") from None
    if text[end:].strip():
        raise UnparsableError(f"text after the JSON object: {_shown(text[end:].strip())}")
    keys = [key for key, _ in pairs]
    if sorted(keys) != sorted(KEYS):
        raise UnparsableError(f"wrong keys: {', '.join(map(_shown, keys[:6])) or 'none'}")
    values = dict(pairs)
    return Scores(*(_score(key, values[key]) for key in KEYS))


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as its pairs, so that a key given twice is seen."""


def _score(key: str, value: Any) -> int:
    if type(value) is not int:
        raise UnparsableError(f"not an integer: {key} is {_shown(value)}")
    if not LOW <= value <= HIGH:
        raise UnparsableError(f"out of range: {key} is {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "an object" if isinstance(value, _Pairs) else "an array"
    text = ascii(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
