"""Limits: what may be sent per minute, and how many requests at once a service can bear."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from tamis.llm.settings import LimitSettings

_SAFETY = 0.99  # requests take different times to arrive; what was sent evenly comes in a little bunched
_CUT = 0.7  # share of the concurrency that is left when the service cannot keep up
_CUT_EVERY = 1.0  # seconds; the requests of one burst fail together and count once
_FIRST = 16  # requests at once to begin with
_ROUNDS = 2  # after which the increase doubles
_TO_LEARN = 16  # answers after which it is known what requests take
_UNKNOWN_SHARE = 2.0  # tokens of a prompt for each that was estimated, at most, before that is known
_LOOK_AGAIN = 1.0  # seconds; what is to be waited for changes as answers come


class Bucket:
    """A token bucket that in no minute gives out more than `per_minute`.

    It holds a second's worth, or the largest amount asked for so far if that is more, and refills at the rate that is
    left of the limit. A debt (an amount that was larger than thought) is waited for.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._clock = per_minute, clock
        # Never all of the limit: nothing would be left to refill at.
        self._capacity = self._level = min(max(per_minute / 60, 1.0), per_minute / 2)
        self._seen, self._last_taken = clock(), float("-inf")

    def wait(self, amount: float) -> float:
        """Seconds until `amount` may be taken; 0 is now. More than the limit may be taken by itself."""
        if amount > self._capacity:
            self._capacity = min(amount, self._limit / 2)
        rate = (self._limit - self._capacity) / 60 * _SAFETY
        now = self._clock()
        self._level = min(self._capacity, self._level + rate * (now - self._seen))
        self._seen = now
        # What is more than the bucket can hold is taken beyond it: not in one minute with what was taken before.
        alone = self._last_taken + 60 / _SAFETY - now if amount > self._capacity else 0.0
        return max(0.0, alone, (min(amount, self._capacity) - self._level) / rate)

    def take(self, amount: float) -> None:
        """Take `amount`; less than 0 gives back."""
        self._level -= amount
        if amount > 0:
            self._last_taken = self._clock()

    def forget(self) -> None:
        """Hold no more than a second's worth again: the amounts to come are smaller than those that were asked for."""
        self._capacity = min(max(self._limit / 60, 1.0), self._limit / 2)


@dataclass(frozen=True, slots=True)
class Amounts:
    """Tokens that were set aside for a request."""

    input: float
    output: float


class Expected:
    """How many tokens to set aside for requests: as many as the largest that were answered took.

    What is set aside and not used comes back with the answer, so that too much costs little; too little is noticed only
    when the limit is exceeded, by all that is under way. Until `_TO_LEARN` answers have come, twice the tokens of the
    prompt as estimated and all that the answer may have are set aside.
    """

    def __init__(self) -> None:
        self._answers, self._input_share, self._output = 0, 0.0, 0.0

    @property
    def learned(self) -> bool:
        """Whether enough answers have come."""
        return self._answers >= _TO_LEARN

    def amounts(self, input_tokens: float, output_tokens: float, most_output_tokens: float) -> Amounts:
        """What to set aside for a request that is thought to take so much."""
        if self.learned:
            return Amounts(input_tokens * self._input_share, self._output)
        share = max(_UNKNOWN_SHARE, self._input_share)
        return Amounts(input_tokens * share, max(output_tokens, most_output_tokens, self._output))

    def learn(self, thought: float, input_tokens: float, output_tokens: float) -> None:
        """What a request, whose prompt was thought to have `thought` tokens, took."""
        self._answers += 1
        self._output = max(self._output, output_tokens)
        if thought:
            self._input_share = max(self._input_share, input_tokens / thought)


