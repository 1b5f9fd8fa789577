"""Bins of neighbour pairs by distance, and counts of the neighbours' ratings in each bin.

A bin is a range of distances and of distances relative to the density around both samples. The model can thus find the
edge of a cluster wherever it is, without a fixed number of neighbours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tamis.curation.neighborhoods import Floats, Ints, Neighborhoods

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_RELATIVE_BINS, _ABSOLUTE_BINS = 12, 6
_CLOSE = 5  # the mean distance to this many neighbours measures the density around a sample
_SMALLEST = 1e-6


class Bins:
    """Assigns pairs of neighbours to bins by distance and by distance relative to the density around both."""

    def __init__(self, view: Neighborhoods, rows: Ints, k: int) -> None:
        """Place the borders at quantiles over the pairs of `rows` and their first `k` neighbours."""
        self._view = view
        self._scale = np.full(len(view), _SMALLEST)
        for block in view.blocks(np.arange(len(view))):
            _, distances = view.lists(block, _CLOSE)
            known = np.isfinite(distances)
            total = np.where(known, distances, 0).sum(1, dtype=np.float64)
            self._scale[block] += total / np.maximum(known.sum(1), 1)
        relative, absolute = [], []
        for block in view.blocks(rows):
            samples, distances = view.lists(block, k)
            known = samples >= 0
            relative.append(self._relative(block, samples, distances)[known])
            absolute.append(distances[known])
        self._relative_borders = _quantiles(np.concatenate(relative), _RELATIVE_BINS)
        self._absolute_borders = _quantiles(np.concatenate(absolute), _ABSOLUTE_BINS)
        self.count = _RELATIVE_BINS * _ABSOLUTE_BINS

    def _relative(self, rows: Ints, samples: Ints, distances: Floats) -> NDArray[np.float64]:
        scale = self._scale
        relative: NDArray[np.float64] = distances / np.sqrt(scale[rows][:, None] * scale[np.maximum(samples, 0)])
        return relative

    def of(self, rows: Ints, samples: Ints, distances: NDArray[np.float32]) -> NDArray[np.intp]:
        """Bin of each pair, (m, k) in 0..count - 1; undefined if a sample is -1."""
        relative = np.searchsorted(self._relative_borders, self._relative(rows, samples, distances), side="right")
        absolute = np.searchsorted(self._absolute_borders, distances, side="right")
        bins: NDArray[np.intp] = relative * _ABSOLUTE_BINS + absolute
        return bins


def _quantiles(values: NDArray[Any], count: int) -> NDArray[np.float64]:
    if not len(values):
        return np.zeros(count - 1)
    borders: NDArray[np.float64] = np.quantile(values, np.linspace(0, 1, count + 1)[1:-1]).astype(np.float64)
    return borders


def symbols_of(ratings: NDArray[np.int8]) -> tuple[NDArray[np.int8], NDArray[np.int32]]:
    """The distinct rows of `ratings` (n, R), and for each sample the index (n,) of its row among them."""
    if ratings.shape[1] == 1:
        found, codes = np.unique(ratings[:, 0], return_inverse=True)
        return found[:, None], codes.astype(np.int32)
    found, codes = np.unique(ratings, axis=0, return_inverse=True)
    return found, codes.reshape(-1).astype(np.int32)


def patterns_of(
    view: Neighborhoods, symbols: NDArray[np.int32], rows: Ints, k: int, bins: Bins, count: int
) -> csr_matrix:
    """How often each (bin, symbol) occurs among the first `k` usable neighbours of `rows`.

    Args:
        view: the graph, seen with the samples that any rater rated.
        symbols: (n,) what each sample was rated, as a number 0..count - 1.
        rows: (m,) samples.
        k: neighbours of each.
        bins: bins of pairs.
        count: number of symbols.

    Returns:
        Sparse (m, bins * count); symbol c in bin b is at column b * count + c.
    """
    from scipy.sparse import csr_matrix

    samples, distances = view.lists(rows, k)
    known = samples >= 0
    codes = (bins.of(rows, samples, distances) * count + symbols[samples])[known]
    lengths = np.concatenate([[0], np.cumsum(known.sum(1))])
    return csr_matrix((np.ones(len(codes)), codes.astype(np.int32), lengths), shape=(len(rows), bins.count * count))
