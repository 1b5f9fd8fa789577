"""Limits per minute and adaptive concurrency, on a clock of the test's own."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tamis.llm.limits import Amounts, Bucket, Gate, RateLimits
from tamis.llm.settings import LimitSettings
from tests.llm_server import most_within


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@example(limit=1, shares=[0.25, 1.0], scale=1.0)
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


def rounds_until(gate: Gate, limit: int) -> int:
    """How often all that may be under way is answered until so much may be."""
    rounds = 0
    while gate.limit < limit:
        for _ in range(gate.limit):
            gate.went_well()
        rounds += 1
        assert rounds < 1000
    return rounds


@pytest.mark.parametrize("most", [64, 1000])
def test_after_a_storm_the_old_rate_is_back_in_few_rounds(most: int) -> None:
    clock = Clock()
    gate = Gate(most, clock)
    rounds_until(gate, most)
    for _ in range(40):
        clock.now += 2
        gate.overloaded()
    assert gate.limit == 1
    assert rounds_until(gate, most) <= 25  # one more each round would take as many rounds as requests


def test_a_service_that_is_full_is_tried_carefully() -> None:
    """Thirty at once are too many: of a hundred rounds few meet that, and most of what it bears is used."""
    clock = Clock()
    gate = Gate(64, clock)
    refused = used = 0
    for _ in range(100):
        clock.now += 2
        under_way = gate.limit
        if under_way > 30:
            refused += under_way - 30
            gate.overloaded()
        used += min(under_way, 30)
        for _ in range(min(under_way, 30)):
            gate.went_well()
    assert used > 0.8 * 3000
    assert refused < 0.05 * used


def test_after_an_outage_the_gate_begins_anew() -> None:
    gate = Gate(64, Clock())
    rounds_until(gate, 64)
    gate.alone = True
    assert gate.limit == 1
    gate.alone = False
    assert gate.limit == 16
    assert rounds_until(gate, 64) == 2


@pytest.mark.parametrize(("input_share", "output"), [(3.0, 30), (1.9, 700), (0.5, 10)])
def test_tokens_hold_though_first_estimates_are_wrong(input_share: float, output: int) -> None:
    """Answers come two seconds after they were asked for; each was thought to take 130 tokens, and may have 1,024."""
    clock, limit = Clock(), 60_000
    limits = RateLimits(LimitSettings(tokens_per_minute=limit), clock)
    taken, under_way, times, tokens = Amounts(0, 0), deque[tuple[float, Amounts]](), [], []
    while clock.now < 240:
        clock.now += 0.01
        while under_way and under_way[0][0] <= clock.now:
            limits.settle(under_way.popleft()[1], 100, round(100 * input_share), output)
        while len(under_way) < 64 and (taken := limits.take_now(100, 30, 1024)) is not None:
            under_way.append((clock.now + 2, taken))
            times.append(clock.now)
            tokens.append(100 * input_share + output)
    most = most_within(times, 60, tokens)
    assert most <= 1.01 * limit
    late = sum(amount for at, amount in zip(times, tokens, strict=True) if at > 120)
    assert late > 0.8 * min(2 * limit, 120 * 32 * tokens[0])


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
