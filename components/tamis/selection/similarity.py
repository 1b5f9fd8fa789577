"""Filters that compare candidates with the samples picked so far, in blocks of vectors instead of pairs.

Candidates come best first. Matrix products compare a block of them with all picked samples, then with each other. Only
candidates that are too close to another one in their block are checked one by one. The result equals that of a plain
loop over pairs: a cosine so close to the limit that rounding could decide is computed again in float64. Memory does not
grow with the pool, because vectors are read from the file when they are needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.core.errors import InputError

_UNSURE = 1e-5  # cosines this close to a limit are computed again; float32 errs by less
_LARGEST = 4096  # most candidates in a block, however much memory there is


@dataclass(frozen=True)
class Embeddings:
    """Vectors on disk.

    Attributes:
        matrix: (m, d) real numbers, memory-mapped; rows need not have length 1, but must not be zero.
        memory: bytes that a filter may use.
    """

    matrix: NDArray[Any]
    memory: int

    @property
    def block(self) -> int:
        """Number of vectors in a block: two blocks as float32 and the products of their pairs fit into memory."""
        d, size = self.matrix.shape[1], _LARGEST
        while size > 16 and size * (24 * d + 16 * size) > self.memory:
            size //= 2
        return size

    def unit(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors in `rows`, each of length 1: (len(rows), d) float32.

        Raises:
            InputError: when one is zero or not finite.
        """
        vectors = self.matrix[rows].astype(np.float32)
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
        bad = ~np.isfinite(lengths) | (lengths == 0)
        if bad.any():
            raise InputError(
                f"the vector in row {rows[bad][0]} of the embeddings is zero or not finite",
                action="embed the pool again, with precision: float32",
            )
        vectors /= lengths[:, None].astype(np.float32)
        return vectors


def dissimilar(embeddings: Embeddings, rows: NDArray[np.int64], size: int, limit: float) -> NDArray[np.int64]:
    """The first `size` candidates of which none is closer than `limit` to one that was picked before it.

    Args:
        embeddings: the vectors.
        rows: (n,) rows of the candidates' vectors, the best candidate first.
        size: how many to pick.
        limit: largest cosine that two picked samples may have (DEITA, section 3.3: 0.9).

    Returns:
        Places in `rows`, ascending; fewer than `size` if no other candidate passes.
    """
    picked = np.empty(size, np.int64)
    count, block = 0, embeddings.block
    for start in range(0, len(rows), block):
        if count == size:
            break
        places = np.arange(start, min(start + block, len(rows)))
        unit = embeddings.unit(rows[places])
        for first in range(0, count, block):
            others = embeddings.unit(rows[picked[first : min(first + block, count)]])
            free = ~_closer(unit, others, limit).any(axis=1)
            places, unit = places[free], unit[free]
        close = _closer(unit, unit, limit)
        np.fill_diagonal(close, False)
        open_ = np.ones(len(places), bool)
        for one in np.flatnonzero(close.any(axis=1)):
            if open_[one]:
                open_[one + 1 :] &= ~close[one, one + 1 :]
        found = places[open_][: size - count]
        picked[count : count + len(found)] = found
        count += len(found)
    return picked[:count]


def _closer(one: NDArray[np.float32], other: NDArray[np.float32], limit: float) -> NDArray[np.bool_]:
    """Which pairs of unit vectors have a cosine above `limit`: (len(one), len(other)) bool."""
    cosines = one @ other.T
    close: NDArray[np.bool_] = cosines > limit
    cosines -= limit
    first, second = np.nonzero(np.abs(cosines, out=cosines) < _UNSURE)
    step = max(1, one.size // max(1, one.shape[1]))
    for start in range(0, len(first), step):
        a, b = first[start : start + step], second[start : start + step]
        close[a, b] = _cosines(one[a], other[b]) > limit
    return close


def _cosines(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosines of pairs of rows in float64, at most 1."""
    products, first, second = (
        np.einsum("ij,ij->i", a, b, dtype=np.float64) for a, b in ((one, other), (one, one), (other, other))
    )
    cosines: NDArray[np.float64] = np.minimum(products / np.sqrt(first * second), 1)
    return cosines


def within_reach(
    embeddings: Embeddings, rows: NDArray[np.int64], size: int, *, k: int, limit: float
) -> NDArray[np.int64]:
    """The first `size` candidates whose mean distance to the k farthest picked ones is below `limit`.

    This is the "DEITA" filter that DS2's experiments ran. It uses the largest cosine distances where DEITA uses the
    smallest, so it keeps samples that are close to the picked ones. The first candidate is always picked.

    Returns:
        Places in `rows`, ascending; fewer than `size` if no other candidate passes.
    """
    picked = np.empty(size, np.int64)
    count, block = 0, embeddings.block
    for start in range(0, len(rows), block):
        if count == size:
            break
        unit = embeddings.unit(rows[start : start + block])
        least = np.full((len(unit), k), np.inf, np.float32)  # the k smallest cosines to picked ones
        for first in range(0, count, block):
            others = embeddings.unit(rows[picked[first : min(first + block, count)]])
            least = np.partition(np.concatenate([least, unit @ others.T], axis=1), k - 1, axis=1)[:, :k]
        cosines = unit @ unit.T
        for one in range(len(unit)):
            known = least[one][np.isfinite(least[one])]
            if count < size and (not len(known) or 1 - known.mean(dtype=np.float64) < limit):
                picked[count] = start + one
                count += 1
                _keep_least(least[one + 1 :], cosines[one, one + 1 :])
    return picked[:count]


def _keep_least(least: NDArray[np.float32], new: NDArray[np.float32]) -> None:
    """In each row, replace the largest value of `least` by `new` if that is smaller."""
    places = np.arange(len(least))
    largest = least.argmax(axis=1)
    smaller = new < least[places, largest]
    least[places[smaller], largest[smaller]] = new[smaller]
