"""Rate limits per minute, and the number of concurrent requests that a service can handle."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from tamis.llm.settings import LimitSettings

_SAFETY = 0.99  # requests that are sent evenly arrive slightly bunched
_CUT = 0.7  # factor for the concurrency when the service is overloaded
_CUT_EVERY = 1.0  # seconds; failures of one burst count once
_FIRST = 16  # concurrent requests at the start
_ROUNDS = 2  # rounds after which the increase doubles
_TO_LEARN = 16  # answers after which token counts are learned
_UNKNOWN_SHARE = 2.0  # before that, the largest expected ratio of actual to estimated prompt tokens
_LOOK_AGAIN = 1.0  # seconds after which a wait is computed again, because answers change it


class Bucket:
    """A token bucket that never gives out more than `per_minute` in any minute.

    Its capacity is the limit for one second, or the largest amount requested so far if that is more. It refills at the
    rest of the limit. After a debt (an amount that was larger than estimated), the next amount has to wait.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._clock = per_minute, clock
        # Never the whole limit, so that a refill rate remains.
        self._capacity = self._level = min(max(per_minute / 60, 1.0), per_minute / 2)
        self._seen, self._last_taken = clock(), float("-inf")

    def wait(self, amount: float) -> float:
        """Seconds until `amount` may be taken; 0: now. An amount above the limit may be taken alone."""
        if amount > self._capacity:
            self._capacity = min(amount, self._limit / 2)
        rate = (self._limit - self._capacity) / 60 * _SAFETY
        now = self._clock()
        self._level = min(self._capacity, self._level + rate * (now - self._seen))
        self._seen = now
        # An amount above the capacity must not fall into the same minute as the amount before it.
        alone = self._last_taken + 60 / _SAFETY - now if amount > self._capacity else 0.0
        return max(0.0, alone, (min(amount, self._capacity) - self._level) / rate)

    def take(self, amount: float) -> None:
        """Take `amount`; a negative amount is given back."""
        self._level -= amount
        if amount > 0:
            self._last_taken = self._clock()

    def forget(self) -> None:
        """Reset the capacity to the limit for one second, because later amounts are smaller."""
        self._capacity = min(max(self._limit / 60, 1.0), self._limit / 2)


@dataclass(frozen=True, slots=True)
class Amounts:
    """Tokens set aside for a request."""

    input: float
    output: float


class Expected:
    """How many tokens to set aside for a request: as many as the largest one so far used.

    Unused tokens come back with the answer, so setting aside too many costs little. Too few would only be noticed when
    all requests under way exceed the limit. Until `_TO_LEARN` answers have arrived, twice the estimated prompt tokens
    and the largest possible answer are set aside.
    """

    def __init__(self) -> None:
        self._answers, self._input_share, self._output = 0, 0.0, 0.0

    @property
    def learned(self) -> bool:
        """Whether enough answers have arrived."""
        return self._answers >= _TO_LEARN

    def amounts(self, input_tokens: float, output_tokens: float, most_output_tokens: float) -> Amounts:
        """What to set aside for a request with these estimates."""
        if self.learned:
            return Amounts(input_tokens * self._input_share, self._output)
        share = max(_UNKNOWN_SHARE, self._input_share)
        return Amounts(input_tokens * share, max(output_tokens, most_output_tokens, self._output))

    def learn(self, thought: float, input_tokens: float, output_tokens: float) -> None:
        """Learn the tokens of a request whose prompt was estimated at `thought` tokens."""
        self._answers += 1
        self._output = max(self._output, output_tokens)
        if thought:
            self._input_share = max(self._input_share, input_tokens / thought)


class RateLimits:
    """All rate limits of one service; requests are admitted in order."""

    def __init__(self, settings: LimitSettings, clock: Callable[[], float] = time.monotonic) -> None:
        given = (  # with the weights of (requests, input tokens, output tokens)
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
        """Wait until a request with these estimates may be sent, or until `ended` is set.

        Returns:
            The tokens set aside for it, for `settle`.
        """
        async with self._turn:
            while not ended.is_set():
                if (taken := self.take_now(input_tokens, output_tokens, most_output_tokens)) is not None:
                    return taken
                wait = self._foreseen(input_tokens, output_tokens, most_output_tokens)[1]
                await happens_within(ended, min(wait, _LOOK_AGAIN))
        return Amounts(0, 0)

    def take_now(self, input_tokens: float, output_tokens: float, most_output_tokens: float) -> Amounts | None:
        """Like `acquire`, but None if the request would have to wait."""
        amounts, wait = self._foreseen(input_tokens, output_tokens, most_output_tokens)
        if wait > 0:
            return None
        self._take(1, amounts.input, amounts.output)
        return amounts

    def _foreseen(self, *thought: float) -> tuple[Amounts, float]:
        """The tokens to set aside for a request, and the seconds until they are available."""
        amounts = self._expected.amounts(*thought)
        waits = [bucket.wait(_weighed(w, 1, amounts.input, amounts.output)) for bucket, w in self._buckets]
        return amounts, max([self._closed_until - self._clock(), *waits])

    def settle(self, taken: Amounts, thought: float, input_tokens: int | None, output_tokens: int | None) -> None:
        """Replace the tokens set aside for a request by those that it used.

        Args:
            taken: tokens set aside for it.
            thought: estimated prompt tokens.
            input_tokens: actual prompt tokens; None if unknown.
            output_tokens: actual answer tokens; None if unknown.
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
        """Send nothing for `seconds`, because the service asked for it."""
        self._closed_until = max(self._closed_until, self._clock() + seconds)

    def _take(self, requests: float, input_tokens: float, output_tokens: float) -> None:
        for bucket, weights in self._buckets:
            bucket.take(_weighed(weights, requests, input_tokens, output_tokens))


async def happens_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait at most `seconds` for an event; return whether it happened."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


def _weighed(weights: tuple[int, int, int], *amounts: float) -> float:
    return sum(weight * amount for weight, amount in zip(weights, amounts, strict=True))


class Gate:
    """Limits concurrent requests: raises the limit while all goes well, and lowers it when the service is overloaded.

    The limit doubles until the first sign of overload. After that it falls by a factor, and rises by one per round at
    first, with an increase that doubles every `_ROUNDS` rounds without overload. A busy service is thus probed
    carefully, and a recovered one is back at its old rate within a few rounds.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._limit = float(min(most, _FIRST))
        self._probing, self._alone, self._rounds = True, False, 0.0
        self._active, self._last_cut = 0, float("-inf")
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def limit(self) -> int:
        """Most concurrent requests now."""
        return 1 if self._alone else int(self._limit)

    @property
    def within_reach(self) -> int:
        """Most concurrent requests in the near future."""
        return max(int(self._limit), min(self._most, _FIRST))

    @property
    def alone(self) -> bool:
        """Whether only one request at a time is admitted during an outage; afterwards the limit starts anew."""
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
            await turn  # counted by `_leave`
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
        """Note that a request was answered."""
        self._rounds += 1 / self._limit  # a round has as many answers as the limit
        more = 1.0 if self._probing else min(1.0, 2.0 ** int(self._rounds / _ROUNDS) / self._limit)
        self._limit = min(self._most, self._limit + more)

    def overloaded(self) -> None:
        """Note that a request failed because of overload."""
        self._probing, self._rounds = False, 0.0
        if self._clock() - self._last_cut >= _CUT_EVERY:
            self._last_cut = self._clock()
            self._limit = max(1.0, self._limit * _CUT)
