"""repetition: how much of a text repeats earlier parts of it, and how much of it is a loop."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tamis.signals.columns.base import Column, Signal
from tamis.signals.conversations import Conversations

_N = 4  # words in a sequence
_COPIES = 3  # the same words so often in a row are a loop
_LOOP = 12  # words; a shorter loop may be a rhyme or a list
# Scripts without spaces count by letters, others by words.
_WORD = re.compile("[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]|\\w+|[^\\w\\s]")
_FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93], np.uint64)


def repetition(text: str) -> tuple[float, float]:
    """The share of 4-word sequences that the text had before, and the share of words in its longest loop.

    A loop is the same words at least three times in a row, at least 12 words together. Both are 0 for short texts.
    """
    numbers: dict[str, int] = {}
    words = [numbers.setdefault(word, len(numbers)) for word in _WORD.findall(text)]
    if len(words) < _LOOP or len(numbers) > len(words) - _N:  # hardly a word comes twice
        return 0.0, 0.0
    codes = np.array(words, np.uint64)
    starts = len(words) - _N + 1
    hashes = np.zeros(starts, np.uint64)
    for place, factor in enumerate(_FACTORS):
        hashes += (codes[place : place + starts] + np.uint64(1)) * factor
    order = np.argsort(hashes, kind="stable")
    same = hashes[order[1:]] == hashes[order[:-1]]
    repeated = float(same.mean() * (starts - 1) / starts)
    if not same.any():
        return 0.0, 0.0
    distance = np.zeros(starts, np.int64)  # to the same sequence before; 0 if there is none
    distance[order[1:]] = np.where(same, order[1:] - order[:-1], 0)
    return repeated, _longest_loop(distance) / len(words)


def _longest_loop(distance: NDArray[np.int64]) -> int:
    """Words of the longest loop. In a loop of p words, each sequence is p words behind the one before it."""
    edges = np.flatnonzero(np.diff(distance)) + 1
    starts, ends = np.concatenate(([0], edges)), np.concatenate((edges, [len(distance)]))
    period, length = distance[starts], ends - starts
    words = length + period + _N - 1
    looping = (period > 0) & (words >= _COPIES * period) & (words >= _LOOP)
    return int(words[looping].max(initial=0))


def _measure(samples: Conversations, settings: object) -> Mapping[str, Any]:
    of_answers = [*map(repetition, samples.answers)]
    of_thoughts = [repetition(text)[1] if text else None for text in samples.thoughts]
    return {
        "repeated_share": [repeated for repeated, _ in of_answers],
        "loop_share": [loop for _, loop in of_answers],
        "thoughts_loop_share": of_thoughts,
    }


SIGNAL = Signal(
    "repetition",
    {
        "repeated_share": Column(
            pa.float32(), "share", "4-word sequences of the answers that occurred before", "lower", tail=True
        ),
        "loop_share": Column(
            pa.float32(), "share", "words of the answers in their longest loop, 3 copies or more", "lower", tail=True
        ),
        "thoughts_loop_share": Column(
            pa.float32(), "share", "words of the thoughts in their longest loop; null without thoughts", "lower", True
        ),
    },
    _measure,
)
