"""What became of a pool's ratings: counts by status and by kind of error, the scores' distribution, the budget."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from tamis.core.tables import STATUSES
from tamis.rating.parsing import HIGH, LOW
from tamis.rating.records import Rating

log = logging.getLogger(__name__)


class Summary:
    """Counts ratings as they come."""

    def __init__(self) -> None:
        self._statuses: Counter[str] = Counter()
        self._errors: Counter[tuple[str, str]] = Counter()
        self._examples: dict[tuple[str, str], str] = {}
        self._overall: Counter[int] = Counter()
        self._expected, self._with_expected = 0.0, 0
        self._tokens: Counter[str] = Counter()
        self._shortened = 0

    def add(self, rating: Rating) -> None:
        """Count one rating."""
        self._statuses[rating.status] += 1
        self._tokens["prompt_tokens"] += rating.prompt_tokens or 0
        self._tokens["completion_tokens"] += rating.completion_tokens or 0
        self._shortened += rating.shortened
        if rating.overall is not None:
            self._overall[rating.overall] += 1
        else:
            error = rating.error or "no reason given"
            kind = (rating.status, error.partition(":")[0])
            self._errors[kind] += 1
            self._examples.setdefault(kind, f"{error} (sample {rating.id})")
        if rating.expected is not None:
            self._expected += rating.expected
            self._with_expected += 1

    @property
    def total(self) -> int:
        """Samples, rated or not."""
        return self._statuses.total()

    @property
    def failures(self) -> int:
        """Samples without a rating."""
        return self.total - self._statuses["ok"]

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts."""
        return self._tokens["prompt_tokens"]

    @property
    def completion_tokens(self) -> int:
        """Tokens of all answers."""
        return self._tokens["completion_tokens"]

    def table_of_errors(self) -> str:
        """One line per kind of error: how many, the status, and an example; the most frequent first."""
        ordered = sorted(self._errors.items(), key=lambda item: (-item[1], item[0]))
        return "\n".join(f"  {count:>7}  {kind[0]:<10}  {self._examples[kind]}" for kind, count in ordered)

    def facts(self) -> dict[str, Any]:
        """The counts, for the manifest."""
        rated = self._statuses["ok"]
        facts: dict[str, Any] = {status: self._statuses[status] for status in STATUSES}
        facts["errors"] = {f"{status}: {kind}": count for (status, kind), count in sorted(self._errors.items())}
        facts["overall_histogram"] = {str(score): self._overall[score] for score in range(LOW, HIGH + 1)}
        if rated:
            facts["overall_mean"] = round(sum(score * count for score, count in self._overall.items()) / rated, 4)
        if self._with_expected:
            facts["expected_mean"] = round(self._expected / self._with_expected, 4)
        if self._tokens.total():
            facts |= {"shortened": self._shortened, **self._tokens}
        return facts

    def log(self, rater: str) -> None:
        """Say how it went."""
        statuses = ", ".join(f"{self._statuses[status]} {status}" for status in STATUSES if self._statuses[status])
        counts = " ".join(f"{score}:{self._overall[score]}" for score in range(LOW, HIGH + 1))
        log.info("rater '%s': %s; overall ratings %s", rater, statuses, counts)
        if self._errors:
            log.warning("samples without a rating:\n%s", self.table_of_errors())
