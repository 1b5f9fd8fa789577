"""Synthetic pools with known truth: many small clusters on the sphere, ratings drawn from a known T."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Near the matrix that the paper's figure shows for GPT-4o-mini, its last row filled: 42 % of ratings are wrong.
T = np.array(
    [
        [0.62, 0.28, 0.08, 0.01, 0.01, 0.00],
        [0.10, 0.56, 0.26, 0.07, 0.01, 0.00],
        [0.04, 0.15, 0.57, 0.21, 0.03, 0.00],
        [0.01, 0.05, 0.22, 0.56, 0.15, 0.01],
        [0.00, 0.02, 0.03, 0.23, 0.66, 0.06],
        [0.00, 0.02, 0.08, 0.10, 0.30, 0.50],
    ]
)
P = np.array([0.08, 0.16, 0.27, 0.27, 0.17, 0.05])


# A rater that is too kind: 56 % of ratings are wrong, and a true 5 is mostly rated 4.
SKEWED = np.array(
    [
        [0.38, 0.32, 0.18, 0.09, 0.03, 0.00],
        [0.10, 0.38, 0.34, 0.14, 0.04, 0.00],
        [0.04, 0.12, 0.44, 0.30, 0.09, 0.01],
        [0.02, 0.05, 0.16, 0.51, 0.23, 0.03],
        [0.01, 0.03, 0.09, 0.29, 0.50, 0.08],
        [0.01, 0.03, 0.08, 0.24, 0.40, 0.24],
    ]
)
# A good rater: 24 % of ratings are wrong, nearly all by one class.
MILD = np.array(
    [
        [0.82, 0.15, 0.03, 0.00, 0.00, 0.00],
        [0.10, 0.76, 0.12, 0.02, 0.00, 0.00],
        [0.02, 0.11, 0.75, 0.11, 0.01, 0.00],
        [0.00, 0.02, 0.11, 0.75, 0.11, 0.01],
        [0.00, 0.00, 0.02, 0.13, 0.76, 0.09],
        [0.00, 0.00, 0.01, 0.04, 0.20, 0.75],
    ]
)
RATERS = {"near": T, "asym": SKEWED, "mild": MILD}
_COPIED = (0.0, 0.3, 0.5)  # of raters that share errors: how many of the first rater's ratings each takes over


@dataclass(frozen=True)
class Pool:
    """Samples with known truth and their neighbours."""

    vectors: np.ndarray
    true: np.ndarray
    scores: np.ndarray
    indices: np.ndarray
    distances: np.ndarray

    @property
    def classes(self) -> int:
        return int(max(self.true.max(), self.scores.max())) + 1

    def realized(self) -> np.ndarray:
        """The transition matrix that the drawn ratings follow."""
        counts = np.zeros((self.classes, self.classes))
        np.add.at(counts, (self.true, self.scores), 1)
        return counts / np.maximum(counts.sum(1, keepdims=True), 1)

    def f1(self, flagged: np.ndarray) -> float:
        """F1 of `flagged` as a finder of wrong ratings."""
        wrong = self.true != self.scores
        return 2 * float((flagged & wrong).sum()) / max(1, int(flagged.sum() + wrong.sum()))

    def right(self, scores: np.ndarray) -> float:
        """Share of `scores` that are the true ones."""
        return float((scores == self.true).mean())


def make_pool(
    n: int = 10_000,
    d: int = 128,
    *,
    seed: int,
    size: float = 20,
    foreign: float = 0.0,
    T: np.ndarray = T,
    p: np.ndarray = P,
    k: int = 32,
) -> Pool:
    """A pool of `n` samples in clusters of about `size` members, each with one true score.

    `foreign` is the share of samples whose true score is unlike their cluster's.
    """
    vectors, true, scores = _clusters(n, d, seed, size, foreign, T, p)
    return Pool(vectors, true, scores, *nearest(vectors, k))


@dataclass(frozen=True)
class RatedPool:
    """A pool rated by several raters: `ratings` is (n, R), the rest as in `Pool`; `grades` is (n,), -1 for none.

    `ideal` (n,) is the most probable true class for somebody who knows how the pool was made: which samples form a
    cluster, the share of samples with a class of their own, each rater's matrix, and how many ratings it copies. No
    method can be right more often.
    """

    vectors: np.ndarray
    true: np.ndarray
    ratings: np.ndarray
    grades: np.ndarray
    indices: np.ndarray
    distances: np.ndarray
    ideal: np.ndarray | None = None

    @property
    def raw(self) -> np.ndarray:
        """What one would use without curation: the raters' mean, rounded half up."""
        return np.floor(self.ratings.mean(1) + 0.5).astype(np.int8)


