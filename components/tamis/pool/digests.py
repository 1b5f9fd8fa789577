"""Sets of sample ids in little memory, and draws by id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Digests: TypeAlias = "NDArray[np.bytes_]"  # (n,) of dtype S16: ids as 16 raw bytes


def digests_of(ids: Sequence[str]) -> Digests:
    """Ids of 32 hex digits as an array of 16-byte strings."""
    return np.frombuffer(bytes.fromhex("".join(ids)), dtype="S16")


class DigestSet:
    """The ids seen so far, 16 bytes each: 16 MB for a million samples (about 48 MB for a moment, while runs merge).

    The ids lie in sorted runs, each more than twice as long as the next, so that few are searched and each id is
    merged only about log2(n) times.
    """

    def __init__(self) -> None:
        self._runs: list[Digests] = []

    def new(self, digests: Digests) -> NDArray[np.bool_]:
        """Which of `digests` are not in the set; of equal ones within `digests` only the first is new."""
        ordered, first = np.unique(digests, return_index=True)  # a search by sorted ids is quicker
        unseen = np.ones(len(ordered), dtype=bool)
        for run in self._runs:
            places = np.minimum(np.searchsorted(run, ordered), len(run) - 1)
            unseen &= run[places] != ordered
        mask = np.zeros(len(digests), dtype=bool)
        mask[first[unseen]] = True
        return mask

    def add(self, digests: Digests) -> None:
        """Put in `digests`, which must be new."""
        if len(digests) == 0:
            return
        self._runs.append(np.sort(digests))
        while len(self._runs) > 1 and len(self._runs[-2]) <= 2 * len(self._runs[-1]):
            small, large = self._runs.pop(), self._runs.pop()
            # A stable sort finds the two sorted halves and merges them.
            self._runs.append(np.sort(np.concatenate([large, small]), kind="stable"))

    def __len__(self) -> int:
        return sum(len(run) for run in self._runs)


def keys_of(digests: Digests, seed: int) -> NDArray[np.uint64]:
    """A number for each id that looks random and depends on nothing but the id and `seed`.

    The ids with the smallest numbers are a uniform draw, whatever the order of the rows or the number of files.
    """
    halves = np.frombuffer(digests.tobytes(), dtype="<u8").reshape(-1, 2)
    salt = _mixed(np.array([seed % 2**64], dtype=np.uint64))
    return _mixed(halves[:, 0] ^ _mixed(halves[:, 1] ^ salt))


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalising step of SplitMix64: every bit of the input changes about half the bits of the output."""
    numbers = numbers + np.uint64(0x9E3779B97F4A7C15)
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
