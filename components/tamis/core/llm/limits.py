"""Limits: what may be sent per minute, and how many requests at once a service can bear."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType

from tamis.core.llm.settings import LimitSettings

_SAFETY = 0.99  # requests take different times to arrive; what was sent evenly comes in a little bunched
_CUT = 0.7  # share of the concurrency that is left when the service cannot keep up
_CUT_EVERY = 1.0  # seconds; the requests of one burst fail together and count once
_FIRST = 16  # requests at once to begin with


class Bucket:
    """A token bucket that in no minute gives out more than `per_minute`.

    It holds a second's worth, or the largest amount asked for so far if that is more, and refills at the rate that is
    left of the limit. A debt (an amount that was larger than thought) is waited for.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._clock = per_minute, clock
        # Never all of the limit: nothing would be left to refill at.
        self._capacity = self._level = min(max(per_minute / 60, 1.0), per_minute / 2)
        self._seen = clock()

    def wait(self, amount: float) -> float:
        """Seconds until `amount` may be taken; 0 is now. More than the limit may be taken by itself."""
        if amount > self._capacity:
            self._capacity = min(amount, self._limit / 2)
        rate = (self._limit - self._capacity) / 60 * _SAFETY
        now = self._clock()
        self._level = min(self._capacity, self._level + rate * (now - self._seen))
        self._seen = now
        return max(0.0, (min(amount, self._capacity) - self._level) / rate)

    def take(self, amount: float) -> None:
        """Take `amount`; less than 0 gives back."""
        self._level -= amount


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

    async def acquire(self, input_tokens: float, output_tokens: float, ended: asyncio.Event) -> None:
        """Wait until a request of so many tokens may be sent, or until `ended`: nothing is sent any more."""
        async with self._turn:
            while not ended.is_set():
                waits = [bucket.wait(_weighed(w, 1, input_tokens, output_tokens)) for bucket, w in self._buckets]
                wait = max([self._closed_until - self._clock(), *waits])
                if wait <= 0:
                    break
                await happens_within(ended, wait)
            self._take(1, input_tokens, output_tokens)

    def correct(self, input_tokens: float, output_tokens: float) -> None:
        """Take so many tokens more than was thought; less than 0 gives back."""
        self._take(0, input_tokens, output_tokens)

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

    Doubles until the first sign of overload, from then on additive increase and multiplicative decrease, as TCP does
    (Chiu and Jain 1989).
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._limit = float(min(most, _FIRST))
        self._probing = True
        self._active, self._last_cut = 0, float("-inf")
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def limit(self) -> int:
        """How many may be under way now."""
        return int(self._limit)

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
        self._limit = min(self._most, self._limit + (1 if self._probing else 1 / self._limit))

    def overloaded(self) -> None:
        """A request was not answered because there are too many."""
        self._probing = False
        if self._clock() - self._last_cut >= _CUT_EVERY:
            self._last_cut = self._clock()
            self._limit = max(1.0, self._limit * _CUT)
