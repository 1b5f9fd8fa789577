"""Estimates the cost of requests under way from the answers so far."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tamis.llm.backend import Answer, Size
from tamis.llm.settings import PriceSettings

FEW = 20  # answers that measure costs before many requests are sent
_DEVIATIONS = 3.0  # standard deviations set aside above the expected cost


@dataclass(frozen=True, slots=True)
class Estimate:
    """The estimated cost of a request: its prompt, and its largest possible answer."""

    prompt: float
    most: float

    @property
    def largest(self) -> float:
        """Prompt and answer."""
        return self.prompt + self.most


class Estimates:
    """Sums of estimates over the requests under way, in the currency of the price.

    Until `enough` answers have arrived, a request counts with its largest possible cost. After that, prompts are
    corrected by the observed ratio of actual to estimated size, and answers count with the observed mean, both with a
    margin for chance. The largest possible answer is never estimated below the largest answer seen: some services
    exceed the limit in a request by reasoning tokens.
    """

    def __init__(self, price: PriceSettings, enough: int, seen: float = 0.0) -> None:
        self._price, self._enough = price, enough
        self.under_way = 0
        self._prompts = self._largest = 0.0  # of the requests under way
        self._ratio, self._answer = _Mean(), _Mean()
        self.seen = seen  # cost of the largest answer seen

    @property
    def measured(self) -> bool:
        """Whether enough answers have arrived."""
        return self._answer.count >= self._enough

    def of(self, size: Size) -> Estimate:
        """The estimate for a request of this size."""
        if size.too_long:
            return Estimate(0.0, 0.0)
        most = max(size.completion_tokens, size.most_completion_tokens)
        return Estimate(self._price.of(size.prompt_tokens), most * self._price.highest_output / 1e6)

    def begin(self, estimate: Estimate) -> None:
        """Count a request as under way."""
        self.under_way += 1
        self._prompts += estimate.prompt
        self._largest += estimate.largest

    def end(self, estimate: Estimate, answer: Answer) -> float:
        """Count the answer of a request, and return its cost; a failed request tells nothing about costs."""
        self.under_way -= 1
        self._prompts -= estimate.prompt
        self._largest -= estimate.largest
        if answer.prompt_tokens is None:
            return 0.0
        prompt = self._price.of(answer.prompt_tokens, cached_tokens=answer.cached_tokens)
        written = self._price.of(
            completion_tokens=answer.completion_tokens or 0, reasoning_tokens=answer.reasoning_tokens
        )
        if estimate.prompt:
            self._ratio.add(prompt / estimate.prompt)
        self._answer.add(written)
        self.seen = max(self.seen, written)
        return prompt + written

    def largest(self, estimate: Estimate) -> float:
        """The largest possible cost of a request."""
        ratio = max(1.0, self._ratio.high) if self.measured else 1.0
        return ratio * estimate.prompt + max(estimate.most, self.seen)

    def set_aside(self) -> float:
        """The money to set aside for all requests under way."""
        if not self.measured:
            return max(self._largest, self._prompts + self.under_way * self.seen)
        chance = _DEVIATIONS * self._answer.deviation * math.sqrt(self.under_way)
        return self._ratio.high * self._prompts + self.under_way * self._answer.high + chance

    def excess(self, estimate: Estimate) -> float:
        """By how much a request may exceed its expected cost."""
        expected = self._ratio.high * estimate.prompt + self._answer.high if self.measured else 0.0
        return max(0.0, self.largest(estimate) - expected)


class _Mean:
    """Running mean and standard deviation (Welford 1962)."""

    def __init__(self) -> None:
        self.count, self._mean, self._squares = 0, 0.0, 0.0

    def add(self, number: float) -> None:
        self.count += 1
        step = number - self._mean
        self._mean += step / self.count
        self._squares += step * (number - self._mean)

    @property
    def deviation(self) -> float:
        return math.sqrt(self._squares / (self.count - 1)) if self.count > 1 else 0.0

    @property
    def high(self) -> float:
        """An upper bound for the mean."""
        return self._mean + _DEVIATIONS * self.deviation / math.sqrt(self.count) if self.count else 1.0
