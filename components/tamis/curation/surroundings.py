"""The class of a sample's neighbourhood, from near samples' ratings and a regression on the embedding.

The latent variable z is the class of the neighbourhood. Given z,

* a neighbour in bin b that the raters rated c = c_1 .. c_R: s[b] N[z, c] + (1 - s[b]) Q[c], where s[b] is the share of
  neighbours in the bin that have the same z (clusterability, definition 3.2 of the paper, as a measured quantity), and
  Q is how often these ratings occur together. N stays near prod_r N_r[z, c_r], which holds for raters that err
  independently, and follows the data where raters share errors;
* the regression's prediction is normal around m_z with a common width.

The logarithms of both are multiplied by weights, w and v. Given z, neighbours' ratings still depend on each other and
on the regression, which would make the posterior overconfident. The weights are those with which surroundings best
predict the sample's own rating, which they do not include. P(z) is given, not fitted: ratings determine it only
together with the raters' bias.

N_r and M (the samples' own mean rating given z) stay near the family of `rater_model`, flattened by the share of
samples with a class of their own. This gives the values of z their meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tamis.curation import rater_model
from tamis.curation.bins import Bins, patterns_of, symbols_of
from tamis.curation.classes import UNRATED
from tamis.curation.neighborhoods import BLOCK, Ints, Neighborhoods
from tamis.curation.rater_model import Matrix, rows_to_one

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_PRIOR_COUNTS = 20.0  # number of ratings per class that the family counts as
_INDEPENDENCE = 1000.0  # number of neighbours per class that independent errors of several raters count as
_EVERY = 10  # EM steps between two choices of the weights
_FAMILY_EVERY = 5
_SHARE = 0.3  # initial share of samples with a class of their own
_STEPS, _POLISH, _TOLERANCE = 150, 40, 1e-5
_MOST_WEIGHT = 10.0  # of the regression
_SMALLEST = 1e-300


@dataclass(frozen=True)
class Surroundings:
    """A fitted model; see the module's docstring for the symbols.

    Attributes:
        prior: (K,) P(z).
        near: (K, K) N_r of each rater.
        together: (S, K) N, the probability of each symbol of a neighbour that has the class z.
        own: (K, K) M.
        symbols: (S, R) distinct ratings of a sample, -1 where there is none.
        common: (S,) Q, how often each is given.
        margins: (K,) margin of each rater's ratings.
        margin: (K,) of the samples' own mean ratings.
        sharing: (bins,) s.
        weight: w of the neighbours, 0..1.
        centers: (K,) m_z, where there is a regression; its predictions have mean 0 and standard deviation 1.
        width: of the predictions around them.
        regression_weight: v.
        k: neighbours used.
        bins: assigns pairs to bins.
        own_share: first estimate of the share of samples with a class of their own.
        families: (3,) parameters of `rater_model` of each rater and, last, of the mean rating.
        gain: held-out gain in log-likelihood per own rating over the margin.
        gain_error: its standard error.
        predictive: mean log-likelihood of own ratings given their surroundings, not held out.
        iterations: EM steps.
    """

    prior: Matrix
    near: tuple[Matrix, ...]
    together: Matrix
    own: Matrix
    symbols: NDArray[np.int8]
    common: Matrix
    margins: tuple[Matrix, ...]
    margin: Matrix
    sharing: Matrix
    weight: float
    centers: Matrix | None
    width: float
    regression_weight: float
    k: int
    bins: Bins
    own_share: float
    families: tuple[Matrix, ...]
    gain: float = 0.0
    gain_error: float = np.inf
    predictive: float = -np.inf
    iterations: int = 0

    @property
    def classes(self) -> int:
        """Number K of classes."""
        return len(self.prior)

    def _emission(self) -> Matrix:
        """(bins, S, K) probability of each symbol in each bin given z."""
        share = self.sharing[:, None, None]
        emission: Matrix = np.maximum(share * self.together[None] + (1 - share) * self.common[None, :, None], _SMALLEST)
        return emission

    def _posterior(self, near: Matrix, far: Matrix | None, weight: float, regression_weight: float) -> Matrix:
        logs = weight * near + np.log(self.prior)
        if far is not None:
            logs += regression_weight * far
        logs -= logs.max(1, keepdims=True)
        found = np.exp(logs)
        shares: Matrix = found / found.sum(1, keepdims=True)
        return shares

    def _regression(self, predicted: Matrix | None) -> Matrix | None:
        if predicted is None or self.centers is None:
            return None
        far: Matrix = -((predicted[:, None] - self.centers) ** 2) / (2 * self.width**2)
        return far

    def given(self, patterns: csr_matrix, predicted: Matrix | None) -> Matrix:
        """(m, K) P(z | surroundings) of the samples with these neighbours and predictions."""
        near = _evidence(patterns, self._emission())
        return self._posterior(near, self._regression(predicted), self.weight, self.regression_weight)

    def of(self, view: Neighborhoods, codes: NDArray[np.int32], rows: Ints, predicted: Matrix | None) -> Matrix:
        """(m, K) P(z | surroundings) of the samples `rows`; `codes` (n,) are all samples' symbols."""
        found = np.empty((len(rows), self.classes))
        for start in range(0, len(rows), BLOCK):
            some = rows[start : start + BLOCK]
            patterns = patterns_of(view, codes, some, self.k, self.bins, len(self.symbols))
            found[start : start + len(some)] = self.given(patterns, None if predicted is None else predicted[some])
        return found


