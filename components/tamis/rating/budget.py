"""When it is enough: too many samples without a rating, or the money is spent."""

from __future__ import annotations

from tamis.core.errors import ModelError
from tamis.rating.backend import Size
from tamis.rating.records import Rating
from tamis.rating.settings import PriceSettings, RatingSettings
from tamis.rating.shards import Shard
from tamis.rating.summary import Summary


class Budget:
    """Watches the failures and the cost of one pool's ratings.

    Args:
        settings: of the rater.
        samples: that are to be rated in all.
        summary: of the ratings so far; those of earlier runs count as well, so that a killed run does not begin anew.
    """

    def __init__(self, settings: RatingSettings, samples: int, summary: Summary) -> None:
        self._settings, self._samples, self._summary = settings, samples, summary
        # The budget is the pool's; a shard has its share of it.
        shards = Shard.read(settings.shard).of if settings.shard else 1
        self._most = None if settings.max_cost is None else settings.max_cost / shards
        self._expected = 0.0  # cost of a sample before any is rated
        self._paid, self._rated = 0.0, 0  # by this run
        self._spent = False  # the money stopped the run; what was under way then may have cost less than thought

    def expect(self, sizes: list[Size]) -> None:
        """Learn from samples what one is going to cost."""
        price = self._settings.price
        if price is not None and sizes:
            costs = [price.of(size.prompt_tokens, size.completion_tokens) for size in sizes]
            self._expected = max(self._expected, sum(costs) / len(costs))

    def count(self, rating: Rating) -> None:
        """Count a rating of this run, which the summary has as well."""
        self._rated += 1
        if self._settings.price is not None:
            self._paid += cost_of(rating, self._settings.price)

    @property
    def cost(self) -> float | None:
        """Of all ratings so far; None where no price is known."""
        price = self._settings.price
        return None if price is None else price.of(self._summary.prompt_tokens, self._summary.completion_tokens)

    def note(self) -> str:
        """The cost for the progress, and what it will be at the end."""
        if self.cost is None or not self._rated:
            return ""
        left = self._samples - self._summary.total
        return f"cost {self.cost:.2f}, in all {self.cost + left * self._paid / self._rated:.2f}"

    def reached(self, waiting: int) -> bool:
        """Whether no further sample may be asked, while `waiting` are being answered."""
        self._spent = self._spent or self._too_expensive(waiting)
        return self._spent or self._too_many_failures

    @property
    def _too_many_failures(self) -> bool:
        return self._summary.failures > self._settings.max_failure_share * self._samples

    def _too_expensive(self, waiting: int) -> bool:
        most, cost = self._most, self.cost
        if most is None or cost is None or self._summary.total >= self._samples:
            return False  # all are rated
        one = self._paid / self._rated if self._rated >= 100 else self._expected
        return cost + (waiting + 1) * one > most

    def check(self) -> None:
        """Raise if a limit was what ended the run.

        Raises:
            ModelError: with what was reached.
        """
        settings, summary = self._settings, self._summary
        if self._too_many_failures:
            raise ModelError(
                f"rater '{settings.name}': {summary.failures} of {self._samples} samples got no rating\n"
                f"{summary.table_of_errors()}",
                allowed=f"{settings.max_failure_share:.1%} of the samples (max_failure_share)",
                action="remove the cause, or raise max_failure_share; ratings that are finished stay in the store",
            )
        if self._spent:
            raise ModelError(
                f"rater '{settings.name}': {summary.total} of {self._samples} samples are rated and cost "
                f"{self.cost:.4f}; another would cost too much",
                allowed=f"{self._most} (max_cost{', a shard has its share' if settings.shard else ''})",
                action="raise max_cost to go on; ratings that are finished stay in the store",
            )


def cost_of(rating: Rating, price: PriceSettings) -> float:
    """The price of a rating's tokens."""
    return price.of(rating.prompt_tokens or 0, rating.completion_tokens or 0)
