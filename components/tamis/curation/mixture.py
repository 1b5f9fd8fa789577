"""The model behind `exact` mode: a sample's rating and its neighbours' ratings given its true score.

For a sample with true score i, rating y and neighbours rated y_1 .. y_k in bins b_1 .. b_k:

    P(i, y, y_1 .. y_k)  ~  p_i T[i, y] prod_j ( s[b_j] N[i, y_j] + (1 - s[b_j]) q[y_j] ) ^ w

* T: the transition matrix, seen through the samples' own ratings. No rating may be likelier than the true score itself:
  that is what gives the latent classes their names, and without it they drift into kinds of text on real ratings.
* s[b]: share of the neighbours in bin b that share the sample's true score; the others' ratings follow the observed
  margin q. A bin is a range of distance and of distance relative to how dense both samples' surroundings are, so that
  the edge of a cluster is found wherever it lies. This is definition 3.2 (clusterability) made a measured quantity.
* N: how sharing neighbours are rated. It equals T where clusterability holds; estimated apart, it is the asymmetric
  model, which needs only that ratings are independent given the true score.
* w: how much a neighbour's rating counts. Ratings of neighbours that depend on each other beyond the true score
  would make the posterior too sure; w is the value under which the neighbours best predict the sample's own rating,
  which they have not seen. It is 1 where the model holds.

T, N, s and p are fitted by EM, w by that prediction's likelihood in between. Each step costs one sparse product.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tamis.curation.naming import name_classes
from tamis.curation.neighborhoods import Ints, Neighborhoods
from tamis.curation.transition import Matrix

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_RELATIVE_BINS, _ABSOLUTE_BINS = 12, 6
_CLOSE = 5  # neighbours whose mean distance says how dense a sample's surroundings are
PSEUDO = 1e-3  # added to each expected count
_WEIGHTS = np.linspace(0.1, 1.0, 19)
_WEIGHT_EVERY = 10  # EM steps between two choices of w
_SMALLEST = 1e-6


class Bins:
    """Puts pairs of neighbours into bins by distance and by distance relative to the density around both."""

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

    def _relative(self, rows: Ints, samples: Ints, distances: NDArray[np.float32]) -> Matrix:
        scale = self._scale
        relative: Matrix = distances / np.sqrt(scale[rows][:, None] * scale[np.maximum(samples, 0)])
        return relative

    def of(self, rows: Ints, samples: Ints, distances: NDArray[np.float32]) -> NDArray[np.intp]:
        """Bin of each pair, (m, k) in 0..count - 1; meaningless where a sample is -1."""
        relative = np.searchsorted(self._relative_borders, self._relative(rows, samples, distances), side="right")
        absolute = np.searchsorted(self._absolute_borders, distances, side="right")
        bins: NDArray[np.intp] = relative * _ABSOLUTE_BINS + absolute
        return bins


def _quantiles(values: NDArray[Any], count: int) -> Matrix:
    if not len(values):
        return np.zeros(count - 1)
    borders: Matrix = np.quantile(values, np.linspace(0, 1, count + 1)[1:-1]).astype(np.float64)
    return borders


@dataclass(frozen=True)
class Mixture:
    """A fitted model; the module's text says what its parts are.

    Attributes:
        T: (K, K) own ratings given the true score.
        N: (K, K) sharing neighbours' ratings given the sample's true score.
        p: (K,) prior.
        q: (K,) margin of the ratings.
        sharing: (bins,) share of neighbours with the same true score.
        weight: w, above 0 and at most 1.
        k: neighbours per sample that it uses.
        bins: puts pairs into bins.
        log_likelihood: mean log probability of a sample's rating and, with weight w, its neighbours'.
        predictive: mean log probability of a sample's rating given its neighbours'.
        iterations: EM steps.
        renamed: whether the classes had to be renamed after the fit.
    """

    T: Matrix
    N: Matrix
    p: Matrix
    q: Matrix
    sharing: Matrix
    weight: float
    k: int
    bins: Bins
    log_likelihood: float = -np.inf
    predictive: float = -np.inf
    iterations: int = 0
    renamed: bool = False

    @property
    def classes(self) -> int:
        """Number K of score classes."""
        return len(self.p)

    @cached_property
    def emission(self) -> Matrix:
        """(bins * K, K): probability of a neighbour's rating c in bin b, at row b * K + c, given each true score."""
        shared = self.sharing[:, None, None] * self.N.T[None]
        other = (1 - self.sharing)[:, None, None] * self.q[None, :, None]
        return np.maximum(shared + other, 1e-300).reshape(-1, self.classes)

    def neighbor_evidence(self, patterns: csr_matrix) -> Matrix:
        """(K, m) log probability of the neighbours' ratings given each true score, before their weight."""
        return _evidence(patterns, self.emission)

    def own_evidence(self, scores: NDArray[np.int8]) -> Matrix:
        """(K, m) log probability of the samples' own ratings given each true score; 0 where there is none."""
        logs = np.zeros((self.classes, self.classes + 1))  # its last column is for -1
        logs[:, :-1] = np.log(np.maximum(self.T, 1e-300))
        return logs[:, scores]

    def evidence(self, view: Neighborhoods, rows: Ints) -> Iterator[tuple[Ints, Matrix, NDArray[np.bool_]]]:
        """Block by block: rows, their (K, m) log evidence without the prior, and whether any neighbour was rated."""
        for block in view.blocks(rows):
            patterns = patterns_of(view, block, self.k, self.bins, self.classes)
            informed = np.diff(patterns.indptr) > 0
            theirs = self.weight * self.neighbor_evidence(patterns)
            yield block, theirs + self.own_evidence(view.scores[block]), informed

    def renamed_by(self, order: NDArray[np.intp]) -> Mixture:
        """The same model with latent class order[i] called i."""
        changed = bool((order != np.arange(len(order))).any())
        return replace(self, T=self.T[order], N=self.N[order], p=self.p[order], renamed=changed)