@dataclass(frozen=True)
class Observations:
    """The data that the model is fitted to.

    Attributes:
        view: the graph with the samples that any rater rated; its scores are the raters' mean classes.
        ratings: (n, R) classes, -1 where there is none.
        predicted: (n,) predictions of a regression, with mean 0 and standard deviation 1, or None.
        prior: (K,) P(z).
        k: neighbours used of each sample.
        symbols: (S, R) distinct ratings.
        codes: (n,) number of each sample's ratings among `symbols`.
    """

    view: Neighborhoods
    ratings: NDArray[np.int8]
    predicted: Matrix | None
    prior: Matrix
    k: int
    symbols: NDArray[np.int8] = field(init=False)
    codes: NDArray[np.int32] = field(init=False)

    def __post_init__(self) -> None:
        symbols, codes = symbols_of(self.ratings)
        object.__setattr__(self, "symbols", symbols)
        object.__setattr__(self, "codes", codes)


def fit(observed: Observations, rough: Ints, rows: Ints) -> Surroundings:
    """Fit the model by EM, first on `rough`, a few of the rated samples `rows`, then on all of `rows`."""
    classes, view = len(observed.prior), observed.view
    margins = tuple(_shares(one, classes) for one in observed.ratings.T)
    margin = _shares(view.scores, classes)
    families = tuple(rater_model.start() for _ in range(len(margins) + 1))
    bins = Bins(view, rows, observed.k)
    flat = _flattened(families, (*margins, margin), _SHARE)
    given = np.bincount(observed.codes[view.rows], minlength=len(observed.symbols)) + 1e-9
    model = Surroundings(
        prior=observed.prior,
        near=tuple(flat[:-1]),
        together=_independent(flat[:-1], observed.symbols),
        own=flat[-1],
        symbols=observed.symbols,
        common=given / given.sum(),
        margins=margins,
        margin=margin,
        sharing=np.full(bins.count, 0.7),
        weight=0.7,
        centers=None if observed.predicted is None else np.linspace(-1, 1, classes),
        width=1.0,
        regression_weight=1.0,
        k=observed.k,
        bins=bins,
        own_share=_SHARE,
        families=families,
    )
    model = _climb(model, observed, rough, _STEPS)
    return model if len(rough) == len(rows) else _climb(model, observed, rows, _POLISH)


def _climb(model: Surroundings, data: Observations, rows: Ints, steps: int) -> Surroundings:
    classes, n = model.classes, len(rows)
    patterns = patterns_of(data.view, data.codes, rows, model.k, model.bins, len(model.symbols))
    transposed = patterns.T.tocsr()
    own = data.view.scores[rows].astype(np.intp)
    given = np.eye(classes)[own]
    seen_regression = None if data.predicted is None else data.predicted[rows]
    before = -np.inf
    for step in range(1, steps + 1):
        emission = model._emission()
        near, far = _evidence(patterns, emission), model._regression(seen_regression)
        mine = model.own[:, own].T
        choose = step % _EVERY == 0
        if choose:
            model = _weighted(model, near, far, mine)
        z = model._posterior(near, far, model.weight, model.regression_weight)
        joint = z * mine
        evidence = joint.sum(1)
        predictive = float(np.log(evidence).mean())
        model = replace(model, predictive=predictive, iterations=model.iterations + 1)
        if choose and abs(predictive - before) < _TOLERANCE * abs(predictive):
            break
        if choose:
            before = predictive
        posterior = joint / evidence[:, None]
        seen = (transposed @ posterior).reshape(emission.shape)
        model = _maximized(model, posterior.T @ given, seen, emission, step % _FAMILY_EVERY == 0)
        if seen_regression is not None:
            weights = posterior.sum(0)
            centers = (posterior.T @ seen_regression) / (weights + 1e-3)
            spread = (posterior * (seen_regression[:, None] - centers) ** 2).sum() / n
            model = replace(model, centers=centers, width=float(np.sqrt(spread)) + 1e-3)
    gain, error = _held_out(z, own, classes)
    return replace(model, gain=gain, gain_error=error)


