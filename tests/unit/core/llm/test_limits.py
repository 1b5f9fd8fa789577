"""Limits per minute and adaptive concurrency, on a clock of the test's own."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.core.llm.limits import Bucket, Gate, RateLimits
from tamis.core.llm.settings import LimitSettings
from tests.llm_server import most_within


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(limit=st.integers(1, 5000), shares=st.lists(st.floats(0.01, 1), min_size=1, max_size=60), scale=st.floats(1, 20))
def test_no_minute_gets_more_than_the_limit(limit: int, shares: list[float], scale: float) -> None:
    """Amounts above a second's worth may exceed it by one of them while the bucket does not know how large they get."""
    clock = Clock()
    bucket = Bucket(limit, clock)
    amounts = [share * max(limit / 60, 1) * scale for share in shares] * 5
    times = []
    for amount in amounts:
        while (wait := bucket.wait(amount)) > 1e-9:
            clock.now += wait
        bucket.take(amount)
        times.append(clock.now)
    more = max(amounts) if scale > 1 else 0
    assert most_within(times, 60, amounts) <= limit * (1 + 1e-6) + more


def test_one_request_a_minute_is_a_limit_too() -> None:
    clock = Clock()
    bucket = Bucket(1, clock)
    assert bucket.wait(1) == 0
    bucket.take(1)
    assert 60 < bucket.wait(1) < 150


def test_a_minute_of_even_requests_gets_nearly_all_of_the_limit() -> None:
    clock = Clock()
    bucket = Bucket(600, clock)
    times = []
    while clock.now < 600:
        clock.now += bucket.wait(1)
        bucket.take(1)
        times.append(clock.now)
    assert 0.95 * 600 < most_within(times, 60) <= 600


def test_a_debt_is_waited_for_and_what_is_given_back_is_there() -> None:
    clock = Clock()
    bucket = Bucket(6000, clock)
    bucket.take(200)
    assert bucket.wait(1) == pytest.approx(101 / (0.99 * 5900 / 60))
    bucket.take(-150)
    assert bucket.wait(1) == 0


def test_each_limit_counts_its_own() -> None:
    def wait_for(**limits: int) -> float:
        limiting = RateLimits(LimitSettings(**limits), Clock())
        limiting._take(1, 60, 6)
        return max(bucket.wait(1) for bucket, _ in limiting._buckets)

    assert wait_for(requests_per_minute=60) > 0.9
    assert wait_for(requests_per_minute=600) == 0
    assert wait_for(input_tokens_per_minute=3600) > 0
    assert wait_for(output_tokens_per_minute=3600) == 0
    assert wait_for(tokens_per_minute=3600) > wait_for(input_tokens_per_minute=3600)


def test_the_gate_opens_while_all_goes_well_and_closes_under_overload() -> None:
    clock = Clock()
    gate = Gate(1000, clock)
    for _ in range(100):
        gate.went_well()
    assert gate.limit == 116
    for _ in range(50):
        gate.overloaded()  # one burst of failures counts once
    assert gate.limit == 81
    for _ in range(81):
        gate.went_well()
    assert gate.limit in (81, 82)  # one more per round, not per answer
    for _ in range(100):
        clock.now += 2
        gate.overloaded()
    assert gate.limit == 1


def test_the_gate_never_lets_in_more_than_its_limit_and_forgets_nobody() -> None:
    async def main() -> tuple[int, int]:
        gate, inside, most, done = Gate(3), 0, 0, 0

        async def one(number: int) -> None:
            nonlocal inside, most, done
            async with gate:
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0.001)
                inside -= 1
            done += 1

        tasks = [asyncio.create_task(one(number)) for number in range(50)]
        await asyncio.sleep(0.002)
        for task in tasks[20:30]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return most, done

    assert asyncio.run(main()) == (3, 40)
