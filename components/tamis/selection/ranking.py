"""The order of candidates: highest keys first; seeded numbers break ties."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def ranked(keys: Sequence[NDArray[Any]], ties: NDArray[np.uint64]) -> NDArray[np.int64]:
    """All n rows in order: highest values of the first of `keys` first, then of the next; then lowest `ties` first."""
    return np.lexsort((ties, *(-key for key in reversed(keys))))


def highest(keys: Sequence[NDArray[Any]], ties: NDArray[np.uint64], size: int) -> NDArray[np.int64]:
    """The first `size` rows in the order of `ranked`, returned unordered; faster than sorting all rows.

    Args:
        keys: arrays (n,) of signed numbers without NaN, the most significant first.
        ties: (n,) distinct numbers that decide among rows equal in all keys.
        size: 0..n.
    """
    if size >= len(ties):
        return np.arange(len(ties))
    if size == 0:
        return np.empty(0, np.int64)
    if not keys:
        return np.argpartition(ties, size - 1)[:size]
    first, *rest = keys
    cut = np.partition(first, len(first) - size)[len(first) - size]
    above, level = np.flatnonzero(first > cut), np.flatnonzero(first == cut)
    taken = highest([key[level] for key in rest], ties[level], size - len(above))
    return np.concatenate([above, level[taken]])
