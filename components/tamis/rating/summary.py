"""A summary of ratings: counts by status and by kind of error, and the distribution of scores."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from tamis.core.scales import HIGHEST, LOWEST
from tamis.core.tables import NOT_ASKED, STATUSES
from tamis.llm.tally import Tally
from tamis.rating.records import Rating

log = logging.getLogger(__name__)


class Summary(Tally[Rating]):
    """Counts ratings as they arrive."""

    def __init__(self) -> None:
        super().__init__()
        self._overall: Counter[int] = Counter()
        self._expected, self._with_expected = 0.0, 0
        self._shortened = self._not_asked = 0
        self._lenient: Counter[str] = Counter()

    def add(self, rating: Rating) -> None:
        """Count one rating. Samples that are not rated by choice are counted, but not as failures."""
        if rating.status == NOT_ASKED:
            self._not_asked += 1
            return
        super().add(rating)
        self._shortened += rating.shortened
        self._lenient.update(rating.lenient.split(", ") if rating.lenient else ())
        if rating.overall is not None:
            self._overall[rating.overall] += 1
        if rating.expected is not None:
            self._expected += rating.expected
            self._with_expected += 1

    def facts(self) -> dict[str, Any]:
        """The counts, for the manifest."""
        rated = self.statuses["ok"]
        facts: dict[str, Any] = {status: self.statuses[status] for status in STATUSES}
        facts[NOT_ASKED] = self._not_asked
        facts["errors"] = {f"{status}: {kind}": count for (status, kind), count in sorted(self.errors.items())}
        facts["lenient"] = dict(sorted(self._lenient.items()))
        facts["overall_histogram"] = {str(score): self._overall[score] for score in range(LOWEST, HIGHEST + 1)}
        if rated:
            facts["overall_mean"] = round(sum(score * count for score, count in self._overall.items()) / rated, 4)
        if self._with_expected:
            facts["expected_mean"] = round(self._expected / self._with_expected, 4)
        if self.tokens.total():
            facts |= {"shortened": self._shortened, **self.tokens}
        return facts

    def log(self, rater: str) -> None:
        """Log the counts."""
        counts = {status: self.statuses[status] for status in STATUSES} | {"not asked": self._not_asked}
        statuses = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        scores = " ".join(f"{score}:{self._overall[score]}" for score in range(LOWEST, HIGHEST + 1))
        log.info("rater '%s': %s; overall ratings %s", rater, statuses, scores)
        if self._lenient:
            log.info(
                "rater '%s': answers that were accepted although their form was wrong: %s",
                rater,
                ", ".join(f"{count} {name}" for name, count in self._lenient.items()),
            )
        if self.errors:
            log.warning("samples without a rating:\n%s", self.table_of_errors())
