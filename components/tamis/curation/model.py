"""Curation with one model of everything known about a sample: `exact` mode, and the function for arrays.

    from tamis.curation import curate
    result = curate(ratings, indices, distances, embeddings=vectors)
    result.score, result.confidence, result.diagnosis["warnings"]

`surroundings` models a sample's neighbours, `joint` combines them with its own ratings and human grades, and `choice`
turns probabilities into scores. See the README.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tamis.core.errors import InputError
from tamis.curation import guards, joint, own_grades, scoring, surroundings
from tamis.curation.arrays import Arrays
from tamis.curation.calibration import FEW_GRADES
from tamis.curation.classes import UNRATED
from tamis.curation.explaining import Findings, diagnosis_of
from tamis.curation.fitting import Fitted, fit
from tamis.curation.inputs import checked_arrays
from tamis.curation.known import Known, centred, folds_of, prior_of, rounded_mean, standardized
from tamis.curation.neighborhoods import Floats, Ints, Neighborhoods, copy_groups
from tamis.curation.regression import Regression, predict
from tamis.curation.result import Curated
from tamis.curation.scoring import Assumption, Options

COPY_DISTANCE = 1e-5
FIT_SAMPLES = 20_000
_ROUGH_SAMPLES = 3_000
_SURE = 2.33  # standard errors above which the held-out gain counts: 1 % by chance


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
    reachable: NDArray[np.bool_] | None = None,
    keep_posterior: bool = True,
) -> Curated:
    """Find and correct the errors of raters (section 3 of the paper, arXiv 2410.10877; the model is in the README).

    Args:
        ratings: (n,) or (n, R) integer score classes 0..classes-1 of R raters, -1 if there is no rating.
        indices: (n, k) integers, each sample's nearest neighbours, nearest first, itself excluded.
        distances: (n, k) cosine distances to them, ascending.
        embeddings: (n, d) vectors for a cross-fitted regression; read block by block, so they may be memory-mapped.
        covariates: (n,) or (n, c) numbers that may influence ratings, such as log lengths, NaN if unknown; they are
            used in the regression, and their effects are in the diagnosis.
        covariate_names: their names in the diagnosis; numbers if not given.
        grades: (n,) human grades as true classes, -1 if there is none.
        grade_weights: (n,) 1 / the probability that a sample was drawn for grading, NaN if it was chosen for another
            reason: its grade is used, but neither for the frequency of classes nor to judge corrections. None: all
            count as drawn with equal probability.
        classes: number K of score classes.
        assume: "cautious" corrects only what the data can show; "clusterable" assumes that near samples share their
            true score (definition 3.2), which one rater's ratings cannot show.
        confidence: a rating is changed only to a class with at least this probability, 0..1.
        fill_missing: whether samples without a rating get their most probable class as score.
        neighbors: number of neighbours used for each sample; "auto" uses all, weighted by their distance.
        copy_distance: samples this close are copies. They are not each other's neighbours, and one of them counts in
            statistics. None treats copies like other neighbours.
        fit_samples: most samples that the model is fitted to, in addition to graded ones; all get a posterior.
        reachable: (R, K) classes for which each rater's scale has ratings; None: all.
        keep_posterior: whether the result includes the (n, K) posterior.

    Returns:
        Scores (n,), real-valued `mean` (n,), `posterior` (n, K), `confidence` (n,) that the score is right and
        `error_probability` (n, R), with a diagnosis of plain JSON values: "explained", "warnings", "advice", "T" and
        more (see the README). If the data cannot distinguish errors from true differences, ratings stay unchanged and
        probabilities are NaN.

    Raises:
        InputError: when shapes do not match, a number is out of range or not finite, or nothing is rated.
    """
    from threadpoolctl import threadpool_limits

    options = Options(classes, assume, confidence, fill_missing)
    arrays = checked_arrays(
        ratings,
        indices,
        distances,
        classes=classes,
        embeddings=embeddings,
        covariates=covariates,
        grades=grades,
        grade_weights=grade_weights,
        reachable=reachable,
    )
    _check_options(options, neighbors, fit_samples)
    # The matrices are narrow: threads cost more than they save, and their number would change the last bits.
    with threadpool_limits(limits=1, user_api="blas"):
        known, regression = _known(arrays, options, covariate_names, neighbors, copy_distance, fit_samples)
        result = _curate(known, regression, options, fit_samples, arrays)
    if not keep_posterior:
        result.posterior = None
    return result


def _check_options(options: Options, neighbors: int | Literal["auto"], fit_samples: int) -> None:
    integer = (int, np.integer)
    whole = isinstance(fit_samples, integer) and (neighbors == "auto" or isinstance(neighbors, integer))
    positive = whole and fit_samples >= 1 and (neighbors == "auto" or neighbors >= 1)
    if not (0 <= options.confidence <= 1 and positive):
        raise InputError(
            f"confidence is {options.confidence}, fit_samples {fit_samples} and neighbors {neighbors}",
            allowed='confidence of 0..1, fit_samples and neighbors of 1 or more, or "auto" neighbors',
        )
    if options.assume not in get_args(Assumption):
        raise InputError(f"assume is {options.assume!r}", allowed=", ".join(get_args(Assumption)))


def _known(
    arrays: Arrays,
    options: Options,
    covariate_names: Sequence[str] | None,
    neighbors: int | Literal["auto"],
    copy_distance: float | None,
    fit_samples: int,
) -> tuple[Known, Regression | None]:
    """The data on every sample, with the fitted model of its surroundings, and the regression."""
    ratings, indices, distances = arrays.ratings, arrays.indices, arrays.distances
    assert arrays.grades is not None
    raw = rounded_mean(ratings)
    groups = None if copy_distance is None else copy_groups(indices, distances, copy_distance)
    view = Neighborhoods(raw, indices, distances, groups)
    regression = None
    if arrays.embeddings is not None or arrays.covariates is not None:
        fold = folds_of(len(ratings), groups)
        regression = predict(centred(ratings), view, arrays.embeddings, arrays.covariates, fold, covariate_names)
    observed = surroundings.Observations(
        view,
        ratings,
        standardized(regression, raw),
        prior=prior_of(ratings, arrays.grades, arrays.grade_weights, options.classes),
        k=view.k if neighbors == "auto" else min(neighbors, view.k),
    )
    near = surroundings.fit(observed, view.sample(min(_ROUGH_SAMPLES, fit_samples)), view.sample(fit_samples))
    return Known(
        view=view,
        ratings=ratings,
        codes=observed.codes,
        raw=raw,
        grades=arrays.grades,
        weights=arrays.grade_weights,
        near=near,
        predicted=observed.predicted,
        informative=near.gain > _SURE * near.gain_error and len(np.unique(ratings[ratings != UNRATED])) > 1,
    ), regression


def _curate(known: Known, regression: Regression | None, options: Options, fit_samples: int, arrays: Arrays) -> Curated:
    assert arrays.reachable is not None
    shares = joint.CLUSTERABLE if options.assume == "clusterable" else joint.OWN_SHARES
    fitted = fit(known, shares, known.near.prior, fit_samples)
    result, reasons = _scored(known, fitted, options)
    held_out, notes = _held_out(known, fitted, options, result, reasons)
    own_grades.apply(result, known.grades, known.ratings, options.classes)
    found = Findings(known, fitted, regression, reasons, options.assume, notes, held_out, arrays.reachable)
    result.diagnosis = diagnosis_of(found, result, options.classes)
    return result


def _scored(known: Known, fitted: Fitted, options: Options) -> tuple[Curated, list[str]]:
    """The model's results, and the reasons why nothing was corrected; without reasons, scores are corrected."""
    reasons = guards.reasons(known, fitted, options.assume)
    result = scoring.posteriors(known, fitted, not reasons, options)
    if not reasons and not guards.believable(known, result, options):
        reasons = [guards.UNBELIEVABLE]
        result = scoring.posteriors(known, fitted, False, options)
    return result, reasons


def _held_out(
    known: Known, fitted: Fitted, options: Options, result: Curated, reasons: Sequence[str]
) -> tuple[dict[str, Any] | None, list[str]]:
    """Estimates from held-out grades, None if there are none, and notes for the user.

    Sets `result.held_out`. If enough grades do not support the corrections, these are undone.
    """
    if not len(known.graded):
        return None, []
    enough = len(known.graded) >= FEW_GRADES
    if reasons:
        result.held_out = scoring.as_they_are(known, result)
        return None, [] if enough else [own_grades.too_few(len(known.graded))]
    notes = []
    apart = scoring.held_out(known, fitted, result, options)
    if options.assume == "cautious" and enough and not guards.nearer(known, result, apart):
        scoring.keep_ratings(known, result)
        raw = known.raw[apart.graded]
        apart = replace(apart, score=np.where(raw == UNRATED, apart.score, raw))
        notes = [guards.NOT_NEARER]
    result.held_out = apart
    if not len(known.drawn):
        return None, notes
    assert result.posterior is not None
    return apart.measured(known.grades, known.weights, known.raw, result.score, result.posterior), notes