class RateLimits:
    """All limits per minute of one service, kept in the order of asking."""

    def __init__(self, settings: LimitSettings, clock: Callable[[], float] = time.monotonic) -> None:
        given = (  # with what each counts of (request, input tokens, output tokens)
            (settings.requests_per_minute, (1, 0, 0)),
            (settings.tokens_per_minute, (0, 1, 1)),
            (settings.input_tokens_per_minute, (0, 1, 0)),
            (settings.output_tokens_per_minute, (0, 0, 1)),
        )
        self._buckets = [(Bucket(limit, clock), weights) for limit, weights in given if limit is not None]
        self._clock, self._closed_until = clock, 0.0
        self._turn = asyncio.Lock()
        self._expected = Expected()

    async def acquire(
        self, input_tokens: float, output_tokens: float, most_output_tokens: float, ended: asyncio.Event
    ) -> Amounts:
        """Wait until a request may be sent that is thought to take so many tokens, or until `ended`: none is any more.

        Returns:
            What was set aside for it, for `settle`.
        """
        async with self._turn:
            while not ended.is_set():
                if (taken := self.take_now(input_tokens, output_tokens, most_output_tokens)) is not None:
                    return taken
                wait = self._foreseen(input_tokens, output_tokens, most_output_tokens)[1]
                await happens_within(ended, min(wait, _LOOK_AGAIN))
        return Amounts(0, 0)

    def take_now(self, input_tokens: float, output_tokens: float, most_output_tokens: float) -> Amounts | None:
        """As `acquire`, if there is nothing to wait for."""
        amounts, wait = self._foreseen(input_tokens, output_tokens, most_output_tokens)
        if wait > 0:
            return None
        self._take(1, amounts.input, amounts.output)
        return amounts

    def _foreseen(self, *thought: float) -> tuple[Amounts, float]:
        """What to set aside for a request, and in how many seconds that can be had."""
        amounts = self._expected.amounts(*thought)
        waits = [bucket.wait(_weighed(w, 1, amounts.input, amounts.output)) for bucket, w in self._buckets]
        return amounts, max([self._closed_until - self._clock(), *waits])

    def settle(self, taken: Amounts, thought: float, input_tokens: int | None, output_tokens: int | None) -> None:
        """An answer came: take what it took instead of what was set aside.

        Args:
            taken: what was set aside for it.
            thought: tokens that its prompt was thought to have.
            input_tokens: that the prompt had; None where the service does not say, as with the next.
            output_tokens: that the answer had.
        """
        if input_tokens is None or output_tokens is None:
            return
        learned = self._expected.learned
        self._expected.learn(thought, input_tokens, output_tokens)
        if self._expected.learned and not learned:
            for bucket, _ in self._buckets:
                bucket.forget()
        self._take(0, input_tokens - taken.input, output_tokens - taken.output)

    def close_for(self, seconds: float) -> None:
        """Send nothing for so long: the service said so."""
        self._closed_until = max(self._closed_until, self._clock() + seconds)

    def _take(self, requests: float, input_tokens: float, output_tokens: float) -> None:
        for bucket, weights in self._buckets:
            bucket.take(_weighed(weights, requests, input_tokens, output_tokens))


async def happens_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait so long at most for an event; whether it came."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


def _weighed(weights: tuple[int, int, int], *amounts: float) -> float:
    return sum(weight * amount for weight, amount in zip(weights, amounts, strict=True))


class Gate:
    """How many requests are under way at once: more while all goes well, fewer when the service cannot keep up.

    Doubles until the first sign of overload. From then on multiplicative decrease, and an increase that begins at one a
    round and doubles every `_ROUNDS` rounds without another sign, as binary searches for a lost rate do in TCP's
    successors: a service that is full is tried carefully, one that has recovered is at its old rate in few rounds.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._limit = float(min(most, _FIRST))
        self._probing, self._alone, self._rounds = True, False, 0.0
        self._active, self._last_cut = 0, float("-inf")
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def limit(self) -> int:
        """How many may be under way now."""
        return 1 if self._alone else int(self._limit)

    @property
    def within_reach(self) -> int:
        """How many may be under way soon."""
        return max(int(self._limit), min(self._most, _FIRST))

    @property
    def alone(self) -> bool:
        """Whether one at a time is let in, as the service is away; after that all begins anew."""
        return self._alone

    @alone.setter
    def alone(self, value: bool) -> None:
        if self._alone and not value:
            self._limit, self._probing = float(min(self._most, _FIRST)), True
        self._alone = value

    async def __aenter__(self) -> None:
        if self._active < self.limit and not self._waiting:
            self._active += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn  # whoever lets it in counts it
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        self._active -= 1
        while self._waiting and self._active < self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self._active += 1
                turn.set_result(None)

    def went_well(self) -> None:
        """A request was answered."""
        self._rounds += 1 / self._limit  # as many answers as may be under way are a round
        more = 1.0 if self._probing else min(1.0, 2.0 ** int(self._rounds / _ROUNDS) / self._limit)
        self._limit = min(self._most, self._limit + more)

    def overloaded(self) -> None:
        """A request was not answered because there are too many."""
        self._probing, self._rounds = False, 0.0
        if self._clock() - self._last_cut >= _CUT_EVERY:
            self._last_cut = self._clock()
            self._limit = max(1.0, self._limit * _CUT)
