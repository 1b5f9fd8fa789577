"""The joint model of raters, surroundings and human grades: variational Bayes on a grid.

Latent variables of every sample: z, the class of its neighbourhood, with P(z) from `surroundings`; t, its own true
class; u, the class that language models see in it. Then

    P(t | z) = G[z, t] = (1 - h) [z = t] + h p[t]      h: the share of samples with a class of their own
    P(u | t) = S[t, u]                                 errors that all raters share; the identity with one rater
    P(rated y by r | u) = T_r[u, y]

and a human grade is an observation of t. T_r has a Dirichlet prior around the family of `rater_model`, whose parameters
are fitted as well; S has one around a matrix near the identity. h is not fitted: it takes the values of a grid. Every
grid point is weighted by (a lower bound of) its evidence, and the posterior of a sample is the mean over the grid, so
the probabilities reflect what the data leave open.

With two raters or more the data may determine G beyond its form. Points with a free G, with a Dirichlet prior around
the form, then win by their evidence.

p is not fitted either. Ratings determine it only together with the raters' bias, so without grades it is the margin of
the ratings: a rater is assumed to be unbiased. Grades change p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tamis.curation import rater_model
from tamis.curation.bins import symbols_of
from tamis.curation.classes import UNRATED
from tamis.curation.neighborhoods import Ints
from tamis.curation.rater_model import Matrix, rows_to_one

OWN_SHARES = (0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
CLUSTERABLE = (0.02,)
_STRENGTH = 30.0  # ratings that a row of T's prior counts as
_OWN_STRENGTH = 50.0  # samples that a row of a free G's prior counts as
_SHARED = (0.2, 0.6)  # prior shares of S off the diagonal that are tried
_SHARED_STRENGTH = 40.0  # samples that a row of S's prior counts as
_STEPS, _TOLERANCE, _FAMILY_EVERY = 60, 1e-6, 10
_DISCOUNT = 4.0  # divides the evidence of ungraded samples if there are grades
_GRADERS_ERR = 0.005  # assumed share of wrong grades
_PRUNED = 1e-3  # grid points with less weight are left out


@dataclass(frozen=True)
class Point:
    """The fit at one point of the grid.

    Attributes:
        own_share: h.
        free: whether G was fitted beyond its form.
        shared: prior share of S off the diagonal.
        evidence: lower bound of the log probability of ratings and grades.
        T: (K, K) of each rater, posterior means.
        T_counts: (K, K) Dirichlet parameters of each rater's T.
        G: (K, K) own class (columns) given the neighbourhood's.
        S: (K, K) class that models see (columns) given the true one.
        weight: the point's share of the posterior.
    """

    own_share: float
    free: bool
    shared: float
    evidence: float
    T: tuple[Matrix, ...]
    T_counts: tuple[Matrix, ...]
    G: Matrix
    S: Matrix
    weight: float = 0.0

    def own_share_of(self, prior: Matrix) -> float:
        """Share of samples with a class of their own, also of a fitted G: 0 if G is the identity, 1 if it is p."""
        chance = float((prior**2).sum())
        if chance >= 1 - 1e-9:
            return 0.0
        return float(np.clip(1 - (float(prior @ np.diag(self.G)) - chance) / (1 - chance), 0, 1))

    def all_true(self) -> Point:
        """The same fit with the class that all raters see as the truth: shared errors become true differences."""
        return replace(self, G=self.G @ self.S, S=np.eye(len(self.S)))

    def posterior(
        self, z: Matrix, patterns: NDArray[np.int8], places: Ints, grades: Matrix, trust: float = 1.0
    ) -> Matrix:
        """(m, K) P(t) of samples with P(z) `z` (m, K), the ratings `patterns[places]`, and `grades` (m, K) or 1.

        With `trust` below 1, the sample's own ratings count less than in the model.
        """
        like = _likelihood([np.log(np.maximum(T, 1e-300)) for T in self.T], patterns) @ self.S.T
        joint = (z @ self.G) * (like**trust)[places] * grades
        found: Matrix = joint / joint.sum(1, keepdims=True)
        return found


def fit(
    z: Matrix,
    ratings: NDArray[np.int8],
    grades: NDArray[np.int8],
    prior: Matrix,
    shares: Sequence[float] = OWN_SHARES,
    starts: Sequence[Point] = (),
) -> list[Point]:
    """All points of the grid, those with most weight first; negligible weights are set to 0.

    Args:
        z: (m, K) P(z | surroundings).
        ratings: (m, R) classes, -1 where there is none.
        grades: (m,) true classes, -1 where there is no grade.
        prior: (K,) p.
        shares: values of h.
        starts: points of an earlier fit to similar data; only these are fitted, each from its earlier state.
    """
    patterns, places = symbols_of(ratings)
    data = _Data(z, patterns, places, likelihood_of(grades, len(prior)), prior)
    if starts:
        points = [_climb(data, start.own_share, start.free, start.shared, start) for start in starts]
    else:
        # Each point starts from sharp matrices: from the fit of another share it would end in a worse optimum.
        free = (False, True) if ratings.shape[1] > 1 and len(shares) > 1 else (False,)
        common = _SHARED if ratings.shape[1] > 1 else (0.0,)
        points = [_climb(data, share, loose, c, None) for c in common for loose in free for share in shares]
    return _weighed(points, data, grades)


def _weighed(points: Sequence[Point], data: _Data, grades: NDArray[np.int8]) -> list[Point]:
    """The points with their weights: by evidence and, if there are grades, above all by how well they predict them.

    Neighbourhoods overlap, so ungraded samples are not independent evidence, and their evidence depends on the form of
    the model. If there are grades, it therefore counts only in part.
    """
    evidence = np.array([point.evidence for point in points])
    graded = np.flatnonzero(grades != UNRATED)
    if len(graded):
        one = np.ones((1, 1))
        posteriors = [p.posterior(data.z[graded], data.patterns, data.places[graded], one) for p in points]
        right = [seen[np.arange(len(graded)), grades[graded]] for seen in posteriors]
        predictive = [np.log(np.maximum(probabilities, 1e-12)).sum() for probabilities in right]
        evidence = evidence / _DISCOUNT + np.array(predictive)
    weights = np.exp(evidence - evidence.max())
    weights /= weights.sum()
    weights[weights < _PRUNED] = 0
    weights /= weights.sum()
    found = [replace(point, weight=float(weight)) for point, weight in zip(points, weights, strict=True)]
    return sorted(found, key=lambda point: (-point.weight, point.own_share))


def posterior(
    points: Sequence[Point],
    z: Matrix,
    ratings: NDArray[np.int8],
    grades: NDArray[np.int8] | None = None,
    trust: float = 1.0,
) -> Matrix:
    """(m, K) P(t) of samples, the mean over the grid's points; with `grades` (m,), given these grades.

    With `trust` below 1, a sample's own ratings count less than in the model.
    """
    patterns, places = symbols_of(ratings)
    seen = np.ones((1, z.shape[1])) if grades is None else likelihood_of(grades, z.shape[1])
    total: Matrix = np.zeros_like(z)
    for point in points:
        if point.weight > 0:
            total += point.weight * point.posterior(z, patterns, places, seen, trust)
    return total


def likelihood_of(grades: NDArray[np.int8], classes: int) -> Matrix:
    """(m, K) probability of each sample's grade given its true class; 1 if there is no grade."""
    found: Matrix = np.ones((len(grades), classes))
    graded = grades != UNRATED
    if classes > 1:
        sure = np.full((classes, classes), _GRADERS_ERR / (classes - 1))
        np.fill_diagonal(sure, 1 - _GRADERS_ERR)
        found[graded] = sure[grades[graded]]
    return found


