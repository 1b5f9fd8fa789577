"""When it is enough: too many samples without an answer, or the money is spent."""

from __future__ import annotations

from dataclasses import dataclass

from tamis.core.errors import ModelError
from tamis.core.llm.asking import Record
from tamis.core.llm.backend import Size
from tamis.core.llm.settings import PriceSettings
from tamis.core.llm.tally import Tally


@dataclass(frozen=True)
class Allowance:
    """What is tolerated and what may be spent.

    Attributes:
        max_failure_share: most of the samples that may get no answer.
        price: of tokens, where it is known.
        max_cost: most money for all samples.
        max_cost_is: what the user is told that this is.
    """

    max_failure_share: float
    price: PriceSettings | None = None
    max_cost: float | None = None
    max_cost_is: str = "max_cost"


@dataclass(frozen=True)
class Words:
    """What errors call things, as in "rater 'x': 3 of 10 samples got no rating"."""

    who: str
    samples: str
    answer: str
    answered: str


class Budget:
    """Watches the failures and the cost of asking.

    Args:
        allowance: the limits.
        words: for errors.
        samples: that are to be asked about in all.
        tally: of the records so far; those of earlier runs count as well, so that a killed run does not begin anew.
    """

    def __init__(self, allowance: Allowance, words: Words, samples: int, tally: Tally) -> None:
        self._allowance, self._words, self._samples, self._tally = allowance, words, samples, tally
        self._expected = 0.0  # cost of a sample before any is answered
        self._paid, self._answered = 0.0, 0  # by this run
        self._spent = False  # the money stopped the run; what was under way then may have cost less than thought

    def expect(self, sizes: list[Size]) -> None:
        """Learn from samples what one is going to cost."""
        price = self._allowance.price
        if price is not None and sizes:
            costs = [price.of(size.prompt_tokens, size.completion_tokens) for size in sizes]
            self._expected = max(self._expected, sum(costs) / len(costs))

    def count(self, record: Record) -> None:
        """Count a record of this run, which the tally has as well."""
        self._answered += 1
        if self._allowance.price is not None:
            self._paid += self._allowance.price.of(record.prompt_tokens or 0, record.completion_tokens or 0)

    @property
    def cost(self) -> float | None:
        """Of all answers so far; None where no price is known."""
        price = self._allowance.price
        return None if price is None else price.of(self._tally.prompt_tokens, self._tally.completion_tokens)

    def note(self) -> str:
        """The cost for the progress, and what it will be at the end."""
        if self.cost is None or not self._answered:
            return ""
        left = self._samples - self._tally.total
        return f"cost {self.cost:.2f}, in all {self.cost + left * self._paid / self._answered:.2f}"

    def reached(self, waiting: int) -> bool:
        """Whether no further sample may be asked, while `waiting` are being answered."""
        self._spent = self._spent or self._too_expensive(waiting)
        return self._spent or self._too_many_failures

    @property
    def _too_many_failures(self) -> bool:
        return self._tally.failures > self._allowance.max_failure_share * self._samples

    def _too_expensive(self, waiting: int) -> bool:
        most, cost = self._allowance.max_cost, self.cost
        if most is None or cost is None or self._tally.total >= self._samples:
            return False  # all are answered
        one = self._paid / self._answered if self._answered >= 100 else self._expected
        return cost + (waiting + 1) * one > most

    def check(self) -> None:
        """Raise if a limit was what ended the run.

        Raises:
            ModelError: with what was reached.
        """
        words, allowance, tally = self._words, self._allowance, self._tally
        if self._too_many_failures:
            raise ModelError(
                f"{words.who}: {tally.failures} of {self._samples} {words.samples} got no {words.answer}\n"
                f"{tally.table_of_errors()}",
                allowed=f"{allowance.max_failure_share:.1%} of the {words.samples} (max_failure_share)",
                action=f"remove the cause, or raise max_failure_share; {words.answer}s that are finished stay in the "
                "store",
            )
        if self._spent:
            raise ModelError(
                f"{words.who}: {tally.total} of {self._samples} {words.samples} are {words.answered} and cost "
                f"{self.cost:.4f}; another would cost too much",
                allowed=f"{allowance.max_cost} ({allowance.max_cost_is})",
                action=f"raise max_cost to go on; {words.answer}s that are finished stay in the store",
            )
