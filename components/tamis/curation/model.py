"""Curation by one model of all that is known of a sample: `exact` mode, and the function for arrays.

    from tamis.curation import curate
    result = curate(ratings, indices, distances, embeddings=vectors)
    result.score, result.confidence, result.diagnosis["warnings"]

`surroundings` says what is near, `joint` puts it together with the sample's own ratings and human grades, `choice`
turns probabilities into scores. The README has the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tamis.core.errors import InputError
from tamis.curation import calibration, honest, joint, surroundings
from tamis.curation.bins import symbols_of
from tamis.curation.calibration import FEW_GRADES, Calibration
from tamis.curation.choice import chosen
from tamis.curation.classes import UNRATED
from tamis.curation.explaining import Findings, diagnosis_of, own_share_of
from tamis.curation.inputs import check_features, check_graph
from tamis.curation.joint import Point
from tamis.curation.neighborhoods import Floats, Ints, Neighborhoods, copy_groups
from tamis.curation.rater_model import Matrix
from tamis.curation.regression import Regression, predict
from tamis.curation.result import Curated
from tamis.curation.surroundings import Surroundings

Assumption = Literal["cautious", "clusterable"]
COPY_DISTANCE = 1e-5
FIT_SAMPLES = 20_000
NOT_NEARER = "the grades do not show that corrections bring scores nearer to the truth, so no rating was changed"
UNBELIEVABLE = (
    "by its neighbours this rater would be wrong in most of its ratings: one rater alone is not corrected that much, "
    "since near samples that differ look the same"
)
_MOST_CHANGED = 0.5  # share of one rater's ratings that may change without grades
# With one rater and no grades: where more samples than this share may have a class of their own (with at least that
# probability), its errors cannot be told from true differences.
MOST_OWN_SHARE, _PLAUSIBLE = 0.5, 0.05
MOST_OWN_SHARE_OF_SEVERAL = 0.7  # the same with several raters: those that share errors agree against neighbourhoods
_ROUGH_SAMPLES = 3_000
_JOINT_SAMPLES = 10_000  # most to which the joint model is fitted; it has few parameters
_FOLDS = 5
_SURE = 2.33  # standard errors of the held-out gain that make it one: 1 % by chance
_MARGIN_STRENGTH = 50.0  # grades that the ratings' margin counts as, in the prior
_NEVER = 1e-9  # probability of a class that nobody gave
_DOUBT = 0.85  # exponent of probabilities that rest on one rater alone: its bias is not in them
_LITTLE_DOUBT = 0.95  # the same with several raters: they may share errors
_TRUST = 0.5  # how much of their own ratings' likelihood counts if raters share errors


def curate(
    ratings: Ints,
    indices: Ints,
    distances: Floats,
    *,
    embeddings: NDArray[Any] | None = None,
    covariates: Floats | None = None,
    covariate_names: Sequence[str] | None = None,
    grades: Ints | None = None,
    grade_weights: Floats | None = None,
    classes: int = 6,
    assume: Assumption = "cautious",
    confidence: float = 0.0,
    fill_missing: bool = False,
    neighbors: int | Literal["auto"] = "auto",
    copy_distance: float | None = COPY_DISTANCE,
    fit_samples: int = FIT_SAMPLES,
    keep_posterior: bool = True,
) -> Curated:
    """Find and correct the errors of raters (section 3 of the paper, arXiv 2410.10877; the model is in the README).

    Args:
        ratings: (n,) or (n, R) integer score classes 0..classes-1 of R raters, -1 where there is no rating.
        indices: (n, k) integers, each sample's nearest neighbours, nearest first, itself excluded.
        distances: (n, k) cosine distances to them, ascending.
        embeddings: (n, d) vectors for a cross-fitted regression; read block by block, so they may be memory-mapped.
        covariates: (n, c) numbers that may drive ratings, such as log lengths, NaN where unknown; they enter the
            regression, and their effects are in the diagnosis.
        covariate_names: their names there; numbers if not given.
        grades: (n,) human grades as true classes, -1 where there is none.
        grade_weights: (n,) 1 / the probability with which a sample was drawn to be graded, NaN where it was chosen for
            another reason: its grade is used, but says nothing of how common a class is.
        classes: number K of score classes.
        assume: "cautious" corrects only what the data can tell; "clusterable" takes for granted that near samples share
            their true score (definition 3.2), which one rater's ratings cannot show.
        confidence: a rating is changed only to a class of at least this probability, 0..1.
        fill_missing: whether samples without a rating get their most probable class as score.
        neighbors: neighbours used of each sample; "auto" uses all, weighed by their distance.
        copy_distance: samples this close are copies of one another: no neighbours, and one of them enters the
            statistics; None treats copies as any neighbours.
        fit_samples: most samples that the model is fitted to, graded ones come on top; all get a posterior.
        keep_posterior: whether the result holds the (n, K) posterior.

    Returns:
        Scores (n,), real-valued `mean` (n,), `posterior` (n, K), `confidence` (n,) that the score is right and
        `error_probability` (n, R), with a diagnosis of plain JSON values: "explained", "warnings", "advice", "T" and
        what the README lists. Where the data cannot tell errors from true differences, ratings stay as they are and
        probabilities are NaN.

    Raises:
        InputError: when shapes disagree, a number is out of range or not finite, or nothing is rated.
    """
    from threadpoolctl import threadpool_limits

    indices, distances = np.asanyarray(indices), np.asanyarray(distances)
    given = check_arrays(ratings, indices, distances, classes)
    covariates = None if covariates is None else np.asarray(covariates, np.float64)
    grade_weights = None if grade_weights is None else np.asarray(grade_weights, np.float64)
    check_features(len(given), embeddings, covariates, grade_weights)
    if confidence > 1 or fit_samples < 1 or (neighbors != "auto" and neighbors < 1):
        raise InputError(
            f"confidence is {confidence}, fit_samples {fit_samples} and neighbors {neighbors}",
            allowed="confidence of 0..1, fit_samples and neighbors of 1 or more",
        )
    if assume not in get_args(Assumption):
        raise InputError(f"assume is {assume!r}", allowed=", ".join(get_args(Assumption)))
    graded = _grades(grades, len(given), classes)
    options = _Options(classes, assume, confidence, fill_missing)
    known = _Known(indices, distances, embeddings, covariates, covariate_names, grade_weights)
    # Products here are narrow: threads cost more than they bring, and their number would change the last bits.
    with threadpool_limits(limits=1, user_api="blas"):
        result = _curate(given, graded, known, options, neighbors, copy_distance, fit_samples)
    if not keep_posterior:
        result.posterior = None
    return result


@dataclass(frozen=True)
class _Known:
    indices: Ints
    distances: Floats
    embeddings: NDArray[Any] | None
    covariates: Floats | None
    covariate_names: Sequence[str] | None
    grade_weights: Floats | None


def _curate(
    given: NDArray[np.int8],
    graded: NDArray[np.int8],
    known: _Known,
    options: _Options,
    neighbors: int | Literal["auto"],
    copy_distance: float | None,
    fit_samples: int,
) -> Curated:
    indices, distances, classes, assume = known.indices, known.distances, options.classes, options.assume
    raw = _rounded_mean(given)
    groups = None if copy_distance is None else copy_groups(indices, distances, copy_distance)
    view = Neighborhoods(raw, indices, distances, groups)
    k = view.k if neighbors == "auto" else min(neighbors, view.k)
    fold = _folds(len(given), groups)
    regression = None
    if known.embeddings is not None or known.covariates is not None:
        regression = predict(_centred(given), view, known.embeddings, known.covariates, fold, known.covariate_names)
    prior = _prior(given, graded, known.grade_weights, classes)
    lone = len(np.unique(given[given != UNRATED])) == 1 and not (graded != UNRATED).any()
    predicted = _standardized(regression, raw)
    symbols, codes = symbols_of(given)
    near = surroundings.fit(
        view,
        given,
        codes,
        symbols,
        view.sample(min(_ROUGH_SAMPLES, fit_samples)),
        view.sample(fit_samples),
        predicted,
        prior,
        k,
    )
    data = _Data(view, given, codes, raw, graded, near, predicted, fit_samples)
    informative = not lone and near.gain > _SURE * near.gain_error
    shares = joint.CLUSTERABLE if assume == "clusterable" else joint.OWN_SHARES
    fitted = _fit(data, informative, shares, prior, known.grade_weights)
    reasons = ["all ratings are equal"] if lone else _reasons(data, fitted, assume)
    told = not reasons
    result = _posteriors(data, fitted, told, options)
    if told and not _believable(data, result, options):
        reasons, told = [UNBELIEVABLE], False
        result = _posteriors(data, fitted, told, options)
    held, notes = None, list[str]()
    if told and (graded != UNRATED).any():
        apart = _held_out(data, fitted, result, options)
        score = apart.score
        enough = len(apart.graded) >= FEW_GRADES
        if assume == "cautious" and enough and not apart.shown(data, known.grade_weights):
            _keep_ratings(data, result)
            score = np.where(raw == UNRATED, score, raw)
            notes = [NOT_NEARER]
        held = apart.measured(data, score, known.grade_weights)
    result.diagnosis = diagnosis_of(
        Findings(
            view=view,
            ratings=given,
            grades=graded,
            near=near,
            points=fitted.points,
            z=fitted.z,
            rows=fitted.rows,
            power=fitted.calibration.power,
            regression=regression,
            informative=informative,
            reasons=reasons,
            assume=assume,
            notes=notes,
            held_out=held,
        ),
        result,
        classes,
    )
    return result


@dataclass(frozen=True)
class _Data:
    view: Neighborhoods
    ratings: NDArray[np.int8]
    codes: NDArray[np.int32]
    raw: NDArray[np.int8]
    grades: NDArray[np.int8]
    near: Surroundings
    predicted: Matrix | None
    fit_samples: int


@dataclass(frozen=True)
class _Options:
    classes: int
    assume: Assumption
    confidence: float
    fill: bool


@dataclass(frozen=True)
class Fitted:
    """The joint model on the samples `rows`, whose P(z | surroundings) is `z`, and the calibration of its posteriors.

    `crossed` (g, K) are the posteriors of the graded samples, in order, by fits that have not seen their grades.
    """

    points: list[Point]
    rows: Ints
    z: Matrix
    calibration: Calibration
    informative: bool
    crossed: Matrix

    @property
    def kept(self) -> list[Point]:
        """The points of the grid that carry weight."""
        return [point for point in self.points if point.weight > 0]


def check_arrays(ratings: Ints, indices: Ints, distances: Floats, classes: int) -> NDArray[np.int8]:
    """The ratings as (n, R) int8, after a look at everything.

    Raises:
        InputError: when shapes disagree, a score is out of range, or nothing is rated; for `check_graph`'s reasons.
    """
    given = np.asarray(ratings)
    n = len(given)
    fits = indices.ndim == 2 and indices.shape == distances.shape and len(indices) == n and given.ndim in (1, 2)
    if not fits or n == 0 or indices.shape[1] < 2 or (given.ndim == 2 and given.shape[1] == 0):
        raise InputError(
            f"scores of shape {given.shape}, indices of shape {indices.shape} and distances of shape "
            f"{distances.shape} do not fit",
            allowed="shapes (n,) or (n, R), (n, k) and (n, k) with k of 2 or more",
        )
    if given.dtype.kind not in "iu":
        raise InputError(f"the scores are {given.dtype}", allowed="integers, -1 where there is no rating")
    check_graph(indices, distances)
    given = given.reshape(n, -1)
    _check_range(given, classes, "score")
    if not (given != UNRATED).any():
        raise InputError("no sample has a rating", action="rate the pool first; look at the ratings' status and error")
    return given.astype(np.int8)


def _check_range(values: NDArray[Any], classes: int, what: str) -> None:
    wrong = np.argwhere((values < UNRATED) | (values >= classes))
    if len(wrong):
        first = tuple(wrong[0])
        raise InputError(
            f"the {what} of sample {int(first[0])} is {values[first]}; {len(wrong)} {what}s are out of range",
            allowed=f"0..{classes - 1}, or -1 for a sample without one",
        )


def _grades(grades: Ints | None, n: int, classes: int) -> NDArray[np.int8]:
    if grades is None:
        return np.full(n, UNRATED, np.int8)
    given = np.asarray(grades)
    if given.shape != (n,) or given.dtype.kind not in "iu":
        raise InputError(
            f"grades of shape {given.shape} and type {given.dtype} do not fit {n} samples",
            allowed="integers of shape (n,), -1 where there is no grade",
        )
    _check_range(given, classes, "grade")
    return given.astype(np.int8)


def _rounded_mean(ratings: NDArray[np.int8]) -> NDArray[np.int8]:
    """(n,) mean class of the raters, rounded half up; -1 where nobody rated."""
    rated = ratings != UNRATED
    number = rated.sum(1)
    mean = np.where(rated, ratings, 0).sum(1) / np.maximum(number, 1)
    return np.where(number > 0, np.floor(mean + 0.5), UNRATED).astype(np.int8)


def _centred(ratings: NDArray[np.int8]) -> Matrix:
    """(n,) mean rating; a sample that a strict rater alone has seen is not thereby worse. NaN where nobody rated."""
    values = np.where(ratings == UNRATED, np.nan, ratings).astype(np.float64)
    known = np.isfinite(values)
    centers = np.array([one[np.isfinite(one)].mean() if np.isfinite(one).any() else 0.0 for one in values.T])
    number = known.sum(1)
    offsets = np.where(known, values - centers, 0).sum(1) / np.maximum(number, 1)
    return np.where(number > 0, offsets + centers.mean(), np.nan)


def _folds(n: int, groups: NDArray[np.int32] | None) -> NDArray[np.intp]:
    """(n,) numbers 0..4 without order; copies share theirs."""
    keys = np.arange(n) if groups is None else groups
    mixed = (keys.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    return ((mixed >> np.uint64(33)) % np.uint64(_FOLDS)).astype(np.intp)


def _standardized(regression: Regression | None, raw: NDArray[np.int8]) -> Matrix | None:
    if regression is None:
        return None
    seen = regression.predicted[raw != UNRATED]
    spread = float(seen.std())
    return (regression.predicted - seen.mean()) / spread if spread > 1e-9 else None


def _prior(
    ratings: NDArray[np.int8], grades: NDArray[np.int8], weights: Floats | None, classes: int
) -> NDArray[np.float64]:
    """p: the margin of the ratings, the mean over raters, moved by the grades of samples that were drawn at random."""
    margins = []
    for one in ratings.T:
        counts = np.bincount(one[one != UNRATED], minlength=classes)
        if counts.sum():
            margins.append(counts / counts.sum())
    prior = _MARGIN_STRENGTH * np.mean(margins, axis=0)
    drawn = grades != UNRATED
    if weights is not None and np.isfinite(weights[drawn]).any():
        drawn &= np.isfinite(weights)
        each = weights[drawn] / weights[drawn].mean()
    else:
        each = np.ones(int(drawn.sum()))
    prior = np.maximum(prior + np.bincount(grades[drawn], each, minlength=classes), _NEVER)
    shares: NDArray[np.float64] = prior / prior.sum()
    return shares


def _fit(data: _Data, informative: bool, shares: Sequence[float], prior: Matrix, weights: Floats | None) -> Fitted:
    rows = np.union1d(data.view.sample(min(data.fit_samples, _JOINT_SAMPLES)), np.flatnonzero(data.grades != UNRATED))
    z = _given(data, informative, rows)
    points = joint.fit(z, data.ratings[rows], data.grades[rows], prior, shares)
    graded = np.flatnonzero(data.grades[rows] != UNRATED)
    if len(graded):
        crossed = _crossed(data, points, rows, z, graded, weights)
        scale = calibration.fit(crossed, data.raw[rows[graded]], data.grades[rows[graded]])
        return Fitted(points, rows, z, scale, informative, crossed)
    doubt = _DOUBT if data.ratings.shape[1] == 1 else _LITTLE_DOUBT
    scale = calibration.none(len(prior), doubt if len(shares) > 1 else 1.0)
    return Fitted(points, rows, z, scale, informative, np.empty((0, len(prior))))


def _crossed(
    data: _Data, points: Sequence[Point], rows: Ints, z: Matrix, graded: NDArray[np.intp], weights: Floats | None
) -> Matrix:
    """(g, K) posteriors of the samples `rows[graded]`, by fits that have not seen their grades."""
    found = np.empty((len(graded), z.shape[1]))
    fold = np.arange(len(graded)) % _FOLDS
    kept = [point for point in points if point.weight > 0]
    for number in range(_FOLDS):
        out = graded[fold == number]
        if not len(out):
            continue
        grades = data.grades.copy()
        grades[rows[out]] = UNRATED
        prior = _prior(data.ratings, grades, weights, z.shape[1])
        again = joint.fit(z, data.ratings[rows], grades[rows], prior, starts=kept)
        found[fold == number] = joint.posterior(again, z[out], data.ratings[rows[out]])
    return found


def _reasons(data: _Data, fitted: Fitted, assume: Assumption) -> list[str]:
    """Why nothing can be said, in plain words; empty where something can."""
    raters, graded = data.ratings.shape[1], int((data.grades != UNRATED).sum())
    if graded >= FEW_GRADES:
        return []
    if not fitted.informative:
        return [
            "neighbours and embedding say next to nothing about the ratings: near samples do not share true scores in "
            "this embedding, or the ratings do not follow the texts, or there are too few of them"
        ]
    if assume == "cautious" and raters > 1:
        own = sum(point.weight * own_share_of(point, data.near.prior) for point in fitted.points)
        if own > MOST_OWN_SHARE_OF_SEVERAL:
            return [
                f"raters agree with each other against the neighbourhood for {own:.0%} of the samples: errors that "
                "they share cannot be told from true differences"
            ]
    possible = [p for p in fitted.points if p.own_share > MOST_OWN_SHARE and p.weight > 0]
    if raters == 1 and assume == "cautious" and sum(point.weight for point in possible) > _PLAUSIBLE:
        most = max(point.own_share for point in possible)
        return [
            f"the ratings fit as well if {most:.0%} of the samples differ in quality from their neighbourhood: one "
            "rater's errors cannot be told from such differences"
        ]
    return []


def _posteriors(data: _Data, fitted: Fitted, told: bool, options: _Options) -> Curated:
    """What the model says of every sample, block by block.

    Where errors cannot be told, ratings stay and nothing is said of them. Samples without one still get what their
    surroundings say: how the raters would probably rate them, without a probability that this is right.
    """
    n, raters = data.ratings.shape
    result = Curated(
        raw=data.raw,
        score=data.raw.copy(),
        flagged=np.zeros(n, bool),
        suggested=data.raw.copy(),
        confidence=np.full(n, np.nan, np.float32),
        error_probability=np.full((n, raters), np.nan, np.float32),
        raw_error=np.full(n, np.nan, np.float32),
        mean=np.full(n, np.nan, np.float32),
        posterior=np.full((n, options.classes), np.nan, np.float32),
    )
    assert result.mean is not None
    assert result.posterior is not None
    for rows in data.view.blocks(np.arange(n)):
        z = _given(data, fitted.informative, rows)
        own, grades, raw = data.ratings[rows], data.grades[rows], data.raw[rows]
        rated, here = raw != UNRATED, np.arange(len(rows))
        if told:
            seen = fitted.calibration(joint.posterior(fitted.points, z, own), raw)
            seen *= joint.likelihood_of(grades, options.classes)
            seen /= seen.sum(1, keepdims=True)
        else:
            seen = z @ data.near.own
        known = (told & (rated | (grades != UNRATED))) | (~rated & _informed(data, fitted.informative, rows))
        seen[~known] = np.nan
        top = np.nan_to_num(seen, nan=-1.0).argmax(1).astype(np.int8)
        place = np.maximum(raw, 0)
        top = np.where(rated & ~(seen[here, top] > seen[here, place]), raw, top)
        others = _doubting(data, fitted, z, own) if told else []
        score = _scores(seen, raw, options, others)
        result.flagged[rows] = rated & (top != raw)
        result.suggested[rows] = np.where(known | rated, top, UNRATED)
        result.score[rows] = score
        result.mean[rows] = seen @ np.arange(options.classes)
        result.posterior[rows] = seen
        if told:
            result.confidence[rows] = seen[here, np.where(score != UNRATED, score, top)]
            result.raw_error[rows] = np.where(rated, 1 - seen[here, place], np.nan)
            wrong = 1 - np.take_along_axis(seen, np.maximum(own, 0).astype(np.intp), 1)
            result.error_probability[rows] = np.where(own != UNRATED, wrong, np.nan)
    return result


def _believable(data: _Data, result: Curated, options: _Options) -> bool:
    """Whether one rater alone, without grades, would keep most of its ratings."""
    graded = int((data.grades != UNRATED).sum())
    if options.assume != "cautious" or data.ratings.shape[1] > 1 or graded >= FEW_GRADES:
        return True
    rated = data.raw != UNRATED
    return float((result.score[rated] != data.raw[rated]).mean()) <= _MOST_CHANGED


def _keep_ratings(data: _Data, result: Curated) -> None:
    """Take corrections back; what is known of every sample stays."""
    assert result.posterior is not None
    ungraded = np.flatnonzero((data.raw != UNRATED) & (data.grades == UNRATED))
    result.score[ungraded] = data.raw[ungraded]
    result.confidence[ungraded] = result.posterior[ungraded, data.raw[ungraded]]


def _given(data: _Data, informative: bool, rows: Ints) -> Matrix:
    """(m, K) P(z | surroundings) of `rows`; the prior where surroundings say nothing."""
    if not informative:
        return np.tile(data.near.prior, (len(rows), 1))
    return data.near.of(data.view, data.codes, rows, data.predicted)


def _informed(data: _Data, informative: bool, rows: Ints) -> NDArray[np.bool_]:
    """Which of `rows` have surroundings that say something."""
    if not informative or data.predicted is not None:
        return np.full(len(rows), informative)
    samples, _ = data.view.lists(rows, 1)
    found: NDArray[np.bool_] = samples[:, 0] >= 0
    return found


def _doubting(data: _Data, fitted: Fitted, z: Matrix, ratings: NDArray[np.int8]) -> list[Matrix]:
    """Posteriors by other accounts of the same ratings; none where there is one rater, or grades tell.

    Where raters agree against the neighbourhood, they may only share errors, or all of it may be true differences.
    """
    if ratings.shape[1] == 1 or (data.grades != UNRATED).sum() >= FEW_GRADES:
        return []
    true = [point.all_true() for point in fitted.points]
    return [joint.posterior(fitted.points, z, ratings, trust=_TRUST), joint.posterior(true, z, ratings)]


def _scores(
    posterior: Matrix, raw: NDArray[np.int8], options: _Options, others: Sequence[Matrix] = ()
) -> NDArray[np.int8]:
    if options.assume == "cautious":
        return chosen(posterior, raw, threshold=options.confidence, fill=options.fill, others=others)
    # The premise is taken for true, and so are its probabilities: the most probable class is right most often.
    top = np.nan_to_num(posterior, nan=-1.0)
    best, most = top.argmax(1), top.max(1)
    change = np.where(raw == UNRATED, options.fill, most > top[np.arange(len(raw)), np.maximum(raw, 0)])
    change &= (most >= options.confidence) & (most >= 0)
    return np.where(change, best, raw).astype(np.int8)


def _held_out(data: _Data, fitted: Fitted, result: Curated, options: _Options) -> _HeldOut:
    """The graded samples' scores and posteriors without their own grades: calibrated by the other folds, too."""
    assert result.posterior is not None
    graded = np.flatnonzero(data.grades != UNRATED)
    fold = np.arange(len(graded)) % _FOLDS
    score, posterior = result.score.copy(), result.posterior.copy()
    raw, grades = data.raw[graded], data.grades[graded]
    for number in range(_FOLDS):
        out = fold == number
        if not out.any() or out.all():
            continue
        scale = calibration.fit(fitted.crossed[~out], raw[~out], grades[~out])
        seen = scale(fitted.crossed[out], raw[out])
        posterior[graded[out]] = seen
        score[graded[out]] = _scores(seen, raw[out], options)
    return _HeldOut(graded, score, posterior)


