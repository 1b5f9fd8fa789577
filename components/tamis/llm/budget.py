"""When it is enough: too many samples without an answer, or the money is spent."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tamis.core.errors import ModelError
from tamis.llm.asking import TOKENS, Record
from tamis.llm.backend import Answer, Backend, Request
from tamis.llm.estimates import FEW, Estimates, Thought
from tamis.llm.ledger import Ledger
from tamis.llm.settings import PriceSettings
from tamis.llm.store import Store
from tamis.llm.tally import Tally

_NOTED = 0.01  # share of the limit that is noted as spent at a time
log = logging.getLogger(__name__)


class FailuresError(ModelError):
    """More samples than are tolerated got no answer."""

    code = "failures"


class SpentError(ModelError):
    """The money is spent."""

    code = "budget"


@dataclass(frozen=True)
class Allowance:
    """What is tolerated and what may be spent.

    Attributes:
        max_failure_share: most of the samples that may get no answer.
        price: of tokens, where it is known.
        max_cost: most money for all samples.
        max_cost_is: what the user is told that this is.
        raised_by: the setting that allows more.
        at_once: most requests that are asked at once; None where the engine knows no such limit.
    """

    max_failure_share: float
    price: PriceSettings | None = None
    max_cost: float | None = None
    max_cost_is: str = "max_cost"
    at_once: int | None = None
    raised_by: str = "max_cost"

    @property
    def limited(self) -> bool:
        """Whether there is a limit to what may be spent."""
        return self.max_cost is not None and self.price is not None


@dataclass(frozen=True)
class Words:
    """What errors call things, as in "rater 'x': 3 of 10 samples got no rating"."""

    who: str
    samples: str
    answer: str
    answered: str


class Limited(Protocol):
    """Settings of a stage that asks services for money."""

    @property
    def max_cost(self) -> float | None:
        """The stage's own limit."""

    @property
    def budget_share(self) -> float | None:
        """Its share of the run's budget."""


@dataclass(frozen=True)
class Limit:
    """The money that a stage may spend: none where `most` is None."""

    most: float | None
    called: str
    raised_by: str


def limit_of(settings: Limited) -> Limit:
    """The lower of a stage's own limit and its share of the run's."""
    own, share = settings.max_cost, settings.budget_share
    if share is not None and (own is None or share < own):
        return Limit(share, "its share of the run's budget", "budget.max_cost")
    return Limit(own, "max_cost", "max_cost")


def at_once(backend: Any) -> int | None:
    """How many requests the engine with these settings is asked at once; None: all of them, or nobody knows."""
    return None if getattr(backend, "JOURNALED", False) else getattr(backend, "concurrency", None)


def ledger_of(
    allowance: Allowance, backend: Backend, store: Store[Any], scope: str, *, older: Sequence[Store[Any]] = ()
) -> Ledger | None:
    """The notes of what is spent from this allowance; None where it has no limit, or the engine's jobs outlive a kill.

    Args:
        scope: what is asked about, as a hash.
        older: stores of earlier versions, whose notes are read, too.
    """
    if allowance.max_cost is None or not allowance.limited or hasattr(backend, "remember_in"):
        return None
    return Ledger(
        store.journal / "money",
        scope[:32],
        step=_NOTED * allowance.max_cost,
        check=store.same_folder,
        older=[one.journal / "money" for one in older],
    )