@dataclass(frozen=True)
class _Data:
    z: Matrix
    patterns: NDArray[np.int8]
    places: Ints
    grades: Matrix
    prior: Matrix


def _climb(data: _Data, share: float, free: bool, shared: float, start: Point | None) -> Point:
    """Coordinate ascent of the evidence's lower bound at one point of the grid."""
    from scipy.sparse import csr_matrix

    classes, raters, n = len(data.prior), data.patterns.shape[1], len(data.z)
    onehot = [np.eye(classes + 1)[one][:, :classes] for one in data.patterns.T]  # by pattern; nothing for -1
    gather = csr_matrix((np.ones(n), (data.places, np.arange(n))), shape=(len(data.patterns), n))
    form = (1 - share) * np.eye(classes) + share * data.prior
    G_prior, S_prior = _OWN_STRENGTH * form + 1e-3, _SHARED_STRENGTH * _near_identity(classes, shared) + 1e-3
    families = [rater_model.start() for _ in range(raters)]
    if start is None:
        T = [200 * rater_model.family(family, classes) for family in families]
    else:
        T = list(start.T_counts)
        families = [rater_model.fit(t, family) for t, family in zip(T, families, strict=True)]
    T_prior = [_STRENGTH * rater_model.family(family, classes) for family in families]
    G_counts, S_counts, before = 20 * G_prior, S_prior, -np.inf
    common = raters > 1
    for step in range(1, _STEPS + 1):
        G = _geometric(G_counts) if free else form
        S = _geometric(S_counts) if common else np.eye(classes)
        like = _likelihood([np.log(_geometric(t)) for t in T], data.patterns)
        seen = (like @ S.T)[data.places] * data.grades
        spread = data.z @ G
        total = np.maximum((spread * seen).sum(1), 1e-300)
        evidence = float(np.log(total).sum()) - sum(_divergence(t, p) for t, p in zip(T, T_prior, strict=True))
        evidence += sum(rater_model.log_prior(family) for family in families)
        evidence -= _divergence(G_counts, G_prior) if free else 0.0
        evidence -= _divergence(S_counts, S_prior) if common else 0.0
        if step > _FAMILY_EVERY and abs(evidence - before) < _TOLERANCE * abs(evidence):
            break
        before = evidence
        own = gather @ (spread * data.grades / total[:, None])  # by pattern, true classes in columns, without T and S
        models = (own @ S) * like
        counts = [models.T @ one for one in onehot]
        if common:
            S_counts = S * (own.T @ like) + S_prior
        if free:
            G_counts = G * ((data.z / total[:, None]).T @ seen) + G_prior
        if step % _FAMILY_EVERY == 0:
            families = [rater_model.fit(c, family) for c, family in zip(counts, families, strict=True)]
            T_prior = [_STRENGTH * rater_model.family(family, classes) for family in families]
        T = [c + p for c, p in zip(counts, T_prior, strict=True)]
    return Point(
        own_share=share,
        free=free,
        shared=shared,
        evidence=evidence,
        T=tuple(rows_to_one(t) for t in T),
        T_counts=tuple(T),
        G=rows_to_one(G_counts) if free else form,
        S=rows_to_one(S_counts) if common else np.eye(classes),
    )


