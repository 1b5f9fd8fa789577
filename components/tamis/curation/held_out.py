"""Scores of graded samples that have not seen their own grades, and what the grades say of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.core.reliability import reliability
from tamis.curation import honest
from tamis.curation.classes import UNRATED
from tamis.curation.neighborhoods import Floats


@dataclass(frozen=True)
class HeldOut:
    """Of g graded samples, what curation says without their own grades.

    Attributes:
        graded: (g,) the samples.
        score: (g,) score classes, -1 where there is none.
        posterior: (g, K) probabilities of each true class; NaN where nothing is known.
    """

    graded: NDArray[np.intp]
    score: NDArray[np.int8]
    posterior: NDArray[np.float32]

    def in_place(self, score: NDArray[np.int8]) -> NDArray[np.int8]:
        """`score` (n,) of all samples, with those here in place of the graded ones'."""
        score = score.copy()
        score[self.graded] = self.score
        return score

    def measured(
        self,
        grades: NDArray[np.int8],
        weights: Floats | None,
        raw: NDArray[np.int8],
        score: NDArray[np.int8],
        posterior: NDArray[np.float32],
    ) -> dict[str, Any]:
        """What `grades` (n,) with `weights` say of `raw` scores, of curated ones, and of the confidence in these.

        `score` (n,) and `posterior` (n, K) are those of all samples; of the graded ones, these here take their place.
        """
        score, posterior = self.in_place(score), posterior.copy()
        posterior[self.graded] = self.posterior
        found = honest.honest_error(
            grades, raw, score, weights=weights, predicted=honest.predictions(posterior, raw, score)
        )
        here = np.flatnonzero(self.score != UNRATED)
        said = self.posterior[here, self.score[here]]
        calibrated = reliability(said, self.score[here] == grades[self.graded[here]])
        return found | {"reliability": None if calibrated is None else calibrated.as_json()}