class Budget:
    """Watches the failures and the cost of asking.

    Every attempt is counted as its answer is read, also those that another one follows. Until a few answers have shown
    what they cost, only a few requests are let through. From then on a request is, if the largest answer that it may
    get still fits, beside what is set aside for all that are under way (`estimates.Estimates`).

    Args:
        allowance: the limits.
        words: for errors.
        samples: that are to be asked about in all.
        tally: of the records so far; those of earlier runs count as well, so that a killed run does not begin anew.
        reused: samples of which an earlier run's record counts.
        backend: who is asked.
        before: tokens that earlier runs took for these samples, finished or not, by the fields `asking.TOKENS`.
        ledger: notes what may be spent before it is, where there is a limit.
    """

    def __init__(
        self,
        allowance: Allowance,
        words: Words,
        samples: int,
        tally: Tally[Any],
        *,
        reused: int,
        backend: Backend,
        before: Mapping[str, int],
        ledger: Ledger | None = None,
    ) -> None:
        self._allowance, self._words, self._samples, self._tally = allowance, words, samples, tally
        self._reused, self._backend, self._ledger = reused, backend, ledger
        if allowance.limited and hasattr(backend, "ahead"):
            # What is read ahead is paid for, too, when answers turn out to cost more than was thought.
            backend.ahead = 1
        price = allowance.price or PriceSettings(input=0, output=0)
        self.lost = ledger.lost if ledger is not None else 0.0
        self._before = price.of(*(before.get(name, 0) for name in TOKENS)) + self.lost
        self._paid, self._finished = 0.0, 0  # by this run
        self._few = min(FEW, allowance.at_once or FEW)
        self._estimates = Estimates(price, self._few, ledger.seen if ledger is not None else 0.0)
        self._under_way: dict[str, tuple[Request, Thought]] = {}
        self._spent = False
        self.estimated = 0  # answers of which the service did not say in a known way what they took

    def admit(self, request: Request) -> bool:
        """Whether a request can be paid for; if so, its cost is set aside until `pay`."""
        most = self._allowance.max_cost
        if most is None or not self._allowance.limited:
            return True
        (size,) = self._backend.measure([request.text])
        one, estimates = self._estimates.of(size), self._estimates
        paid_already = hasattr(self._backend, "sent_already") and self._backend.sent_already(request)
        if not paid_already and not size.too_long:
            if not estimates.measured and len(self._under_way) >= self._few:
                return False
            spend = self._paid + estimates.set_aside() + estimates.largest(one)
            # What is ahead of the requests that a service is asked at once can wait until more is known.
            ahead = max(0, len(self._under_way) + 1 - (self._allowance.at_once or self._samples))
            if self._before + spend + ahead * estimates.excess(one) > most:
                self._spent = not self._under_way  # else what is under way may cost less than is set aside for it
                return False
            if self._ledger is not None:
                self._ledger.cover(spend, estimates.seen)
        self._under_way[request.id] = request, one
        estimates.begin(one)
        return True

    def pay(self, answer: Answer) -> None:
        """Count what an answer cost."""
        request, one = self._under_way.pop(answer.id, (None, None))
        if one is None:  # nothing was set aside, for there is no limit
            one = Thought(0.0, 0.0)
            self._estimates.begin(one)
        cost = self._estimates.end(one, answer)
        self._paid += cost
        if cost and self._ledger is not None and request is not None:
            self._ledger.paid(request.id, request.attempt, cost)
            self._ledger.cover(self._paid + self._estimates.set_aside(), self._estimates.seen)
        if answer.estimated:
            self.estimated += 1
            if self.estimated == 1:
                log.warning(
                    "%s: the service does not say in a known way what answers take (no `usage` with prompt_tokens and "
                    "completion_tokens); the most that they may take is counted",
                    self._words.who,
                )

    def recorded(self, records: Sequence[Record]) -> None:
        """Take note that records are durable; called by the thread that writes them."""
        if self._ledger is not None:
            for record in records:
                self._ledger.recorded(record.id, record.attempts)

    def close(self) -> None:
        """Leave a note of money that no record shows; to be called when the last record is durable, also by an error.

        Raises:
            StorageError: when the note cannot be written.
        """
        if self._ledger is not None:
            self._ledger.close(self._paid, self._estimates.set_aside() if self._under_way else 0.0)

    def finish(self) -> None:
        """Count a sample that this run asks no more about; the tally has its record."""
        self._finished += 1

    @property
    def cost(self) -> float | None:
        """Of all answers so far; None where no price is known."""
        return None if self._allowance.price is None else self._before + self._paid

    def facts(self) -> dict[str, float | int]:
        """The cost, for the manifest, and what of it is not known for certain."""
        facts: dict[str, float | int] = {} if self.cost is None else {"cost": round(self.cost, 6)}
        if self.lost:
            facts["cost_of_lost_answers"] = round(self.lost, 6)
        if self.estimated:
            facts["answers_without_usage"] = self.estimated
        return facts

    def note(self) -> str:
        """The cost for the progress, and what it will be at the end."""
        if self.cost is None or not self._finished:
            return ""
        left = self._samples - self._reused - self._finished
        return f"cost {self.cost:.2f}, in all {self.cost + left * self._paid / self._finished:.2f}"

    def failed(self) -> bool:
        """Whether more samples than are tolerated got no answer."""
        return self._tally.failures > self._allowance.max_failure_share * self._samples

    def check(self) -> None:
        """Raise if a limit was what ended the run.

        Raises:
            FailuresError: when too many samples got no answer.
            SpentError: when another answer would cost too much.
        """
        words, allowance, tally = self._words, self._allowance, self._tally
        if self.failed():
            raise FailuresError(
                f"{words.who}: {tally.failures} of {self._samples} {words.samples} got no {words.answer}\n"
                f"{tally.table_of_errors()}",
                allowed=f"{allowance.max_failure_share:.1%} of the {words.samples} (max_failure_share)",
                action=f"remove the cause, or raise max_failure_share; {words.answer}s that are finished stay in the "
                "store",
            )
        if self._spent:
            raise SpentError(
                f"{words.who}: {self._reused + self._finished} of {self._samples} {words.samples} are "
                f"{words.answered} and cost {self.cost:.4f}; another would cost too much"
                + (
                    f"\n  {self.lost:.4f} of it may have been spent on answers that were lost at kills"
                    if self.lost
                    else ""
                ),
                allowed=f"{allowance.max_cost} ({allowance.max_cost_is})",
                action=f"raise {allowance.raised_by} to go on; {words.answer}s that are finished stay in the store",
            )
