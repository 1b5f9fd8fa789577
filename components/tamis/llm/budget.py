"""Limits on failures and cost: stops a run with too many failures, or before it costs too much."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tamis.core.errors import ModelError
from tamis.llm.asking import TOKENS, Record
from tamis.llm.backend import Answer, Backend, Request
from tamis.llm.estimates import FEW, Estimate, Estimates
from tamis.llm.ledger import Ledger
from tamis.llm.settings import PriceSettings
from tamis.llm.store import Store
from tamis.llm.tally import Tally

_NOTED = 0.01  # share of the limit that the ledger notes at a time
log = logging.getLogger(__name__)


class FailuresError(ModelError):
    """More samples than allowed got no answer."""

    code = "failures"
    permanent = False


class SpentError(ModelError):
    """The limit on cost is reached."""

    code = "budget"
    permanent = True


@dataclass(frozen=True)
class Allowance:
    """The limits of a run.

    Attributes:
        max_failure_share: largest share of the samples that may get no answer.
        price: price of tokens; None if unknown.
        max_cost: highest cost of all samples; None for no limit.
        max_cost_is: name of this limit in errors.
        raised_by: the setting that raises it.
        at_once: most concurrent requests; None if the engine has no such limit.
    """

    max_failure_share: float
    price: PriceSettings | None = None
    max_cost: float | None = None
    max_cost_is: str = "max_cost"
    at_once: int | None = None
    raised_by: str = "max_cost"

    @property
    def limited(self) -> bool:
        """Whether the cost is limited."""
        return self.max_cost is not None and self.price is not None


@dataclass(frozen=True)
class Words:
    """Words for logs and errors, as in "rater 'x': 3 of 10 samples got no rating"."""

    who: str
    samples: str
    answer: str
    answered: str


class Limited(Protocol):
    """Settings of a stage whose services cost money."""

    @property
    def max_cost(self) -> float | None:
        """The stage's own limit."""

    @property
    def budget_share(self) -> float | None:
        """The stage's share of the run's budget."""


@dataclass(frozen=True)
class Limit:
    """A limit on the cost of a stage; no limit if `most` is None."""

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
    """Most concurrent requests of the engine with these settings; None for batches, or if it has no such limit."""
    return None if getattr(backend, "JOURNALED", False) else getattr(backend, "concurrency", None)


