"""Telling a service that is away from requests that fail by themselves, on a clock of the test's own."""

from __future__ import annotations

import pytest

from tamis.llm.faults import Fault
from tamis.llm.health import Course, Health

BOOM, GONE, DENIED, BLOCKED = (
    Fault("server error", "503"),
    Fault("no connection"),
    Fault("unauthorised", "401"),
    Fault("forbidden", "403"),
)


class Service:
    """A health with a clock, and shorthand for what happens."""

    def __init__(self, patience: float = 600.0) -> None:
        self.now = 0.0
        self.health = Health("the service", patience, lambda: self.now)

    def sent(self, course: Course | None = None) -> Course:
        course = course or self.health.begin()
        self.health.sending(course)
        return course

    def fails(self, fault: Fault, course: Course | None = None, after: float = 0.0) -> Course:
        course = self.sent(course)
        self.now += after
        self.health.failed(course, fault)
        return course

    def answers(self) -> None:
        self.health.answered(self.sent())

    def goes_away(self, fault: Fault = BOOM) -> None:
        for _ in range(6):
            self.fails(fault, after=0.3)
        assert self.health.alone


def test_five_different_requests_over_a_second_mean_that_it_is_away() -> None:
    service = Service()
    one = service.health.begin()
    for _ in range(20):
        service.fails(BOOM, one, after=0.3)
    assert not service.health.alone  # one request, however often
    for _ in range(3):
        service.fails(BOOM)
    assert not service.health.alone
    service.fails(BOOM)
    assert service.health.alone


def test_many_failures_of_one_moment_mean_nothing_yet() -> None:
    service = Service()
    for _ in range(500):
        service.fails(BOOM)
    assert not service.health.alone
    service.answers()
    service.now += 5
    service.fails(BOOM)
    assert not service.health.alone


def test_a_service_that_cannot_be_reached_is_away_by_one_request() -> None:
    service = Service()
    one = service.fails(GONE)
    service.fails(GONE, one, after=1.0)
    assert service.health.alone


def test_a_request_that_fails_again_while_another_was_dealt_with_says_nothing() -> None:
    service = Service()
    bad = []
    for _ in range(50):
        bad.append(service.fails(BOOM))
        service.answers()
        service.now += 0.1
    for _ in range(5):  # nothing else is left to be asked
        for course in bad:
            service.fails(BOOM, course, after=0.1)
    assert not service.health.alone
    assert service.health.hopeless is None
    assert {course.tries for course in bad} == {6}


def test_while_it_is_away_pauses_grow_and_no_try_counts(caplog: pytest.LogCaptureFixture) -> None:
    service = Service(patience=1e9)
    service.goes_away()
    one, sent = service.health.begin(), 0
    start = service.now
    while service.now < start + 3600:
        service.now += service.health.wait()
        service.fails(BOOM, one)
        sent += 1
    assert 240 <= sent <= 320  # one in 12 to 15 seconds
    assert one.tries == 0
    assert 5 <= len(caplog.records) <= 12
    service.answers()
    assert not service.health.alone
    assert service.health.patient_until(one) == service.now + 1e9  # begins anew


def test_what_was_on_the_way_when_it_went_away_does_not_end_the_outage() -> None:
    service = Service()
    before = service.sent()
    service.goes_away()
    service.health.answered(before)
    assert service.health.alone
    service.answers()
    assert not service.health.alone


@pytest.mark.parametrize(("fault", "more"), [(BOOM, True), (BOOM, False), (GONE, True), (GONE, False)])
def test_patience_ends_the_run_or_only_what_cannot_be_told_from_bad_samples(fault: Fault, more: bool) -> None:
    service = Service(patience=100)
    service.health.expects_more = more
    one = service.health.begin()
    service.goes_away(fault)
    while service.health.hopeless is None and not service.health.resigned:
        assert service.now <= 101
        service.now += max(service.health.wait(), 0.01)
        service.fails(fault, one)
    assert service.now >= 100
    assert service.health.resigned == (fault is BOOM and not more)


def test_three_denials_over_a_second_end_it_and_an_answer_in_between_does_not() -> None:
    service = Service()
    for _ in range(50):
        service.fails(DENIED, after=0.5)
        service.fails(DENIED, after=0.5)
        service.answers()
    assert service.health.hopeless is None
    for _ in range(16):
        service.fails(DENIED)  # a moment's
    assert service.health.hopeless is None
    assert service.health.alone
    service.fails(DENIED, after=1.0)
    assert service.health.hopeless == DENIED


def test_twenty_given_up_in_a_row_end_it_if_others_are_left() -> None:
    for more in (True, False):
        service = Service()
        service.health.expects_more = more
        for number in range(60):
            service.health.gave_up(service.fails(BLOCKED), BLOCKED)
            if number == 18:
                service.answers()
        assert (service.health.hopeless is not None) == more


@pytest.mark.parametrize("more", [True, False])
def test_one_that_was_answered_before_tells_bad_samples_from_an_outage(
    more: bool, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service()
    service.answers()
    service.health.expects_more = more
    one = service.health.begin()
    service.sent(one)
    assert not service.health.needs_probe
    service.goes_away()
    assert service.health.needs_probe
    assert service.health.probed(service.sent(), None)
    assert (service.health.alone, service.health.needs_probe) == (False, False)
    service.fails(BOOM, one)
    assert (service.health.alone, one.tries) == (False, 1)  # its own fault
    assert not caplog.records  # nobody was told of an outage


@pytest.mark.parametrize("more", [True, False])
def test_an_outage_that_the_probe_shows_too_is_waited_for(more: bool) -> None:
    service = Service()
    service.answers()
    service.health.expects_more = more
    one = service.fails(BOOM)
    assert not service.health.alone
    assert service.health.doubts(one, BOOM)  # before it is given up
    assert (service.health.alone, service.health.needs_probe) == (True, True)
    for _ in range(3):
        assert not service.health.probed(service.sent(), BOOM)
        assert service.health.wait() > 0
        service.now += service.health.wait()
    assert not service.health.probed(service.sent(), None)  # there was an outage, so the sample has its tries yet
    assert not service.health.alone
    service.fails(BOOM, one, after=0.1)
    service.fails(BOOM, one, after=0.1)
    assert service.health.doubts(one, BOOM)  # it may have begun again


def test_patience_that_is_over_ends_nothing_before_the_probe_has_failed() -> None:
    """Four requests that fail by themselves take longer than the patience, and nothing else was under way."""
    service = Service(patience=10)
    service.answers()
    bad = [service.fails(BOOM) for _ in range(4)]
    for course in bad:
        service.fails(BOOM, course, after=5)
    service.fails(BOOM)
    assert (service.health.hopeless, service.health.needs_probe) == (None, True)
    assert not service.health.probed(service.sent(), BOOM)
    assert service.health.hopeless == BOOM


def test_requests_that_failed_before_and_after_an_answer_do_not_count_as_given_up_in_a_row() -> None:
    service = Service()
    service.answers()
    bad = [service.fails(BOOM) for _ in range(60)]
    service.now += 2
    assert service.health.probed(service.sent(), None)
    for course in bad:
        service.health.gave_up(service.fails(BOOM, course), BOOM)
    assert service.health.hopeless is None


def test_without_an_answer_before_there_is_no_probe() -> None:
    service = Service()
    assert not service.health.doubts(service.fails(BOOM), BOOM)
    service.goes_away()
    assert not service.health.needs_probe
