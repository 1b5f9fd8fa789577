"""Transition matrix by maximum likelihood: EM on patterns of ratings that share one true score.

T[i, j] = P(rated j | true i) and the prior p[i] = P(true i) (paper definition 3.1). Under clusterability (definition
3.2) a sample and its nearest neighbours share their true score, and their ratings are independent given it, so a
pattern with counts m[0..K-1] has probability sum_i p_i prod_c T[i, c]^m[c]: a mixture of multinomials.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.curation.naming import name_classes

Matrix = NDArray[np.float64]
_TINY = 1e-12


@dataclass(frozen=True)
class Estimate:
    """A transition matrix, its prior, and how well they explain the patterns.

    Attributes:
        T: (K, K) rows true, columns rated; each row sums to 1.
        p: (K,) prior of the true score.
        log_likelihood: mean log probability of a pattern.
        iterations: EM steps of the best start.
        renamed: whether latent classes got other names than at the start.
    """

    T: Matrix
    p: Matrix
    log_likelihood: float
    iterations: int
    renamed: bool


def em(patterns: NDArray[Any], weights: Matrix, *, starts: int = 3, iterations: int = 500, seed: int = 0) -> Estimate:
    """Fit T and p to patterns of ratings that share one true score.

    Args:
        patterns: (m, K) counts of each class in each pattern.
        weights: (m,) counts of the patterns.
        starts: number of random starts, besides the diagonal and the banded one; the best log-likelihood wins.
        iterations: most steps per start.
        seed: seed of the random starts.

    Returns:
        The estimate, its classes named by `name_classes`.
    """
    counts, weights = np.asarray(patterns, np.float64), np.asarray(weights, np.float64) / np.sum(weights)
    best: tuple[float, Matrix, Matrix, int] | None = None
    for start in _starts(counts.shape[1], starts, seed):
        fitted = _climb(counts, weights, start, iterations)
        if best is None or fitted[0] > best[0] + 1e-9:
            best = fitted
    assert best is not None
    likelihood, T, p, steps = best
    order = name_classes(T, p)
    renamed = bool((order != np.arange(len(p))).any())
    return Estimate(T[order], p[order], likelihood, steps, renamed)


def _climb(counts: Matrix, weights: Matrix, T: Matrix, iterations: int) -> tuple[float, Matrix, Matrix, int]:
    p = np.full(len(T), 1 / len(T))
    before, likelihood, step = -np.inf, -np.inf, 0
    while step < iterations:
        step += 1
        joint = counts @ np.log(T + _TINY).T + np.log(p + _TINY)
        top = joint.max(1, keepdims=True)
        joint = np.exp(joint - top)
        evidence = joint.sum(1, keepdims=True)
        likelihood = float(weights @ (top + np.log(evidence))[:, 0])
        joint *= weights[:, None] / evidence
        T = joint.T @ counts + _TINY
        T /= T.sum(1, keepdims=True)
        p = joint.sum(0)
        if likelihood - before < 1e-9 * abs(likelihood):
            break
        before = likelihood
    return likelihood, T, p, step


def _starts(classes: int, randoms: int, seed: int) -> list[Matrix]:
    identity = np.eye(classes)
    steps = np.abs(np.subtract.outer(np.arange(classes), np.arange(classes)))
    diagonal = 0.6 * identity + 0.4 / classes
    banded = np.exp(-steps.astype(np.float64))
    rng = np.random.default_rng(seed)
    drawn = [0.5 * identity + 0.5 * rng.dirichlet(np.ones(classes), classes) for _ in range(randoms)]
    return [diagonal, banded / banded.sum(1, keepdims=True), *drawn]


def from_triples(c3: Matrix, **options: int) -> Estimate:
    """T and p from consensus counts `c3` (K, K, K); the order within a triple is ignored."""
    classes = len(c3)
    triples = list(combinations_with_replacement(range(classes), 3))
    patterns, weights = np.zeros((len(triples), classes)), np.zeros(len(triples))
    place: dict[tuple[int, ...], int] = {triple: number for number, triple in enumerate(triples)}
    for number, triple in enumerate(triples):
        np.add.at(patterns[number], list(triple), 1)
    for triple in np.ndindex(c3.shape):
        weights[place[tuple(sorted(triple))]] += c3[triple]
    seen = weights > 0
    return em(patterns[seen], weights[seen], **options)