def mixed_pool(
    n: int,
    *,
    seed: int,
    own: float,
    rater: str = "near",
    raters: int = 1,
    shared: bool = False,
    grades: int = 0,
    d: int = 256,
    k: int = 32,
) -> RatedPool:
    """A pool whose quality varies within neighbourhoods.

    Clusters have 2 to 200 members, their number falling by a power law, on a sphere of `d` dimensions of unequal width.
    A cluster has one true class, but a share `own` of all samples has one drawn from the prior instead. The second
    rater is kinder than the first, the third gives a tenth of its ratings at random; with `shared`, they take over
    30 % and 50 % of the first one's ratings.
    """
    rng = np.random.default_rng(seed)
    sizes = np.minimum(2 * (1 - rng.random(n)) ** (-1 / 0.95), 200).astype(int)
    cluster = np.repeat(np.arange(n), sizes)[:n]
    clusters, width = cluster[-1] + 1, 1 / np.sqrt(np.arange(1, d + 1))
    width /= np.linalg.norm(width)
    centers = rng.standard_normal((clusters, d)) * width
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    spread = rng.uniform(0.3, 0.8, clusters)
    vectors = centers[cluster] + spread[cluster, None] * rng.standard_normal((n, d)) * width
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    true = rng.choice(len(P), clusters, p=P)[cluster]
    true = np.where(rng.random(n) < own, rng.choice(len(P), n, p=P), true)
    first = RATERS[rater]
    matrices = (first, 0.7 * first + 0.3 * SKEWED, 0.9 * first + 0.1 / len(P))
    given = [draw_ratings(true, matrix, rng) for matrix in matrices[:raters]]
    if shared:
        for r in range(1, raters):
            given[r] = np.where(rng.random(n) < _COPIED[r], given[0], given[r])
    graded = np.full(n, -1, np.int8)
    chosen = rng.permutation(n)[:grades]
    graded[chosen] = true[chosen]
    order = rng.permutation(n)
    vectors, ratings = vectors[order], np.stack(given, 1).astype(np.int8)[order]
    copied = _COPIED if shared else (0.0,) * len(_COPIED)
    ideal = _ideal(np.stack(given, 1), graded, cluster, own, matrices, copied)
    return RatedPool(vectors, true[order], ratings, graded[order], *nearest(vectors, k), ideal[order])


def _ideal(
    ratings: np.ndarray,
    grades: np.ndarray,
    cluster: np.ndarray,
    own: float,
    matrices: Sequence[np.ndarray],
    copied: Sequence[float],
) -> np.ndarray:
    """`RatedPool.ideal` by Bayes' rule, with nothing to estimate."""
    likelihood = np.ones((len(ratings), len(P)))
    for given, matrix, share in zip(ratings.T, matrices, copied, strict=False):
        likelihood *= share * (given == ratings[:, 0])[:, None] + (1 - share) * matrix[:, given].T
    graded = grades >= 0
    likelihood[graded] = np.eye(len(P))[grades[graded]] + 1e-9
    of_cluster = np.log(np.maximum((1 - own) * likelihood + own * (likelihood @ P)[:, None], 1e-300))
    total = np.zeros((cluster[-1] + 1, len(P)))
    np.add.at(total, cluster, of_cluster)
    around = total[cluster] - of_cluster + np.log(P)
    around = np.exp(around - around.max(1, keepdims=True))
    around /= around.sum(1, keepdims=True)
    return (((1 - own) * around + own * P) * likelihood).argmax(1).astype(np.int8)


def calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 10) -> float:
    """Mean over samples of how far the confidences of its bin are from the share that is right."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    parts = [place == number for number in range(bins)]
    apart = [abs(float(confidence[p].mean() - right[p].mean())) * p.sum() for p in parts if p.any()]
    return sum(apart) / len(right)


def make_vectors(n: int, d: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors and scores of such a pool, without its neighbours."""
    vectors, _, scores = _clusters(n, d, seed, 20, 0, T, P)
    return vectors, scores


def make_local(n: int, k: int, *, seed: int, size: int = 20) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, indices and distances of a pool without a search: clusters lie in a row, neighbours are next to one.

    Takes time linear in `n`. The nearest size / 2 places on either side stand for a cluster's members.
    """
    rng = np.random.default_rng(seed)
    true = rng.choice(len(P), n // size + 1, p=P)[np.arange(n) // size]
    steps = np.concatenate([np.arange(-(k // 2), 0), np.arange(1, k - k // 2 + 1)])
    indices = (np.arange(n)[:, None] + rng.permuted(np.tile(steps, (n, 1)), axis=1)) % n
    same = np.arange(n)[:, None] // size == indices // size
    distances = np.where(same, rng.uniform(0.1, 0.4, (n, k)), rng.uniform(0.35, 0.8, (n, k))).astype(np.float32)
    order = np.argsort(distances, axis=1, kind="stable")
    indices = np.take_along_axis(indices, order, 1).astype(np.int32)
    return draw_ratings(true, T, rng).astype(np.int8), indices, np.take_along_axis(distances, order, 1)


def _clusters(
    n: int, d: int, seed: int, size: float, foreign: float, T: np.ndarray, p: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    sizes = np.maximum(4, rng.lognormal(np.log(size) - 0.18, 0.6, n).astype(int))
    cluster = np.repeat(np.arange(n), sizes)[:n]
    clusters = cluster[-1] + 1
    centers = rng.standard_normal((clusters, d))
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    spread = rng.uniform(0.35, 1.1, clusters)
    vectors = centers[cluster] + spread[cluster, None] * rng.standard_normal((n, d)) / np.sqrt(d)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    true = rng.choice(len(p), clusters, p=p)[cluster]
    stray = rng.random(n) < foreign
    true = np.where(stray, (true + rng.integers(1, len(p), n)) % len(p), true)
    scores = draw_ratings(true, T, rng)
    order = rng.permutation(n)
    return vectors[order].astype(np.float32), true[order], scores[order]


def smooth_pool(n: int, dimensions: int, seed: int, k: int = 32) -> Pool:
    """A pool on a surface of so many `dimensions`, whose true scores change smoothly over it."""
    rng = np.random.default_rng(seed)
    place = rng.standard_normal((n, dimensions))
    vectors = np.tanh(0.5 * place @ rng.standard_normal((dimensions, 64))) + 0.05 * rng.standard_normal((n, 64))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    height = np.sin(0.7 * place @ rng.standard_normal(dimensions)) + 0.5 * place[:, 0]
    true = np.searchsorted(P.cumsum()[:-1], np.argsort(np.argsort(height)) / n, side="right")
    return Pool(vectors, true, draw_ratings(true, T, rng), *nearest(vectors, k))


def draw_ratings(true: np.ndarray, T: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One rating of each sample, by the row of T of its true score."""
    drawn = (T.cumsum(1)[true] < rng.random(len(true))[:, None]).sum(1)
    return np.minimum(drawn, T.shape[1] - 1)


def nearest(vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Exact neighbours by brute force, in the plainest way."""
    n = len(vectors)
    indices, distances = np.empty((n, k), np.int32), np.empty((n, k), np.float32)
    for start in range(0, n, 1000):
        far = 1 - vectors[start : start + 1000] @ vectors.T
        far[np.arange(len(far)), np.arange(start, start + len(far))] = np.inf
        some = np.argpartition(far, k - 1, axis=1)[:, :k]
        order = np.argsort(np.take_along_axis(far, some, 1), axis=1, kind="stable")
        indices[start : start + 1000] = np.take_along_axis(some, order, 1)
        distances[start : start + 1000] = np.maximum(np.take_along_axis(far, indices[start : start + 1000], 1), 0)
    return indices, distances