def ledger_of(
    allowance: Allowance, backend: Backend, store: Store[Any], scope: str, *, older: Sequence[Store[Any]] = ()
) -> Ledger | None:
    """The ledger for this allowance; None if the cost is not limited, or the engine has a journal instead.

    Args:
        scope: hash of the samples.
        older: stores of earlier versions, whose notes are read too.
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
    """Counts failures and cost, and decides which requests may be sent.

    Every attempt is counted when its answer is read. Until a few answers have shown what they cost, only a few requests
    are admitted. After that, a request is admitted if its largest possible answer still fits in the limit, next to what
    is set aside for all requests under way (`estimates.Estimates`).

    Args:
        allowance: the limits.
        words: words for errors.
        samples: number of samples that need an answer.
        tally: counts of the records so far, including those of earlier runs.
        reused: number of samples whose records are from earlier runs.
        backend: the engine.
        before: tokens that earlier runs used for these samples, finished or not, by the fields in `asking.TOKENS`.
        ledger: notes money before it is spent; None without a limit.
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
            # Requests that are read ahead must be paid for too, even if answers cost more than expected.
            backend.ahead = 1
        price = allowance.price or PriceSettings(input=0, output=0)
        self.lost = ledger.lost if ledger is not None else 0.0
        self._before = price.of(*(before.get(name, 0) for name in TOKENS)) + self.lost
        self._paid, self._finished = 0.0, 0  # by this run
        self._few = min(FEW, allowance.at_once or FEW)
        self._estimates = Estimates(price, self._few, ledger.seen if ledger is not None else 0.0)
        self._under_way: dict[str, tuple[Request, Estimate]] = {}
        self._spent = False
        self.estimated = 0  # number of answers without reported token counts

    def admit(self, request: Request) -> bool:
        """Whether the limit allows a request; if so, its cost is set aside until `pay`."""
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
            # Requests beyond the concurrent ones can wait until more is known about costs.
            ahead = max(0, len(self._under_way) + 1 - (self._allowance.at_once or self._samples))
            if self._before + spend + ahead * estimates.excess(one) > most:
                self._spent = not self._under_way  # otherwise requests under way may cost less than what is set aside
                return False
            if self._ledger is not None:
                self._ledger.cover(spend, estimates.seen)
        self._under_way[request.id] = request, one
        estimates.begin(one)
        return True

    def pay(self, answer: Answer) -> None:
        """Count the cost of an answer."""
        request, one = self._under_way.pop(answer.id, (None, None))
        if one is None:  # without a limit nothing was set aside
            one = Estimate(0.0, 0.0)
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
                    "%s: the service does not report token counts (`usage` with prompt_tokens and completion_tokens); "
                    "the largest possible counts are used",
                    self._words.who,
                )

    def recorded(self, records: Sequence[Record]) -> None:
        """Note that records are durable. Called by the thread that writes them."""
        if self._ledger is not None:
            for record in records:
                self._ledger.recorded(record.id, record.attempts)

    def close(self) -> None:
        """Note the money that no record shows. Call it when the last record is durable, also after an error.

        Raises:
            StorageError: when the note cannot be written.
        """
        if self._ledger is not None:
            self._ledger.close(self._paid, self._estimates.set_aside() if self._under_way else 0.0)

    def finish(self) -> None:
        """Count a sample as finished; its record is in the tally."""
        self._finished += 1

    @property
    def cost(self) -> float | None:
        """The cost of all answers so far; None if no price is known."""
        return None if self._allowance.price is None else self._before + self._paid

    def facts(self) -> dict[str, float | int]:
        """The cost for the manifest, and how much of it is uncertain."""
        facts: dict[str, float | int] = {} if self.cost is None else {"cost": round(self.cost, 6)}
        if self.lost:
            facts["cost_of_lost_answers"] = round(self.lost, 6)
        if self.estimated:
            facts["answers_without_usage"] = self.estimated
        return facts

    def note(self) -> str:
        """The cost so far and the expected total, for the progress line."""
        if self.cost is None or not self._finished:
            return ""
        left = self._samples - self._reused - self._finished
        return f"cost {self.cost:.2f}, expected total {self.cost + left * self._paid / self._finished:.2f}"

    def failed(self) -> bool:
        """Whether more samples than allowed got no answer."""
        return self._tally.failures > self._allowance.max_failure_share * self._samples

    def check(self) -> None:
        """Raise an error if a limit ended the run.

        Raises:
            FailuresError: when too many samples got no answer.
            SpentError: when another answer might exceed the limit on cost.
        """
        words, allowance, tally = self._words, self._allowance, self._tally
        if self.failed():
            raise FailuresError(
                f"{words.who}: {tally.failures} of {self._samples} {words.samples} got no {words.answer}\n"
                f"{tally.table_of_errors()}",
                allowed=f"at most {allowance.max_failure_share:.1%} of the {words.samples} (max_failure_share)",
                action=f"remove the cause, or raise max_failure_share; finished {words.answer}s stay in the store",
            )
        if self._spent:
            raise SpentError(
                f"{words.who}: {self._reused + self._finished} of {self._samples} {words.samples} are "
                f"{words.answered} and cost {self.cost:.4f}; another one might exceed the limit"
                + (
                    f"\n  {self.lost:.4f} of this may have been spent on answers that were lost when a run was killed"
                    if self.lost
                    else ""
                ),
                allowed=f"{allowance.max_cost} ({allowance.max_cost_is})",
                action=f"to continue, raise {allowance.raised_by}; finished {words.answer}s stay in the store",
            )