def _maximized(model: Surroundings, own: Matrix, seen: Matrix, emission: Matrix, families: bool) -> Surroundings:
    """The M-step.

    Args:
        model: the model before it.
        own: (K, K) expected samples of each z (rows) with each own class.
        seen: (bins, S, K) expected neighbours of each bin and symbol of samples of each z.
        emission: (bins, S, K) the same in each bin, of neighbours of any class.
        families: whether their parameters and the own share are fitted too.
    """
    alike = seen * (model.sharing[:, None, None] * model.together[None]) / emission
    sharing = (alike.sum((1, 2)) + 0.5) / (seen.sum((1, 2)) + 1.0)
    by_symbol = alike.sum(0)  # (S, K)
    counts = []
    for one in model.symbols.T:
        given = np.eye(model.classes + 1)[one][:, :-1]
        matrix = by_symbol.T @ given
        # A sample is the neighbour of many samples, but counts once.
        rated = float((own.sum() * model.common) @ (one != UNRATED))
        counts.append(matrix * min(1.0, rated / max(float(matrix.sum()), 1e-9)))
    counts.append(own)
    margins = (*model.margins, model.margin)
    if families:
        found, own_share = rater_model.fit_flattened(counts, margins, model.own_share, model.families)
        model = replace(model, families=tuple(found), own_share=own_share)
    flat = _flattened(model.families, margins, model.own_share)
    rows = [rows_to_one(c + _PRIOR_COUNTS * f) for c, f in zip(counts, flat, strict=True)]
    together = _independent(rows[:-1], model.symbols)
    if len(rows) > 2:  # several raters
        together = _as_observed(together, model.symbols, by_symbol * min(1.0, own.sum() / max(by_symbol.sum(), 1e-9)))
    return replace(model, near=tuple(rows[:-1]), together=together, own=rows[-1], sharing=sharing)


def _independent(near: Sequence[Matrix], symbols: NDArray[np.int8]) -> Matrix:
    """(S, K) probability of each symbol given z if raters err independently."""
    logs = np.zeros((len(symbols), len(near[0])))
    for matrix, one in zip(near, symbols.T, strict=True):
        padded = np.hstack([np.log(np.maximum(matrix, _SMALLEST)), np.zeros((len(matrix), 1))])
        logs += padded[:, one].T  # the last column is for -1
    found: Matrix = np.exp(logs)
    return found


def _as_observed(independent: Matrix, symbols: NDArray[np.int8], seen: Matrix) -> Matrix:
    """(S, K) the probabilities `independent`, updated with `seen` (S, K) symbols.

    Symbols in which the same raters rated share a probability, which is that of `independent`.
    """
    found = np.empty_like(independent)
    raters = (symbols != UNRATED) @ (1 << np.arange(symbols.shape[1]))
    for which in np.unique(raters):
        here = raters == which
        mass = np.maximum(independent[here].sum(0), _SMALLEST)
        counts = seen[here] + _INDEPENDENCE * independent[here] / mass
        found[here] = counts / counts.sum(0) * mass
    return found


def _weighted(model: Surroundings, near: Matrix, far: Matrix | None, mine: Matrix) -> Surroundings:
    """The model with those weights near the present ones that predict own ratings best."""
    steps = [0.0] if far is None else [-1.0, 0.0, 1.0]
    best = (-np.inf, model.weight, model.regression_weight)
    for weight in sorted({round(min(max(model.weight + by, 0.0), 1.0), 2) for by in (-0.1, -0.05, 0.0, 0.05, 0.1)}):
        for step in steps:
            factor = min(max(model.regression_weight * 1.4**step, 0.02), _MOST_WEIGHT)
            z = model._posterior(near, far, weight, factor)
            best = max(best, (float(np.log((z * mine).sum(1)).mean()), weight, factor))
    return replace(model, weight=best[1], regression_weight=best[2])


def _held_out(z: Matrix, own: NDArray[np.intp], classes: int) -> tuple[float, float]:
    """Held-out gain per rating over the margin, and its standard error.

    Each half of the samples is predicted with the matrix and the margin of the other half.
    """
    odd = np.arange(len(own)) % 2 == 1
    gains = np.zeros(len(own))
    for half in (odd, ~odd):
        other = ~half
        if not half.any() or not other.any():
            return 0.0, np.inf
        given = np.eye(classes)[own[other]]
        margin = given.sum(0) + 0.5
        margin /= margin.sum()
        matrix = rows_to_one(np.eye(classes) * 1e-9 + margin)
        for _ in range(20):
            mine = matrix[:, own[other]].T
            joint = z[other] * mine
            posterior = joint / joint.sum(1, keepdims=True)
            matrix = rows_to_one(posterior.T @ given + classes * margin)
        predicted = (z[half] * matrix[:, own[half]].T).sum(1)
        gains[half] = np.log(predicted) - np.log(margin[own[half]])
    return float(gains.mean()), float(gains.std() / np.sqrt(len(own)))


def _flattened(families: Sequence[Matrix], margins: Sequence[Matrix], share: float) -> list[Matrix]:
    return [
        (1 - share) * rater_model.family(family, len(q)) + share * q
        for family, q in zip(families, margins, strict=True)
    ]


def _evidence(patterns: csr_matrix, emission: Matrix) -> Matrix:
    """(m, K) log probability of the neighbours' ratings given z, before its weight."""
    evidence: Matrix = patterns @ np.log(emission).reshape(-1, emission.shape[2])
    return evidence


def _shares(scores: NDArray[np.int8], classes: int) -> Matrix:
    counts = np.bincount(scores[scores != UNRATED], minlength=classes) + 1e-9
    shares: Matrix = counts / counts.sum()
    return shares
