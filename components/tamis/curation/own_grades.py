"""A graded sample's score is its own grade."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tamis.curation import joint
from tamis.curation.calibration import FEW_GRADES
from tamis.curation.classes import UNRATED
from tamis.curation.flagging import flag
from tamis.curation.result import Curated


def apply(result: Curated, grades: NDArray[np.int8], ratings: NDArray[np.int8], classes: int) -> None:
    """Give every graded sample its grade as score, in place, with the probabilities that go with it.

    If the model has used the grade and the grade is the most probable class, the model's probabilities stay. Otherwise
    they follow from the grade alone, since graders rarely err (`joint.likelihood_of`). Estimates of how far scores are
    from grades must use the scores before this step, or held-out ones.

    Args:
        result: the result of n samples, with its posterior.
        grades: (n,) true classes, -1 if there is no grade.
        ratings: (n, R) classes, -1 if there is none.
        classes: number K of score classes.
    """
    assert result.posterior is not None
    assert result.mean is not None
    rows = np.flatnonzero(grades != UNRATED)
    if not len(rows):
        return
    grade, here = grades[rows].astype(np.intp), np.arange(len(rows))
    seen = joint.likelihood_of(grades[rows], classes)
    seen /= seen.sum(1, keepdims=True)
    modelled = result.posterior[rows]
    kept = np.isfinite(result.confidence[rows]) & (np.nan_to_num(modelled, nan=-1.0).argmax(1) == grade)
    seen[kept] = modelled[kept]
    result.posterior[rows] = seen
    result.score[rows] = result.suggested[rows] = grades[rows]
    raw = result.raw[rows]
    rated = raw != UNRATED
    result.flagged[rows], _ = flag(raw, grades[rows], np.ones(len(rows)), np.zeros(len(rows)))
    result.confidence[rows] = seen[here, grade]
    result.raw_error[rows] = np.where(rated, 1 - seen[here, np.maximum(raw, 0)], np.nan)
    result.mean[rows] = seen @ np.arange(classes)
    own = ratings[rows]
    wrong = 1 - np.take_along_axis(seen, np.maximum(own, 0).astype(np.intp), 1)
    result.error_probability[rows] = np.where(own != UNRATED, wrong, np.nan)


def too_few(graded: int) -> str:
    """The note that there are too few grades for the model to use them."""
    given = "1 grade was given" if graded == 1 else f"{graded} grades were given"
    return (
        f"{given}; fewer than {FEW_GRADES} are too few to correct other samples: they become the scores of their own "
        "samples, and are used to estimate how right the scores are"
    )