def _likelihood(logs: Sequence[Matrix], patterns: NDArray[np.int8]) -> Matrix:
    """(patterns, K) probability of each pattern of ratings given what models see, from the logarithms of each T."""
    total = np.zeros((len(patterns), len(logs[0])))
    for matrix, one in zip(logs, patterns.T, strict=True):
        total += np.hstack([matrix, np.zeros((len(matrix), 1))])[:, one].T  # its last column is for -1
    like: Matrix = np.exp(total)
    return like


def _near_identity(classes: int, shared: float) -> Matrix:
    steps = np.abs(np.subtract.outer(np.arange(classes), np.arange(classes)))
    near = rows_to_one(np.exp(-steps.astype(np.float64)))
    matrix: Matrix = (1 - shared) * np.eye(classes) + shared * near
    return matrix


def _geometric(counts: Matrix) -> Matrix:
    """Exponential of the expected logarithm of rows that are Dirichlet with parameters `counts`."""
    from scipy.special import digamma

    rows: Matrix = np.exp(digamma(counts) - digamma(counts.sum(1, keepdims=True)))
    return rows


def _divergence(counts: Matrix, prior: Matrix) -> float:
    """Kullback-Leibler divergence of Dirichlet rows with parameters `counts` from those with `prior`."""
    from scipy.special import digamma, gammaln

    total, total_prior = counts.sum(1), prior.sum(1)
    constant = gammaln(total) - gammaln(total_prior) - (gammaln(counts) - gammaln(prior)).sum(1)
    expected = digamma(counts) - digamma(total)[:, None]
    return float((constant + ((counts - prior) * expected).sum(1)).sum())
