"""What requests that are under way will cost, as far as earlier answers tell."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tamis.llm.backend import Answer, Size
from tamis.llm.settings import PriceSettings

FEW = 20  # answers by which costs are measured before many requests go out
_DEVIATIONS = 3.0  # standard deviations that are set aside beyond what is expected


@dataclass(frozen=True, slots=True)
class Thought:
    """What a request is thought to cost before it is answered: its prompt, and the largest answer that it may have."""

    prompt: float
    most: float

    @property
    def largest(self) -> float:
        """Prompt and answer."""
        return self.prompt + self.most


class Estimates:
    """Sums over requests under way and answers; costs in the money of the price.

    Before `enough` answers have come, a request counts as the largest that it may become. From then on prompts are
    corrected by how much their sizes were wrong, and answers count as the mean so far, both with a margin for chance.
    The largest answer so far is the least that the largest possible one may be: services have been seen to go beyond
    the limit that a request states, by tokens of reasoning.
    """

    def __init__(self, price: PriceSettings, enough: int, seen: float = 0.0) -> None:
        self._price, self._enough = price, enough
        self.under_way = 0
        self._prompts = self._largest = 0.0  # of the requests under way
        self._ratio, self._answer = _Mean(), _Mean()
        self.seen = seen  # the largest answer, as far as is known

    @property
    def measured(self) -> bool:
        """Whether enough answers have come."""
        return self._answer.count >= self._enough

    def of(self, size: Size) -> Thought:
        """What a request of this size is thought to cost."""
        if size.too_long:
            return Thought(0.0, 0.0)
        most = max(size.completion_tokens, size.most_completion_tokens)
        return Thought(self._price.of(size.prompt_tokens), most * self._price.highest_output / 1e6)

    def begin(self, thought: Thought) -> None:
        """Count a request as under way."""
        self.under_way += 1
        self._prompts += thought.prompt
        self._largest += thought.largest

    def end(self, thought: Thought, answer: Answer) -> float:
        """Count a request's answer, or the lack of one, which says nothing about what answers cost; what it cost."""
        self.under_way -= 1
        self._prompts -= thought.prompt
        self._largest -= thought.largest
        if answer.prompt_tokens is None:
            return 0.0
        prompt = self._price.of(answer.prompt_tokens, cached_tokens=answer.cached_tokens)
        written = self._price.of(
            completion_tokens=answer.completion_tokens or 0, reasoning_tokens=answer.reasoning_tokens
        )
        if thought.prompt:
            self._ratio.add(prompt / thought.prompt)
        self._answer.add(written)
        self.seen = max(self.seen, written)
        return prompt + written

    def largest(self, thought: Thought) -> float:
        """The most that a request may cost."""
        ratio = max(1.0, self._ratio.high) if self.measured else 1.0
        return ratio * thought.prompt + max(thought.most, self.seen)

    def set_aside(self) -> float:
        """For all requests under way."""
        if not self.measured:
            return max(self._largest, self._prompts + self.under_way * self.seen)
        chance = _DEVIATIONS * self._answer.deviation * math.sqrt(self.under_way)
        return self._ratio.high * self._prompts + self.under_way * self._answer.high + chance

    def excess(self, thought: Thought) -> float:
        """How much more than expected a request may cost."""
        expected = self._ratio.high * thought.prompt + self._answer.high if self.measured else 0.0
        return max(0.0, self.largest(thought) - expected)


class _Mean:
    """Mean and deviation of numbers that come one by one (Welford 1962)."""

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
        """The mean, and what it may be above that by chance."""
        return self._mean + _DEVIATIONS * self.deviation / math.sqrt(self.count) if self.count else 1.0
