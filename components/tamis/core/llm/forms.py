"""The form of an answer: one JSON object of named whole numbers. Written, described to engines, and read strictly."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tamis.core.errors import TamisError

_FENCED = re.compile(r"```(?:json)?[ \t]*\r?\n(.*?)\r?\n?[ \t]*```", re.DOTALL | re.IGNORECASE)
_SHOWN = 40  # characters of a wrong value in a reason


class UnparsableError(TamisError):
    """An answer is not in its form. Its text is "kind" or "kind: detail"; the kinds are few, for counting."""

    code = "unparsable"


@dataclass(frozen=True)
class Form:
    """One JSON object with exactly these keys, in this order, each with a whole number from `low` to `high`."""

    keys: tuple[str, ...]
    low: int
    high: int

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of an answer."""
        return {
            "type": "object",
            "properties": {key: {"type": "integer", "enum": list(range(self.low, self.high + 1))} for key in self.keys},
            "required": list(self.keys),
            "additionalProperties": False,
        }

    def write(self, values: Sequence[int]) -> str:
        """The answer that says `values`, as a model is asked to write it."""
        return json.dumps(dict(zip(self.keys, values, strict=True)))

    def parse(self, answer: str) -> tuple[int, ...]:
        """Read an answer; the values are in the order of `keys`.

        White space and one Markdown fence around the object are accepted, nothing else is: no text before or after, no
        number as text ("7", "7/10"), no fraction (7.0), no key twice. A model that keeps the form says what it means;
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
        if sorted(keys) != sorted(self.keys):
            raise UnparsableError(f"wrong keys: {', '.join(map(_shown, keys[:6])) or 'none'}")
        values = dict(pairs)
        return tuple(self._value(key, values[key]) for key in self.keys)

    def _value(self, key: str, value: Any) -> int:
        if type(value) is not int:
            raise UnparsableError(f"not an integer: {key} is {_shown(value)}")
        if not self.low <= value <= self.high:
            raise UnparsableError(f"out of range: {key} is {_shown(value)}")
        return value


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as its pairs, so that a key given twice is seen."""


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "an object" if isinstance(value, _Pairs) else "an array"
    text = ascii(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
