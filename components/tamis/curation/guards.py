"""When ratings stay as they are: what the data cannot tell is said instead."""

from __future__ import annotations

import numpy as np

from tamis.curation.calibration import FEW_GRADES
from tamis.curation.classes import UNRATED
from tamis.curation.fitting import Fitted
from tamis.curation.known import Known
from tamis.curation.result import Curated
from tamis.curation.scoring import Assumption, Options

NOT_NEARER = "the grades do not show that corrections bring scores nearer to the truth, so no rating was changed"
UNBELIEVABLE = (
    "by its neighbours this rater would be wrong in most of its ratings: one rater alone is not corrected that much, "
    "since near samples that differ look the same"
)
_MOST_CHANGED = 0.5  # share of one rater's ratings that may change without grades
# With one rater and no grades: where more samples than this share may have a class of their own (with at least that
# probability), its errors cannot be told from true differences.
_MOST_OWN_SHARE, _PLAUSIBLE = 0.5, 0.05
_MOST_OWN_SHARE_OF_SEVERAL = 0.7  # the same with several raters: those that share errors agree against neighbourhoods


def reasons(known: Known, fitted: Fitted, assume: Assumption) -> list[str]:
    """Why nothing can be said, in plain words; empty where something can."""
    if len(known.graded) >= FEW_GRADES:
        return []
    if len(np.unique(known.ratings[known.ratings != UNRATED])) == 1:
        return ["all ratings are equal"]
    if not known.informative:
        return [
            "neighbours and embedding say next to nothing about the ratings: near samples do not share true scores in "
            "this embedding, or the ratings do not follow the texts, or there are too few of them"
        ]
    if assume == "cautious" and known.raters > 1:
        own = sum(point.weight * point.own_share_of(known.near.prior) for point in fitted.points)
        if own > _MOST_OWN_SHARE_OF_SEVERAL:
            return [
                f"raters agree with each other against the neighbourhood for {own:.0%} of the samples: errors that "
                "they share cannot be told from true differences"
            ]
    possible = [p for p in fitted.points if p.own_share > _MOST_OWN_SHARE and p.weight > 0]
    if known.raters == 1 and assume == "cautious" and sum(point.weight for point in possible) > _PLAUSIBLE:
        most = max(point.own_share for point in possible)
        return [
            f"the ratings fit as well if {most:.0%} of the samples differ in quality from their neighbourhood: one "
            "rater's errors cannot be told from such differences"
        ]
    return []


def believable(known: Known, result: Curated, options: Options) -> bool:
    """Whether one rater alone, without grades, would keep most of its ratings."""
    if options.assume != "cautious" or known.raters > 1 or len(known.graded) >= FEW_GRADES:
        return True
    rated = known.raw != UNRATED
    return float((result.score[rated] != known.raw[rated]).mean()) <= _MOST_CHANGED
