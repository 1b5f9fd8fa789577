"""Texts as sets of character n-grams.

Characters, not words: many scripts write no spaces between words, and a word tokenizer would decide per language. Texts
are compared after NFKC normalisation and case folding, with each run of white space as one space.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def normalized(text: str) -> str:
    """The text as it is compared."""
    folded = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return " ".join(folded.casefold().split())


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Shared n-grams of two texts divided by all their n-grams, 0 to 1; neither set may be empty."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


def ngrams(text: str, n: int) -> frozenset[str]:
    """The n-grams of a normalized text; a text shorter than `n` is one n-gram."""
    return frozenset(text[start : start + n] for start in range(max(1, len(text) - n + 1)))


def hashes(texts: Sequence[str], n: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Hashes of the n-grams of all `texts`, one after the other.

    Returns:
        (m,) hashes, and (len(texts) + 1,) offsets: the n-grams of text i are at offsets[i] to offsets[i + 1].
    """
    padded = [text if len(text) >= n else text + "\0" * (n - len(text)) for text in texts]
    characters = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    lengths = np.array([len(text) for text in padded], np.int64)
    counts = lengths - n + 1
    rolling = np.zeros(max(0, len(characters) - n + 1), np.uint64)
    for place in range(n):  # a polynomial in an odd number, modulo 2^64; mixed below
        rolling = rolling * _MULTIPLIER + characters[place : place + len(rolling)]
    ends = np.cumsum(lengths)
    inside = np.ones(len(rolling), bool)  # windows that do not reach into the next text
    for back in range(1, n):
        inside[ends[:-1] - back] = False
    mixed = rolling[inside]
    mixed ^= mixed >> np.uint64(32)
    mixed *= np.uint64(0xD6E8FEB86659FD93)
    mixed ^= mixed >> np.uint64(32)
    offsets = np.zeros(len(texts) + 1, np.uint64)
    offsets[1:] = np.cumsum(counts)
    return mixed, offsets
