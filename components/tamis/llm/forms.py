"""The form of an answer: one JSON object of named numbers, which a text may precede. Writes and reads answers.

An unambiguous answer is accepted even if its form is not quite right. Each such leniency has a name and is counted. An
ambiguous answer is rejected, because a guess could turn a bad answer into a low score.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from math import isfinite
from typing import Any, NamedTuple

from tamis.core.errors import UnparsableError
from tamis.llm.numbers import FreeText, Numbers
from tamis.llm.thoughts import split

_FENCED = re.compile(r"```(?:json)?[ \t]*\r?\n(.*?)\r?\n?[ \t]*```", re.DOTALL | re.IGNORECASE)
_TRAILING_COMMA = re.compile(r",(\s*[}\]])")
_WHOLE = re.compile(r"\s*(\d{1,9})(?:\.0+)?\s*")
_FRACTION = re.compile(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*")
_BETWEEN_WORDS = re.compile(r"[\s_-]+")
_BOM = "\ufeff"
_MOST_BRACES = 100  # opening braces at which an object is searched in an answer
_SHOWN = 40  # characters of a wrong value in a reason
STRICT = frozenset({"code fence", "thoughts"})  # leniencies that do not count as deviations


class Reading(NamedTuple):
    """The values in an answer, in the order of the form's keys, the names of leniencies, and the text.

    Values are in units of their last decimal: with one decimal, 0.7 is 7.
    """

    values: tuple[int, ...]
    leniencies: tuple[str, ...] = ()
    text: str | None = None


@dataclass(frozen=True)
class Form:
    """One JSON object with exactly these keys, in this order, each with a number; a text may come before them.

    Attributes:
        keys: keys of the numbers.
        numbers: the possible numbers of each key.
        told: indices of the keys whose probabilities engines return; default: the last.
        text: the text before the numbers; None: there is none.
    """

    keys: tuple[str, ...]
    numbers: tuple[Numbers, ...]
    told: tuple[int, ...] = (-1,)
    text: FreeText | None = None

    @classmethod
    def alike(cls, keys: Sequence[str], low: int, high: int, step: int = 1, decimals: int = 0) -> Form:
        """A form whose keys all have the same possible numbers."""
        return cls(tuple(keys), (Numbers(low, high, step, decimals),) * len(keys))

    @property
    def text_tokens(self) -> int:
        """Most tokens of the text."""
        return self.text.tokens if self.text else 0

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of an answer."""
        text = {self.text.key: {"type": "string", "maxLength": self.text.characters}} if self.text else {}
        properties = text | {key: number.schema for key, number in zip(self.keys, self.numbers, strict=True)}
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }

    def write(self, values: Sequence[int], text: str = "") -> str:
        """The answer with `values`, in the form that a model is asked for."""
        return self.opening + self.rest(values, text)

    @property
    def opening(self) -> str:
        """What comes before the text: the brace, the key and a quotation mark; empty if the form has no text."""
        return "{" + _quoted(self.text.key) + ': "' if self.text else ""

    def rest(self, values: Sequence[int], text: str = "") -> str:
        """The answer from the text on, or the whole answer if the form has no text."""
        parts = zip(self.keys, self.numbers, values, strict=True)
        said = ", ".join(f"{_quoted(key)}: {number.said(value)}" for key, number, value in parts) + "}"
        return f"{_quoted(text)[1:]}, {said}" if self.text else "{" + said

    def read(self, answer: str) -> Reading:
        """Read an answer.

        Accepted leniencies, by name: a "byte order mark", "thoughts" before the answer, a "code fence" around it,
        "words around" the object, an object "said twice", a "trailing comma", "key spelling" (case, spaces,
        underscores), "extra keys", a "number as text" ("7"), a "fraction of zero" (7.0), and a "bare number" if the
        form has one key. If several objects have keys of the form, all must have the same values. "7/10" and words are
        not numbers; 7.5 is a number only if the key has decimals. If the form has a text, the answer may have "no
        text", a "text after numbers" or a "long text", which is cut.

        Raises:
            UnparsableError: with the reason.
        """
        thoughts, text = split(answer)
        forgiven = {"thoughts": bool(thoughts.strip()), "byte order mark": _BOM in answer}
        text = text.replace(_BOM, "").strip()
        if not text:
            raise UnparsableError("thoughts without an answer" if forgiven["thoughts"] else "empty answer")
        if fenced := _FENCED.fullmatch(text):
            text, forgiven["code fence"] = fenced[1].strip(), True
        if len(self.keys) == 1 and (_FRACTION if self.numbers[0].decimals else _WHOLE).fullmatch(text):
            reading = self._values(dict.fromkeys(self._plain_keys, text.strip()), {"bare number"})
        else:
            reading = self._one_of(*_objects(text))
        names = [name for name, applies in forgiven.items() if applies]
        return reading._replace(leniencies=(*names, *(name for name in reading.leniencies if name not in names)))

    def _one_of(self, objects: list[_Object], rest: str, broken: list[str]) -> Reading:
        """The reading of the object that is the answer; the texts in `broken` begin like objects."""
        named = [one for one in objects if not self._plain_key_set.isdisjoint(one.plain_keys)]
        spoilt = any(key in _plain(piece) for piece in broken for key in self._plain_keys)
        if not named:
            if not objects and not broken:
                raise UnparsableError(f"not a JSON object: it begins with {_shown(rest)}")
            if spoilt or not objects:
                raise UnparsableError("not JSON")
            raise UnparsableError(f"wrong keys: {', '.join(_shown(key) for key, _ in objects[0].pairs[:6]) or 'none'}")
        if spoilt:
            raise UnparsableError("several objects: one of them is not JSON")
        readings = [self._reading(one) for one in named[:1]]
        if len(named) > 1:
            try:
                readings += [self._reading(one) for one in named[1:]]
            except UnparsableError:
                raise UnparsableError("several objects: they differ") from None
            if len({reading.values for reading in readings}) > 1:
                raise UnparsableError("several objects: they differ")
        names = dict.fromkeys(name for reading in readings for name in reading.leniencies)
        if rest:
            names["words around"] = None
        if len(named) > 1:
            names["said twice"] = None
        return readings[0]._replace(leniencies=tuple(names))

    def _reading(self, one: _Object) -> Reading:
        names = {"trailing comma"} if one.repaired else set()
        wanted = {plain: value for (_, value), plain in zip(one.pairs, one.plain_keys, strict=True)}
        ours = [plain for plain in one.plain_keys if plain in self._plain_key_set]
        if sorted(ours) != sorted(self._plain_keys):
            raise UnparsableError(f"wrong keys: {', '.join(_shown(key) for key, _ in one.pairs[:6]) or 'none'}")
        others = one.plain_keys
        if self.text and (plain_text := _plain(self.text.key)) in others:
            if others.index(plain_text) > min(others.index(plain) for plain in ours):
                names.add("text after numbers")
            others = [plain for plain in others if plain != plain_text]
        if len(others) > len(ours):
            names.add("extra keys")
        if not {key for key, _ in one.pairs}.issuperset(self.keys):
            names.add("key spelling")
        return self._values(wanted, names)

    def _values(self, found: dict[str, Any], names: set[str]) -> Reading:
        places = zip(self.keys, self._plain_keys, self.numbers, strict=True)
        values = tuple(_value(number, key, found[plain], names) for key, plain, number in places)
        text = self._text(found, names) if self.text else None
        return Reading(values, tuple(sorted(names)), text)

    def _text(self, found: dict[str, Any], names: set[str]) -> str | None:
        assert self.text is not None
        given = found.get(_plain(self.text.key))
        text = given.strip() if isinstance(given, str) else ""
        if not text:
            names.add("no text")
            return None
        if len(text) > self.text.characters:
            names.add("long text")
        return text[: self.text.characters]

    @cached_property
    def _plain_keys(self) -> tuple[str, ...]:
        return tuple(map(_plain, self.keys))

    @cached_property
    def _plain_key_set(self) -> frozenset[str]:
        return frozenset(self._plain_keys)


