"""Scores of graded samples that were computed without their own grades, and estimates from these grades."""

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
    """Results for g graded samples, computed without their own grades.

    Attributes:
        graded: (g,) the samples.
        score: (g,) score classes, -1 if there is none.
        posterior: (g, K) probabilities of each true class; NaN if unknown.
    """

    graded: NDArray[np.intp]
    score: NDArray[np.int8]
    posterior: NDArray[np.float32]

    def in_place(self, score: NDArray[np.int8]) -> NDArray[np.int8]:
        """`score` (n,) of all samples, with the graded samples' scores replaced by those here."""
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
        """Estimates from `grades` (n,) with `weights` of the errors of `raw` and curated scores, and of calibration.

        `score` (n,) and `posterior` (n, K) are those of all samples; those here replace them for graded samples.
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
