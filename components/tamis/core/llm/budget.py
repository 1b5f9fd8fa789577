"""When it is enough: too many samples without an answer, or the money is spent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tamis.core.errors import ModelError
from tamis.core.llm.backend import Answer, Request, Size
from tamis.core.llm.settings import PriceSettings
from tamis.core.llm.tally import TOKENS, Tally

_TO_LEARN = 20  # answers after which sizes are corrected by what was paid


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

    Every attempt is counted as its answer is read, also those that another one follows. A request is let through only
    if its own cost still fits, beside that of all that are under way.

    Args:
        allowance: the limits.
        words: for errors.
        samples: that are to be asked about in all.
        tally: of the records so far; those of earlier runs count as well, so that a killed run does not begin anew.
        reused: samples of which an earlier run's record counts.
        measure: gives the sizes of texts.
        before: tokens that earlier runs took for these samples, finished or not: `prompt_tokens`, `completion_tokens`.
    """

    def __init__(
        self,
        allowance: Allowance,
        words: Words,
        samples: int,
        tally: Tally,
        *,
        reused: int,
        measure: Callable[[Sequence[str]], list[Size]],
        before: Mapping[str, int],
    ) -> None:
        self._allowance, self._words, self._samples, self._tally = allowance, words, samples, tally
        self._reused, self._measure = reused, measure
        self._before = self._price(*(before.get(name, 0) for name in TOKENS))
        self._paid, self._finished = 0.0, 0  # by this run
        self._under_way: dict[str, float] = {}  # what requests are thought to cost, by id
        self._reserved = 0.0  # all of these together
        self._thought = 0.0  # what those that are answered were thought to cost
        self._answers = 0
        self._spent = False

    def admit(self, request: Request) -> bool:
        """Whether a request can be paid for; if so, its cost is set aside until `pay`."""
        most = self._allowance.max_cost
        if most is None or self._allowance.price is None:
            return True
        (size,) = self._measure([request.text])
        one = 0.0 if size.too_long else self._price(size.prompt_tokens, size.completion_tokens)
        # Sizes are estimates for some backends: what answers cost in truth says by how much they are wrong.
        right = self._paid / self._thought if self._answers >= _TO_LEARN and self._thought else 1.0
        if self._before + self._paid + right * (self._reserved + one) > most:
            self._spent = not self._under_way  # else what is under way may cost less than is set aside for it
            return False
        self._under_way[request.id] = one
        self._reserved += one
        return True

    def pay(self, answer: Answer) -> None:
        """Count what an answer cost."""
        one = self._under_way.pop(answer.id, 0.0)
        self._reserved -= one
        if answer.prompt_tokens is not None:  # else there was no answer, which says nothing about what answers cost
            self._thought += one
            self._answers += 1
        self._paid += self._price(answer.prompt_tokens or 0, answer.completion_tokens or 0)

    def finish(self) -> None:
        """Count a sample that this run asks no more about; the tally has its record."""
        self._finished += 1

    @property
    def cost(self) -> float | None:
        """Of all answers so far; None where no price is known."""
        return None if self._allowance.price is None else self._before + self._paid

    def note(self) -> str:
        """The cost for the progress, and what it will be at the end."""
        if self.cost is None or not self._finished:
            return ""
        left = self._samples - self._reused - self._finished
        return f"cost {self.cost:.2f}, in all {self.cost + left * self._paid / self._finished:.2f}"

    def failed(self) -> bool:
        """Whether more samples than are tolerated got no answer."""
        return self._tally.failures > self._allowance.max_failure_share * self._samples

    def _price(self, prompt_tokens: float, completion_tokens: float) -> float:
        price = self._allowance.price
        return 0.0 if price is None else price.of(prompt_tokens, completion_tokens)

    def check(self) -> None:
        """Raise if a limit was what ended the run.

        Raises:
            ModelError: with what was reached.
        """
        words, allowance, tally = self._words, self._allowance, self._tally
        if self.failed():
            raise ModelError(
                f"{words.who}: {tally.failures} of {self._samples} {words.samples} got no {words.answer}\n"
                f"{tally.table_of_errors()}",
                allowed=f"{allowance.max_failure_share:.1%} of the {words.samples} (max_failure_share)",
                action=f"remove the cause, or raise max_failure_share; {words.answer}s that are finished stay in the "
                "store",
            )
        if self._spent:
            raise ModelError(
                f"{words.who}: {self._reused + self._finished} of {self._samples} {words.samples} are "
                f"{words.answered} and cost {self.cost:.4f}; another would cost too much",
                allowed=f"{allowance.max_cost} ({allowance.max_cost_is})",
                action=f"raise max_cost to go on; {words.answer}s that are finished stay in the store",
            )
