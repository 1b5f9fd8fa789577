"""Long beginnings that many texts share, as agents' system prompts and few-shot examples are.

An encoder reads so many tokens of a text and no more. Where a beginning fills them, all texts that have it get one and
the same vector. Such a beginning is left out, and what distinguishes the texts is embedded.
"""

from __future__ import annotations

import hashlib
import math
import re
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

_SHARE, _FEWEST = 0.1, 4  # of a source's samples, and samples, that share a beginning which is left out
_ROUNDS = 64  # of looking for more behind what was found
_LONGEST = 16  # characters for each token that is read: of longer beginnings the first part is enough
_LONGEST_WORD = 40  # characters; what is longer is a script without spaces

Texts: TypeAlias = Callable[[], Iterable[tuple[str, str]]]


class Beginning(NamedTuple):
    """A beginning that is left out: its length, its hash, and how many samples have it."""

    characters: int
    tokens: int
    sha256: str
    samples: int

    def begins(self, text: str, place: int) -> bool:
        """Whether `text` goes on with it at `place`."""
        part = text[place : place + self.characters]
        return len(part) == self.characters and _hash(part) == self.sha256


class Beginnings:
    """Beginnings that are left out, one after another while there are any."""

    def __init__(self, found: Sequence[Beginning] = ()) -> None:
        self.found = sorted(found, reverse=True)

    @classmethod
    def of_facts(cls, facts: Sequence[dict[str, Any]]) -> Beginnings:
        """Those that a manifest names."""
        return cls([Beginning(**entry) for entry in facts])

    def as_facts(self) -> list[dict[str, Any]]:
        """What a manifest says of them."""
        return [beginning._asdict() for beginning in self.found]

    def length(self, text: str) -> int:
        """How many characters at the beginning of `text` are left out; 0 where nothing else would be left."""
        place, going_on = 0, bool(self.found)
        while going_on:
            step = next((beginning.characters for beginning in self.found if beginning.begins(text, place)), 0)
            place, going_on = place + step, step > 0
        return place if text[place:].strip() else 0

    def rest(self, text: str) -> str:
        """`text` without its beginning."""
        return text[self.length(text) :]


def find_beginnings(texts: Texts, tokens_of: Callable[[str], int], max_tokens: int) -> Beginnings:
    """The beginnings of `texts` that are to be left out.

    A beginning is, when it fills at least half of `max_tokens`, and at least a tenth of a source's samples share it,
    four at least. `texts` is gone through once, and twice more for each one behind another that is found.

    Args:
        texts: gives, each time it is called, the source and the text of every sample in the same order.
        tokens_of: the number of tokens in a text.
        max_tokens: how many the encoder reads.
    """
    shortest = size = max(max_tokens // 2, 1)  # in characters: a token has one at least
    found, seen = Beginnings(), set[int]()
    for _ in range(_ROUNDS):
        frequent = _frequent(texts(), found, size)
        if not frequent or size > _LONGEST * max_tokens:
            break
        shared = _shared(texts(), found, frequent - seen, size)
        seen |= frequent
        counted = [(tokens_of(common), common, samples) for common, samples in shared]
        new = [Beginning(len(text), n, _hash(text), samples) for n, text, samples in counted if 2 * n >= max_tokens]
        # Where texts that begin alike part too early, those that go on together are told by longer beginnings.
        found, size = Beginnings([*found.found, *new]), shortest if new else 2 * size
    return found


def _frequent(texts: Iterable[tuple[str, str]], known: Beginnings, size: int) -> set[int]:
    """Keys of the beginnings of `size` characters, behind those known, that enough samples of a source share."""
    codes: dict[str, int] = {}
    sources, keys = array("l"), array("Q")
    for source, text in texts:
        sources.append(codes.setdefault(source, len(codes)))
        keys.append(_key(text, known.length(text), size))
    source_of, key_of = np.asarray(sources), np.asarray(keys)
    frequent: set[int] = set()
    for code in range(len(codes)):
        given = key_of[source_of == code]
        values, counts = np.unique(given, return_counts=True)
        enough = counts >= max(_FEWEST, math.ceil(_SHARE * len(given)))
        frequent |= {int(value) for value in values[enough]}
    return frequent - {0}


def _shared(texts: Iterable[tuple[str, str]], known: Beginnings, keys: set[int], size: int) -> list[tuple[str, int]]:
    """For each key, the longest beginning that all texts with it share, and how many there are."""
    shared: dict[int, tuple[str, int, int, int]] = {}
    for _, text in texts if keys else ():
        place = known.length(text)
        key = _key(text, place, size)
        if key in keys:
            rest = text[place:]
            common, samples, least, most = shared.get(key, (rest, 0, len(rest), 0))
            common = common if rest.startswith(common) else _common(common, rest)
            shared[key] = common, samples + 1, min(least, len(rest)), max(most, len(rest.rstrip()))
    # Where a text ends with what is shared, so does its last word. Of equal texts nothing would be left.
    return [
        (common if len(common) == least else _whole_words(common), samples)
        for common, samples, least, most in shared.values()
        if len(common) < most
    ]


def _common(one: str, other: str) -> str:
    """The longest common beginning of two texts, by halving: they are long, and mostly equal."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return one[:low]


def _whole_words(text: str) -> str:
    """`text` up to the end of its last white space, for the word behind it may go on differently."""
    word = re.search(r"\S*\Z", text[-_LONGEST_WORD:])
    begun = len(word[0]) if word else 0
    return text[: len(text) - begun] if begun < min(_LONGEST_WORD, len(text)) else text


def _key(text: str, place: int, size: int) -> int:
    """A number for the `size` characters of a text from `place` on; 0 where there are fewer."""
    part = text[place : place + size]
    if len(part) < size:
        return 0
    return int.from_bytes(hashlib.blake2b(part.encode(), digest_size=8).digest(), "little")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
