"""Long beginnings that many texts share, such as agents' system prompts and few-shot examples.

An encoder reads a limited number of tokens. If a shared beginning fills them, all texts with it get the same vector.
Such a beginning is left out, so that the parts that distinguish the texts are embedded.
"""

from __future__ import annotations

import hashlib
import math
import re
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

_SHARE, _FEWEST = 0.1, 4  # least share of a source's samples, and number of samples, that share a beginning
_ROUNDS = 64  # rounds of looking for another beginning after those found
_LONGEST = 16  # characters per token of the limit; of longer beginnings, the first part is enough
_LONGEST_WORD = 40  # characters; longer words are in a script without spaces

Texts: TypeAlias = Callable[[], Iterable[tuple[str, str]]]


class Beginning(NamedTuple):
    """A beginning that is left out: its length, its hash, and the number of samples with it."""

    characters: int
    tokens: int
    sha256: str
    samples: int

    def begins(self, text: str, place: int) -> bool:
        """Whether `text` has it at `place`."""
        part = text[place : place + self.characters]
        return len(part) == self.characters and _hash(part) == self.sha256


class Beginnings:
    """Beginnings that are left out. A text may have several, one after another."""

    def __init__(self, found: Sequence[Beginning] = ()) -> None:
        self.found = sorted(found, reverse=True)

    @classmethod
    def of_facts(cls, facts: Sequence[dict[str, Any]]) -> Beginnings:
        """The beginnings in a manifest's facts."""
        return cls([Beginning(**entry) for entry in facts])

    def as_facts(self) -> list[dict[str, Any]]:
        """Facts about them for a manifest."""
        return [beginning._asdict() for beginning in self.found]

    def length(self, text: str) -> int:
        """Number of characters at the beginning of `text` that are left out; 0 if nothing else would remain."""
        place, going_on = 0, bool(self.found)
        while going_on:
            step = next((beginning.characters for beginning in self.found if beginning.begins(text, place)), 0)
            place, going_on = place + step, step > 0
        return place if text[place:].strip() else 0

    def rest(self, text: str) -> str:
        """`text` without its beginning."""
        return text[self.length(text) :]


def find_beginnings(texts: Texts, tokens_of: Callable[[str], int], max_tokens: int) -> Beginnings:
    """Find the beginnings of `texts` to leave out.

    A beginning is left out if it has at least half of `max_tokens`, and at least a tenth of a source's samples, and at
    least four, share it. `texts` is read once, and twice more for each round that finds beginnings.

    Args:
        texts: returns, on each call, the source and the text of every sample, in the same order.
        tokens_of: returns the number of tokens in a text.
        max_tokens: the number of tokens that the encoder reads.
    """
    shortest = size = max(max_tokens // 2, 1)  # in characters; a token has at least one
    found, seen = Beginnings(), set[int]()
    for _ in range(_ROUNDS):
        frequent = _frequent(texts(), found, size)
        if not frequent or size > _LONGEST * max_tokens:
            break
        shared = _shared(texts(), found, frequent - seen, size)
        seen |= frequent
        counted = [(tokens_of(common), common, samples) for common, samples in shared]
        new = [Beginning(len(text), n, _hash(text), samples) for n, text, samples in counted if 2 * n >= max_tokens]
        # If the texts with an equal start differ too early, longer beginnings separate the groups among them.
        found, size = Beginnings([*found.found, *new]), shortest if new else 2 * size
    return found


def _frequent(texts: Iterable[tuple[str, str]], known: Beginnings, size: int) -> set[int]:
    """Keys of the first `size` characters after `known` beginnings that enough samples of a source share."""
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
    """For each key, the longest beginning that all texts with it share, and the number of these texts."""
    shared: dict[int, tuple[str, int, int, int]] = {}
    for _, text in texts if keys else ():
        place = known.length(text)
        key = _key(text, place, size)
        if key in keys:
            rest = text[place:]
            common, samples, least, most = shared.get(key, (rest, 0, len(rest), 0))
            common = common if rest.startswith(common) else _common(common, rest)
            shared[key] = common, samples + 1, min(least, len(rest)), max(most, len(rest.rstrip()))
    # If some text ends with the shared part, its last word is complete. Equal texts are skipped: nothing would remain.
    return [
        (common if len(common) == least else _whole_words(common), samples)
        for common, samples, least, most in shared.values()
        if len(common) < most
    ]


def _common(one: str, other: str) -> str:
    """The longest common prefix of two texts, by bisection, because they are long and mostly equal."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return one[:low]


def _whole_words(text: str) -> str:
    """`text` up to its last white space, because the word after it may continue differently."""
    word = re.search(r"\S*\Z", text[-_LONGEST_WORD:])
    begun = len(word[0]) if word else 0
    return text[: len(text) - begun] if begun < min(_LONGEST_WORD, len(text)) else text


def _key(text: str, place: int, size: int) -> int:
    """A hash of the `size` characters of a text from `place` on; 0 if there are fewer."""
    part = text[place : place + size]
    if len(part) < size:
        return 0
    return int.from_bytes(hashlib.blake2b(part.encode(), digest_size=8).digest(), "little")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
