"""Scores and probabilities of every sample from the fitted model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tamis.curation import calibration, joint
from tamis.curation.calibration import FEW_GRADES
from tamis.curation.choice import chosen
from tamis.curation.classes import UNRATED
from tamis.curation.fitting import Fitted
from tamis.curation.flagging import flag
from tamis.curation.held_out import HeldOut
from tamis.curation.known import FOLDS, Known
from tamis.curation.rater_model import Matrix
from tamis.curation.result import Curated

Assumption = Literal["cautious", "clusterable"]
_TRUST = 0.5  # least exponent of the ratings' likelihood under the assumption that raters share errors
# With several raters, nothing is corrected if more samples than this have a class of their own, because raters that
# share errors agree against neighbourhoods. The exponent falls from 1 to `_TRUST` on the way there.
MOST_OWN_SHARE_OF_SEVERAL = 0.7


@dataclass(frozen=True)
class Options:
    """The user's options; see `curate`."""

    classes: int
    assume: Assumption
    confidence: float
    fill: bool


def posteriors(known: Known, fitted: Fitted, explained: bool, options: Options) -> Curated:
    """The model's results for every sample, computed block by block.

    If `explained` is False, because the data do not show errors, ratings stay unchanged and get no probabilities.
    Samples without a rating still get a prediction from their surroundings: how the raters would probably rate them,
    without a probability that this is right.
    """
    n, raters = known.ratings.shape
    result = Curated(
        raw=known.raw,
        score=known.raw.copy(),
        flagged=np.zeros(n, bool),
        suggested=known.raw.copy(),
        confidence=np.full(n, np.nan, np.float32),
        error_probability=np.full((n, raters), np.nan, np.float32),
        raw_error=np.full(n, np.nan, np.float32),
        mean=np.full(n, np.nan, np.float32),
        posterior=np.full((n, options.classes), np.nan, np.float32),
    )
    assert result.mean is not None
    assert result.posterior is not None
    for rows in known.view.blocks(np.arange(n)):
        z = known.around(rows)
        own, grades, raw = known.ratings[rows], known.grades[rows], known.raw[rows]
        rated, here = raw != UNRATED, np.arange(len(rows))
        if explained:
            seen = fitted.calibration(joint.posterior(fitted.points, z, own), own, raw)
            seen *= joint.likelihood_of(grades, options.classes)
            seen /= seen.sum(1, keepdims=True)
        else:
            seen = z @ known.near.own
        said = (explained & (rated | (grades != UNRATED))) | (~rated & known.informed(rows))
        seen[~said] = np.nan
        top = np.nan_to_num(seen, nan=-1.0).argmax(1).astype(np.int8)
        place = np.maximum(raw, 0)
        result.flagged[rows], suggested = flag(raw, top, seen[here, top], seen[here, place])
        top = np.where(rated, suggested, top)
        others = _doubting(known, fitted, z, own) if explained else []
        score = scores(seen, raw, options, others)
        result.suggested[rows] = np.where(said | rated, top, UNRATED)
        result.score[rows] = score
        result.mean[rows] = seen @ np.arange(options.classes)
        result.posterior[rows] = seen
        if explained:
            result.confidence[rows] = seen[here, np.where(score != UNRATED, score, top)]
            result.raw_error[rows] = np.where(rated, 1 - seen[here, place], np.nan)
            wrong = 1 - np.take_along_axis(seen, np.maximum(own, 0).astype(np.intp), 1)
            result.error_probability[rows] = np.where(own != UNRATED, wrong, np.nan)
    return result


def keep_ratings(known: Known, result: Curated) -> None:
    """Undo the corrections of ungraded samples; posteriors and means stay."""
    assert result.posterior is not None
    ungraded = np.flatnonzero((known.raw != UNRATED) & (known.grades == UNRATED))
    result.score[ungraded] = known.raw[ungraded]
    result.confidence[ungraded] = result.posterior[ungraded, known.raw[ungraded]]


def _doubting(known: Known, fitted: Fitted, z: Matrix, ratings: NDArray[np.int8]) -> list[Matrix]:
    """Posteriors under other explanations of the ratings; none with one rater, or with enough grades.

    If raters agree with each other but not with the neighbourhood, they may share errors, or the differences are true.
    Shared errors look like differences from the neighbourhood: where these are few, few errors are shared.
    """
    if known.alone or len(known.graded) >= FEW_GRADES:
        return []
    true = [point.all_true() for point in fitted.points]
    own = fitted.own_share(known.near.prior)
    trust = max(_TRUST, 1 - (1 - _TRUST) * own / MOST_OWN_SHARE_OF_SEVERAL)
    return [joint.posterior(fitted.points, z, ratings, trust=trust), joint.posterior(true, z, ratings)]


def scores(
    posterior: Matrix, raw: NDArray[np.int8], options: Options, others: Sequence[Matrix] = ()
) -> NDArray[np.int8]:
    """(n,) score of each sample; with the assumption "cautious", that of `choice.chosen`."""
    if options.assume == "cautious":
        return chosen(posterior, raw, threshold=options.confidence, fill=options.fill, others=others)
    # The assumption counts as true, and so do its probabilities: the most probable class is right most often.
    top = np.nan_to_num(posterior, nan=-1.0)
    best, most = top.argmax(1), top.max(1)
    change = np.where(raw == UNRATED, options.fill, most > top[np.arange(len(raw)), np.maximum(raw, 0)])
    change &= (most >= options.confidence) & (most >= 0)
    return np.where(change, best, raw).astype(np.int8)


def held_out(known: Known, fitted: Fitted, result: Curated, options: Options) -> HeldOut:
    """The graded samples' scores and posteriors without their own grades; calibrated on the other folds as well."""
    graded = known.graded
    fold = np.arange(len(graded)) % FOLDS
    posterior, score = np.empty(fitted.crossed.shape, np.float32), np.empty(len(graded), np.int8)
    ratings, raw, grades = known.ratings[graded], known.raw[graded], known.grades[graded]
    for number in np.unique(fold).tolist():
        out = fold == number
        if out.all():
            scale = calibration.none(options.classes, known.raters)
        else:
            scale = calibration.fit(fitted.crossed[~out], ratings[~out], raw[~out], grades[~out])
        seen = scale(fitted.crossed[out], ratings[out], raw[out])
        posterior[out], score[out] = seen, scores(seen, raw[out], options)
    return HeldOut(graded, score, posterior)


def as_they_are(known: Known, result: Curated) -> HeldOut:
    """The graded samples' scores if the model used no grade."""
    assert result.posterior is not None
    return HeldOut(known.graded, result.score[known.graded], result.posterior[known.graded])
