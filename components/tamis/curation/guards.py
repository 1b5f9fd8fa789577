"""Rules that leave ratings unchanged if the data do not justify corrections, and the reasons for it."""

from __future__ import annotations

import numpy as np

from tamis.curation import honest
from tamis.curation.calibration import FEW_GRADES
from tamis.curation.classes import UNRATED
from tamis.curation.fitting import Fitted
from tamis.curation.held_out import HeldOut
from tamis.curation.known import Known
from tamis.curation.result import Curated
from tamis.curation.scoring import MOST_OWN_SHARE_OF_SEVERAL, Assumption, Options

NOT_NEARER = (
    "the grades do not show that corrections bring scores closer to the truth, so no rating of an ungraded sample was "
    "changed"
)
UNBELIEVABLE = (
    "according to the neighbours, most ratings of this rater would be wrong. A single rater is not corrected that "
    "much, because real differences between near samples look the same as errors"
)
_EXPECTED_ERROR = 0.07  # of the gain that the model expects of its own corrections
_MOST_CHANGED = 0.5  # share of one rater's ratings that may change without grades
# With one rater and no grades: if the share of samples with a class of their own exceeds the first number with a
# probability above the second, errors cannot be distinguished from true differences.
_MOST_OWN_SHARE, _PLAUSIBLE = 0.5, 0.05


def reasons(known: Known, fitted: Fitted, assume: Assumption) -> list[str]:
    """The reasons why nothing can be corrected, as sentences; empty if corrections are possible."""
    if len(known.graded) >= FEW_GRADES:
        return []
    if len(np.unique(known.ratings[known.ratings != UNRATED])) == 1:
        return ["all ratings are equal"]
    if not known.informative:
        return [
            "neighbours and embedding hardly predict the ratings: near samples do not share true scores in this "
            "embedding, the ratings do not depend on the texts, or there are too few ratings"
        ]
    if assume == "cautious" and not known.alone:
        own = fitted.own_share(known.near.prior)
        if own > MOST_OWN_SHARE_OF_SEVERAL:
            return [
                f"for {own:.0%} of the samples, the raters agree with each other but not with the ratings of similar "
                "samples. They may share errors; only human grades can show that"
            ]
    possible = [p for p in fitted.points if p.own_share > _MOST_OWN_SHARE and p.weight > 0]
    if known.alone and assume == "cautious" and sum(point.weight for point in possible) > _PLAUSIBLE:
        most = max(point.own_share for point in possible)
        return [
            f"similar samples have very different ratings: up to {most:.0%} of the samples may differ in quality "
            "from their neighbours. The data of one rater cannot show whether the ratings are wrong or the samples "
            "really differ"
        ]
    return []


def believable(known: Known, result: Curated, options: Options) -> bool:
    """Whether a single rater without grades keeps most of its ratings."""
    if options.assume != "cautious" or not known.alone or len(known.graded) >= FEW_GRADES:
        return True
    rated = known.raw != UNRATED
    return float((result.score[rated] != known.raw[rated]).mean()) <= _MOST_CHANGED


def nearer(known: Known, result: Curated, apart: HeldOut) -> bool:
    """Whether grades show that curation brings the scores of rated samples closer to the truth.

    Neither the share of right scores nor the mean error may be worse, and one of them must be better by a standard
    error. Each gain on the graded samples, computed without their own grades, is combined with the model's expectation
    for all samples, which counts as an estimate with a standard error of `_EXPECTED_ERROR`. Only grades of samples that
    were drawn at random are used.
    """
    here = np.isin(apart.graded, known.drawn) & (known.raw[apart.graded] != UNRATED)
    rows = apart.graded[here]
    if not len(rows):
        return False
    each = np.ones(len(rows)) if known.weights is None else np.asarray(known.weights[rows], np.float64)
    true, raw = known.grades[rows].astype(int), known.raw[rows].astype(int)
    score = apart.score[here].astype(int)
    right = (score == true).astype(float) - (raw == true)
    closer = np.abs(raw - true).astype(float) - np.abs(score - true)
    better = []
    for gain, expected in zip((right, closer), expected_gains(known, result), strict=True):
        # Add one sample with a gain or loss of one, so that a few equal gains do not look certain.
        error = float(np.sqrt((each**2 * gain**2).sum() + each.mean() ** 2)) / each.sum()
        trust = np.array([1 / error**2, 1 / _EXPECTED_ERROR**2])
        better.append(float(trust @ [(each * gain).sum() / each.sum(), expected] / np.sqrt(trust.sum())))
    return min(better) >= 0 and max(better) >= 1


def expected_gains(known: Known, result: Curated) -> tuple[float, float]:
    """The increase of the share of right scores and the decrease of the mean error that the model expects.

    Only of samples without a grade: those with one become right by their grade.
    """
    assert result.posterior is not None
    expected = honest.predictions(result.posterior, known.raw, result.score)
    here = (known.raw != UNRATED) & (known.grades == UNRATED)
    if not here.any():
        return 0.0, 0.0
    right, closer = (
        (expected[f"{first}_{measure}"] - expected[f"{second}_{measure}"])[here]
        for first, second, measure in (("curated", "raw", "right"), ("raw", "curated", "error"))
    )
    return float(right.mean()), float(closer.mean())
