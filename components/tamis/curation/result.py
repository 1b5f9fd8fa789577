"""The results of curation for one rater, in every mode."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.curation.classes import UNRATED
from tamis.curation.held_out import HeldOut


@dataclass
class Curated:
    """Curated scores of one rater, or of several together.

    Attributes:
        raw: (n,) int8 score classes as rated, the raters' mean rounded half up; -1 if there is no rating.
        score: (n,) int8 score classes after curation; -1 if nothing is known.
        flagged: (n,) bool, whether another class is more probable than the raw score.
        suggested: (n,) int8 most probable class; -1 if nothing is known.
        confidence: (n,) float32 probability that `score` is right, or `suggested` for samples without a score; NaN if
            the data cannot show it. In modes without a model it belongs to `suggested`.
        error_probability: (n, R) float32 probability that each rater's rating is wrong, NaN if there is none; (n,) in
            modes for a single rater.
        raw_error: (n,) float32 probability that the raw score is wrong; NaN if there is none.
        diagnosis: how the scores were made, as JSON values.
        mean: (n,) float32 posterior mean of the true class, 0..K-1; NaN if nothing is known; None in modes without a
            posterior.
        posterior: (n, K) float32 probabilities of each true class; NaN if nothing is known; None if not kept.
        held_out: results for graded samples without their own grades; None if there are none, or in modes that do not
            use grades.
    """

    raw: NDArray[np.int8]
    score: NDArray[np.int8]
    flagged: NDArray[np.bool_]
    suggested: NDArray[np.int8]
    confidence: NDArray[np.float32]
    error_probability: NDArray[np.float32]
    raw_error: NDArray[np.float32]
    diagnosis: dict[str, Any] = field(default_factory=dict)
    mean: NDArray[np.float32] | None = None
    posterior: NDArray[np.float32] | None = None
    held_out: HeldOut | None = None

    def means(self) -> NDArray[np.float32]:
        """Real-valued scores for ranking: (n,) float32, the posterior mean, otherwise the score; NaN if neither."""
        scores = np.where(self.score == UNRATED, np.nan, self.score).astype(np.float32)
        return scores if self.mean is None else np.where(np.isnan(self.mean), scores, self.mean)

    def of(self, rows: NDArray[np.intp]) -> Curated:
        """The scores of some samples."""
        return Curated(
            self.raw[rows],
            self.score[rows],
            self.flagged[rows],
            self.suggested[rows],
            self.confidence[rows],
            self.error_probability[rows],
            self.raw_error[rows],
        )


def decide(
    raw: NDArray[np.int8],
    flagged: NDArray[np.bool_],
    suggested: NDArray[np.int8],
    confidence: NDArray[np.float32],
    error_probability: NDArray[np.float32],
    *,
    threshold: float,
    fill_missing: bool = False,
) -> Curated:
    """Correct flagged scores whose suggestion has at least `threshold` confidence; keep all other scores."""
    sure = (suggested != UNRATED) & (np.nan_to_num(confidence) >= threshold)
    score = np.where(flagged & sure, suggested, raw)
    if fill_missing:
        score = np.where((raw == UNRATED) & sure, suggested, score)
    return Curated(raw, score, flagged, suggested, confidence, error_probability, error_probability)
