"""A set of sample ids that needs little memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tamis.core.ids import Keys


class KeySet:
    """The ids seen so far, with 16 bytes each: 16 MB for a million samples, and 48 MB while runs are merged.

    The ids are in sorted runs, each more than twice as long as the next, so that there are few runs to search and each
    id is merged only about log2(n) times.
    """

    def __init__(self) -> None:
        self._runs: list[Keys] = []

    def new(self, keys: Keys) -> NDArray[np.bool_]:
        """Which of `keys` are not in the set. Of equal keys only the first is new."""
        ordered, first = np.unique(keys, return_index=True)  # searching for sorted ids is faster
        unseen = np.ones(len(ordered), dtype=bool)
        for run in self._runs:
            places = np.minimum(np.searchsorted(run, ordered), len(run) - 1)
            unseen &= run[places] != ordered
        mask = np.zeros(len(keys), dtype=bool)
        mask[first[unseen]] = True
        return mask

    def add(self, keys: Keys) -> None:
        """Add `keys`, which must be new."""
        if len(keys) == 0:
            return
        self._runs.append(np.sort(keys))
        while len(self._runs) > 1 and len(self._runs[-2]) <= 2 * len(self._runs[-1]):
            small, large = self._runs.pop(), self._runs.pop()
            # A stable sort detects the two sorted halves and merges them.
            self._runs.append(np.sort(np.concatenate([large, small]), kind="stable"))

    def __len__(self) -> int:
        return sum(len(run) for run in self._runs)
