"""Detects outages of a service: by how many requests fail while none succeeds, never by a single request."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from tamis.llm.faults import Fault

log = logging.getLogger(__name__)
_DIFFERENT = 5  # different requests that fail in a row, so their texts are not the cause
_DENIALS = 3  # denials of key, model or account in a row
_SURE = 1.0  # seconds that both must last to count as an outage
_IN_A_ROW = 20  # requests given up in a row, after which no more are sent
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0  # seconds between two requests during an outage
_FIRST_WORD, _RAREST_WORD = 60.0, 600.0  # seconds between two log messages about it


@dataclass(slots=True, eq=False)
class Course:
    """The history of one request.

    Attributes:
        sent: number of times it was sent.
        tries: number of these that failed outside of outages.
        since: time from which its patience counts.
    """

    sent: int = 0
    tries: int = 0
    since: float = 0.0
    _sent_at: float = 0.0
    _failed_at: float | None = None  # first failure since the last outage
    _last_failures: tuple[float, float] = (0.0, 0.0)  # times of the last two failures
    _outages: int = 0


@dataclass(slots=True)
class _Row:
    """Failures in a row, with no sign that the service works in between."""

    since: float
    courses: set[Course]
    count: int = 0
    proved: bool = False  # a request that was answered before has failed too


class Health:
    """Distinguishes an outage of the service from requests that fail because of their own text.

    If a request fails again although another one, sent after its first failure, was processed, its own text is the
    cause. `_DIFFERENT` other failures in a row mean that the service is down; without a connection, one is enough.
    During an outage, requests are sent one at a time, when `wait` allows it, and failures are not counted against them.
    If an outage lasts longer than `patience`, all requests are denied, or `_IN_A_ROW` requests were given up, the
    service is `hopeless`. The exception is that no other requests are left: then only the failing ones are given up.

    Requests that fail because of their own text may also come in a row. Only a request that was answered before can
    distinguish them from an outage. Such a request, once there is one, is sent as a probe before the service counts as
    down, and during the outage, whenever `needs_probe` is true; `probed` receives the outcome.

    Args:
        name: name of the service, for the log.
        patience: longest outage, in seconds.
        clock: returns the time in seconds.
    """

    def __init__(self, name: str, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._name, self._patience, self._clock = name, patience, clock
        self.hopeless: Fault | None = None
        self.expects_more = True  # whether more requests will come
        self.resigned = False  # whether failing requests are given up
        self._absent: _Row | None = None
        self._denied: _Row | None = None
        self._away = self._doubted = self._answered = self._unsure = False
        self._unsent = 0  # requests that were never sent
        self._outages = self._given_up = 0
        self._dealt_with = float("-inf")  # when the latest processed request was sent
        self._last_answered = float("-inf")  # when the latest answered request was sent
        self._back = 0.0  # when the last outage ended
        self._pause = self._next = self._next_word = 0.0

    @property
    def alone(self) -> bool:
        """Whether requests must be sent one at a time."""
        return self._away or self._doubted or self._unsure

    @property
    def needs_probe(self) -> bool:
        """Whether a probe, a request that was answered before, must be sent before any other."""
        return (self._away or self._unsure) and self._answered

    def wait(self) -> float:
        """Seconds until the next request may be sent."""
        return max(0.0, self._next - self._clock()) if self.alone else 0.0

    def begin(self) -> Course:
        """Register a request that waits to be sent."""
        self._unsent += 1
        return Course()

    def sending(self, course: Course) -> None:
        """Note that a request is sent, for the first time or again."""
        if not course.sent:
            self._unsent -= 1
            course.since = self._clock()
        course.sent += 1
        course._sent_at = self._clock()

    def end(self, course: Course) -> None:
        """Note that a request has ended."""
        if not course.sent:
            self._unsent -= 1

    def patient_until(self, course: Course) -> float:
        """When the patience of a request ends; the time of outages does not count."""
        return max(course.since, self._back) + self._patience

    def answered(self, course: Course) -> None:
        """A request was answered."""
        self._answered = True
        self._note_answer(course)
        self._lives(course)

    def _note_answer(self, course: Course) -> None:
        self._given_up, self._denied, self._doubted = 0, None, False
        self._last_answered = max(self._last_answered, course._sent_at)

    def _lives(self, course: Course) -> None:
        """Note that the service processed a request, perhaps by refusing it."""
        self._dealt_with = max(self._dealt_with, course._sent_at)
        if self._away:
            assert self._absent is not None
            if course._sent_at < self._absent.since:
                return  # it was sent before the outage
            log.warning("%s answers again after %.0f s", self._name, self._clock() - self._absent.since)
            self._away, self._back = False, self._clock()
            self._outages += 1
        self._absent, self._unsure, self.resigned = None, False, False

    def failed(self, course: Course, fault: Fault) -> None:
        """Note that a request failed."""
        if course._outages != self._outages:  # failures before the last outage do not count
            course._outages, course._failed_at = self._outages, None
        own = course._failed_at is not None and self._dealt_with > course._failed_at
        if course._failed_at is None:
            course._failed_at = self._clock()
        course._last_failures = course._last_failures[1], self._clock()
        if fault.absent:
            self._note_absence(course, fault, own)
        elif fault.denied and not own:
            self._note_denial(course, fault)
        elif not fault.hopeless:
            self._lives(course)
        if not self.alone:
            course.tries += 1

    def undecided(self, course: Course, fault: Fault) -> bool:
        """Whether a failure may soon turn out to be part of an outage."""
        row = self._absent
        return fault.absent and row is not None and course in row.courses and self._clock() - row.since < _SURE

    def doubts(self, course: Course, fault: Fault) -> bool:
        """Whether a probe must show first that a failing request is not the victim of an outage."""
        if not fault.absent or not self._answered or self._dealt_with > course._last_failures[0]:
            return False
        self._suspect()
        return True

    def _suspect(self) -> None:
        """Ask for a probe."""
        if not self._away and not self._unsure:
            self._unsure, self._pause, self._next = True, _FIRST_PAUSE, 0.0

    def probed(self, course: Course, fault: Fault | None) -> bool:
        """Note the outcome of a probe: `fault`, or None if it was answered.

        Returns:
            Whether the service works, so that other failures are caused by the requests.
        """
        if fault is not None and (fault.absent or fault.denied):
            unsure, self._unsure = self._unsure, False
            if fault.absent:
                self._absent = self._absent or _Row(self._clock(), set())
                self._absent.proved = True
            self.failed(course, fault)
            if fault.absent and unsure and not self._away:
                self._go_away(fault)
                self._plan_next(most=self._patience)
            return False
        if fault is None:
            self._note_answer(course)
        outage = self._absent is not None and self._absent.proved
        if not outage:
            if self._away:
                log.warning(
                    "%s still answers earlier requests: the failing requests are the cause themselves", self._name
                )
            self._away, self._back = False, self._clock()
        self._lives(course)
        return not outage

    def gave_up(self, course: Course, fault: Fault) -> None:
        """Note that a request was given up, by a fault that does not name its text as the cause."""
        if fault.absent and course._failed_at is not None and self._last_answered > course._failed_at:
            return  # another request was answered in between: its own text is the cause
        self._given_up += 1
        if self._given_up >= _IN_A_ROW and self._others_left:
            self.hopeless = self.hopeless or fault

    def _note_absence(self, course: Course, fault: Fault, own: bool) -> None:
        row = self._absent = self._absent or _Row(self._clock(), set())
        if not own:
            row.courses.add(course)
        unreachable = fault.kind == "no connection"
        lasts = self._clock() - row.since
        if not self._away and lasts >= _SURE and len(row.courses) >= (1 if unreachable else _DIFFERENT):
            if self._answered and not row.proved and not unreachable:
                self._suspect()
            else:
                self._go_away(fault)
        if not self._away:
            return
        if lasts >= self._patience:
            self._end(fault, sure=unreachable)
        elif self._clock() >= self._next_word:
            log.warning("%s has not answered for %.0f s (%s)", self._name, lasts, fault)
            self._next_word = self._clock() + min(_RAREST_WORD, max(lasts, _FIRST_WORD))
        self._plan_next(most=self._patience - lasts)

    def _go_away(self, fault: Fault) -> None:
        self._away, self._pause, self._next = True, _FIRST_PAUSE, 0.0
        self._next_word = self._clock() + _FIRST_WORD
        log.warning(
            "%s does not answer (%s); retrying for up to %g s ('patience'), with one request at a time",
            self._name, fault, self._patience,
        )  # fmt: skip

    def _note_denial(self, course: Course, fault: Fault) -> None:
        row = self._denied = self._denied or _Row(self._clock(), set())
        row.count += 1
        if row.count == 1:
            return
        if not self._doubted:
            self._doubted, self._pause, self._next = True, _FIRST_PAUSE, 0.0
        if row.count >= _DENIALS and self._clock() - row.since >= _SURE:
            self._end(fault, sure=not self._answered)
        self._plan_next(most=_FIRST_PAUSE)

    @property
    def _others_left(self) -> bool:
        return self.expects_more or self._unsent > 0

    def _end(self, fault: Fault, *, sure: bool) -> None:
        """Send no more requests; if no others are left, only give up the failing ones, whose texts may be the cause."""
        if sure or self._others_left:
            self.hopeless = self.hopeless or fault
        else:
            self.resigned = True

    def _plan_next(self, most: float) -> None:
        """Plan the next request: with growing pauses, but at most `most` seconds from now."""
        if self._clock() >= self._next:  # otherwise it was already under way
            self._next = self._clock() + min(self._pause * random.uniform(0.8, 1.0), max(most, 0.0))
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