def patterns_of(view: Neighborhoods, rows: Ints, k: int, bins: Bins, classes: int) -> csr_matrix:
    """Sparse (m, bins * K): how often each (bin, rating) occurs among the first `k` rated neighbours of `rows`."""
    from scipy.sparse import csr_matrix

    samples, distances = view.lists(rows, k)
    known = samples >= 0
    codes = bins.of(rows, samples, distances) * classes + view.scores_of(samples)
    lengths = np.concatenate([[0], np.cumsum(known.sum(1))])
    return csr_matrix((np.ones(int(lengths[-1])), codes[known], lengths), shape=(len(rows), bins.count * classes))


def start_from(view: Neighborhoods, bins: Bins, T: Matrix, p: Matrix, k: int) -> Mixture:
    """An unfitted model with `k` neighbours, transition matrix `T` and prior `p`."""
    q = np.bincount(view.scores[view.rows], minlength=len(p)) / len(view.rows)
    return Mixture(T, T, p, q, np.full(bins.count, 0.7), 1.0, k, bins)


def fit(
    view: Neighborhoods,
    rows: Ints,
    start: Mixture,
    *,
    pseudo: Matrix | float = PSEUDO,
    iterations: int = 300,
    tolerance: float = 1e-6,
) -> Mixture:
    """Fit the model to `rows` by EM.

    Args:
        view: graph and ratings.
        rows: rated samples to fit on.
        start: model to start from.
        pseudo: counts added to each expected count of a rating given a true score: one for all, or (K, K).
        iterations: most EM steps.
        tolerance: relative change of the log-likelihood per step at which it stops.
    """
    model, own = start, view.scores[rows]
    given = np.eye(start.classes)[own]
    patterns = patterns_of(view, rows, start.k, start.bins, start.classes)
    transposed = patterns.T.tocsr()
    before = -np.inf
    for step in range(1, iterations + 1):
        emission = model.emission
        raw, prior = _evidence(patterns, emission), np.log(model.p)[:, None]
        mine = np.maximum(model.T, 1e-300)[:, own]
        choose = step % _WEIGHT_EVERY == 0
        weight = _best_weight(raw, prior, mine, model.weight) if choose else model.weight
        top, theirs = _scaled(weight * raw + prior)
        joint = theirs * mine
        evidence = joint.sum(0)
        logs = np.log(evidence)
        likelihood, predictive = float((logs + top).mean()), float((logs - np.log(theirs.sum(0))).mean())
        settled = choose and weight == model.weight
        model = replace(model, weight=weight, log_likelihood=likelihood, predictive=predictive, iterations=step)
        if settled and abs(likelihood - before) < tolerance * _WEIGHT_EVERY * abs(likelihood):
            break
        if choose or step == 1:
            before = likelihood
        posterior = joint / evidence
        seen = transposed @ np.ascontiguousarray(posterior.T)
        model = _maximized(model, emission, seen, posterior @ given, posterior.mean(1), pseudo)
    return model.renamed_by(name_classes(model.T, model.p))