def _value(numbers: Numbers, key: str, value: Any, names: set[str]) -> int:
    number = _fraction(numbers, key, value, names) if numbers.decimals else _whole(key, value, names)
    if not numbers.low <= number <= numbers.high:
        raise UnparsableError(f"out of range: {key} is {_shown(number)}")
    if number not in numbers.values:
        raise UnparsableError(f"not on the scale: {key} is {numbers.said(number)}")
    return number


def _fraction(numbers: Numbers, key: str, value: Any, names: set[str]) -> int:
    """The value in units of the last decimal, by its digits and not by the nearest number of floating point."""
    given = None
    if isinstance(value, str) and (number := _FRACTION.fullmatch(value)):
        if "bare number" not in names:
            names.add("number as text")
        given = Decimal(number[1])
    elif type(value) is int or (type(value) is float and isfinite(value)):
        given = Decimal(repr(value))
    if given is None:
        raise UnparsableError(f"not a number: {key} is {_shown(value)}")
    if not numbers.low <= (scaled := given.scaleb(numbers.decimals)) <= numbers.high:
        raise UnparsableError(f"out of range: {key} is {_shown(value)}")
    if scaled % 1:
        raise UnparsableError(f"not on the scale: {key} is {_shown(value)}")
    return int(scaled)


def _whole(key: str, value: Any, names: set[str]) -> int:
    if isinstance(value, str) and (whole := _WHOLE.fullmatch(value)):
        if "bare number" not in names:
            names.add("number as text")
        if "." in value:
            names.add("fraction of zero")
        value = int(whole[1])
    elif isinstance(value, float) and value.is_integer():
        names.add("fraction of zero")
        value = int(value)
    if type(value) is not int:
        raise UnparsableError(f"not an integer: {key} is {_shown(value)}")
    return value


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as its pairs, so that a key given twice is seen."""


@dataclass(frozen=True)
class _Object:
    pairs: _Pairs
    repaired: bool

    @cached_property
    def plain_keys(self) -> list[str]:
        return [_plain(key) for key, _ in self.pairs]


def _objects(text: str) -> tuple[list[_Object], str, list[str]]:
    """The JSON objects in a text, the text around them, and texts that only begin like an object."""
    found: list[_Object] = []
    around: list[str] = []
    broken: list[str] = []
    for _ in range(_MOST_BRACES):
        before, brace, rest = text.partition("{")
        around.append(before)
        if not brace:
            break
        decoded = _decoded(brace + rest)
        if decoded is None:
            broken.append(re.split("[{}]", rest, maxsplit=1)[0])
            around.append(brace)
            text = rest
        else:
            one, text = decoded
            found.append(one)
    else:
        if "{" in text:
            raise UnparsableError("not JSON")
    return found, "".join(around).strip(), broken


def _decoded(text: str) -> tuple[_Object, str] | None:
    """The object at the beginning of a text, and the rest of the text."""
    for repaired in (False, True):
        tried = _TRAILING_COMMA.sub(r"\1", text) if repaired else text
        try:
            pairs, end = _DECODER.raw_decode(tried)
        except (ValueError, RecursionError):  # the decoder also refuses integers of thousands of digits
            continue
        return _Object(pairs, repaired), tried[end:]
    return None


_DECODER = json.JSONDecoder(object_pairs_hook=_Pairs)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _plain(key: str) -> str:
    """A key in lower case, without separators between its words."""
    return _BETWEEN_WORDS.sub("", key).casefold()


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "an object" if isinstance(value, _Pairs) else "an array"
    text = ascii(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