@dataclass(frozen=True)
class _HeldOut:
    """Scores (n,) and posteriors (n, K); those of the samples `graded` are made without their own grades."""

    graded: NDArray[np.intp]
    score: NDArray[np.int8]
    posterior: NDArray[np.float32]

    def shown(self, data: _Data, weights: Floats | None) -> bool:
        """Whether grades show that curation brings rated samples nearer to the truth.

        Neither the share of right scores nor the mean error is worse, and one of them is better by a standard error.
        Where there are weights, grades of samples that were not drawn at random show nothing: these were chosen because
        their scores are doubtful, or wrong.
        """
        rows = self.graded[data.raw[self.graded] != UNRATED]
        if weights is not None:
            rows = rows[np.isfinite(weights[rows])]
        each = np.ones(len(rows)) if weights is None else weights[rows]
        true, raw, score = (values[rows].astype(int) for values in (data.grades, data.raw, self.score))
        right = each * ((score == true).astype(float) - (raw == true))
        nearer = each * (np.abs(raw - true).astype(float) - np.abs(score - true))
        better = [float(gain.sum() / max(np.sqrt((gain**2).sum()), 1e-9)) for gain in (right, nearer)]
        return min(better) >= 0 and max(better) >= 1

    def measured(self, data: _Data, score: NDArray[np.int8], weights: Floats | None) -> dict[str, Any]:
        """What the grades say of raw scores and of `score` (n,), and of the confidence in it."""
        here = self.graded[score[self.graded] != UNRATED]
        said = self.posterior[here, score[here]]
        found = honest.honest_error(
            data.grades,
            data.raw,
            score,
            weights=weights,
            predicted=honest.predictions(self.posterior, data.raw, score),
        )
        return found | {"reliability": honest.reliability(said, score[here] == data.grades[here])}