def _maximized(
    model: Mixture, emission: Matrix, seen: Matrix, given: Matrix, prior: Matrix, pseudo: Matrix | float
) -> Mixture:
    """The M-step.

    Args:
        model: the model before it.
        emission: (bins * K, K) its emission.
        seen: (bins * K, K) expected neighbours of each bin and rating (rows) of samples of each true score.
        given: (K, K) expected samples of each true score (rows) with each own rating.
        prior: (K,) expected share of each true score.
        pseudo: counts added to each expected count.
    """
    seen = seen.reshape(-1, model.classes, model.classes)
    # Of what was seen, the part that sharing neighbours account for.
    shared = seen * (model.sharing[:, None, None] * model.N.T[None]) / emission.reshape(seen.shape)
    sharing = (shared.sum((1, 2)) + 0.5) / (seen.sum((1, 2)) + 1.0)
    N, T, p = _rows_to_one(shared.sum(0).T + pseudo), transition_of(given + pseudo), prior + _SMALLEST
    return replace(model, sharing=sharing, N=N, T=T, p=p / p.sum())


def _best_weight(raw: Matrix, prior: Matrix, mine: Matrix, now: float) -> float:
    """The weight near `now` on the grid under which neighbours predict own ratings best."""
    place = int(np.abs(_WEIGHTS - now).argmin())
    near: list[float] = _WEIGHTS[max(place - 2, 0) : place + 3].tolist()

    def predictive(weight: float) -> float:
        _, theirs = _scaled(weight * raw + prior)
        return float(np.log((theirs * mine).sum(0) / theirs.sum(0)).mean())

    return max(near, key=lambda weight: (predictive(weight), weight))


def _evidence(patterns: csr_matrix, emission: Matrix) -> Matrix:
    evidence: Matrix = np.ascontiguousarray((patterns @ np.log(emission)).T)
    return evidence


def _scaled(logs: Matrix) -> tuple[Matrix, Matrix]:
    """(m,) largest of each column of (K, m) `logs`, and the exponentials (K, m) of what they are below it."""
    top = logs.max(0)
    return top, np.exp(logs - top)


def log_sum(values: Matrix) -> Matrix:
    """(m,) logarithm of the sum of the exponentials of each column of (K, m) `values`."""
    top, scaled = _scaled(values)
    total: Matrix = top + np.log(scaled.sum(0))
    return total


def transition_of(counts: Matrix) -> Matrix:
    """The most likely T for expected `counts` (K, K) among those in which no rating is likelier than the true score.

    Where other ratings of a row outnumber its diagonal, the maximum under that limit gives them and the diagonal their
    common mean.
    """
    pooled = counts.copy()
    for i in np.flatnonzero(counts.max(1) > np.diag(counts)):
        total, members = counts[i, i], [i]
        for c in np.argsort(-counts[i], kind="stable"):
            if c != i and counts[i, c] > total / len(members):
                total += counts[i, c]
                members.append(c)
        pooled[i, members] = total / len(members)
    return _rows_to_one(pooled)


def _rows_to_one(counts: Matrix) -> Matrix:
    rows: Matrix = counts / counts.sum(1, keepdims=True)
    return rows
