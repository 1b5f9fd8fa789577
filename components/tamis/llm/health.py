"""Whether a service answers at all: judged by how many requests fail while none succeeds, not by any one of them."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from tamis.llm.faults import Fault

log = logging.getLogger(__name__)
_DIFFERENT = 5  # requests that fail with no sign of life in between: it is not their texts
_DENIALS = 3  # of key, model or account, with no answer in between
_SURE = 1.0  # seconds that both have to last: what is shorter is no outage
_IN_A_ROW = 20  # requests given up with no answer in between: more of them would be too
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0  # seconds between two requests to a service that is away
_FIRST_WORD, _RAREST_WORD = 60.0, 600.0  # seconds between two lines of the log about it


@dataclass(slots=True, eq=False)
class Course:
    """How one request has fared.

    Attributes:
        sent: how often it was sent.
        tries: how many of these failed while the service was thought to answer.
        since: from when on its patience counts.
    """

    sent: int = 0
    tries: int = 0
    since: float = 0.0
    _sent_at: float = 0.0
    _failed_at: float | None = None  # for the first time since the last outage
    _last_failures: tuple[float, float] = (0.0, 0.0)  # when it failed last but one, and last
    _outages: int = 0


@dataclass(slots=True)
class _Row:
    """Failures with no sign of life in between."""

    since: float
    courses: set[Course]
    count: int = 0
    proved: bool = False  # a request that had been answered before failed too


class Health:
    """Tells a service that is away from requests that fail by themselves.

    A request that fails again though another one, sent after its first failure, was dealt with, does so by its own text
    and says nothing about the service. `_DIFFERENT` others in a row mean that the service is away; one is enough where
    there is no connection. Then requests are to be sent one at a time, as `wait` says, and their failures are not their
    own. A service that is away for longer than `patience`, that denies everybody, or under which `_IN_A_ROW` requests
    were given up, is `hopeless` - but not where no other request is left to be asked: then those that fail are given up
    as they are.

    Requests that fail by their own texts may come in a row, too. Only one that was answered before can tell them from
    an outage. So once there is one, it is sent again before the service counts as away, and as long as it does, where
    `wants_probe` says so; `probed` gets what came of it.

    Args:
        name: of the service, for the log.
        patience: seconds that it is waited for.
        clock: seconds.
    """

    def __init__(self, name: str, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._name, self._patience, self._clock = name, patience, clock
        self.hopeless: Fault | None = None
        self.expects_more = True  # whether there are requests that have not begun
        self.resigned = False  # whether those that failed are to be given up
        self._absent: _Row | None = None
        self._denied: _Row | None = None
        self._away = self._doubted = self._answered = self._unsure = False
        self._unsent = 0  # requests that were never sent
        self._outages = self._given_up = 0
        self._dealt_with = float("-inf")  # when the last was sent of those that were dealt with
        self._last_answered = float("-inf")  # likewise, of those that were answered
        self._back = 0.0  # when the last outage ended
        self._pause = self._next = self._next_word = 0.0

    @property
    def alone(self) -> bool:
        """Whether requests are to be sent one at a time."""
        return self._away or self._doubted or self._unsure

    @property
    def wants_probe(self) -> bool:
        """Whether a request that was answered before is to be sent again, before any other."""
        return (self._away or self._unsure) and self._answered

    def wait(self) -> float:
        """Seconds until the next request may be sent."""
        return max(0.0, self._next - self._clock()) if self.alone else 0.0

    def begin(self) -> Course:
        """A request that waits for its turn."""
        self._unsent += 1
        return Course()

    def sending(self, course: Course) -> None:
        """It is sent, for the first time or again."""
        if not course.sent:
            self._unsent -= 1
            course.since = self._clock()
        course.sent += 1
        course._sent_at = self._clock()

    def end(self, course: Course) -> None:
        """Nothing more will come of it."""
        if not course.sent:
            self._unsent -= 1

    def patient_until(self, course: Course) -> float:
        """When a request's patience ends; outages do not count."""
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
        """The service dealt with a request, though perhaps by a refusal."""
        self._dealt_with = max(self._dealt_with, course._sent_at)
        if self._away:
            assert self._absent is not None
            if course._sent_at < self._absent.since:
                return  # its answer was on the way
            log.warning("%s answers again, after %.0f s", self._name, self._clock() - self._absent.since)
            self._away, self._back = False, self._clock()
            self._outages += 1
        self._absent, self._unsure, self.resigned = None, False, False

    def failed(self, course: Course, fault: Fault) -> None:
        """A sending failed."""
        if course._outages != self._outages:  # what was then says nothing about it
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
        """Whether a failure may turn out to be the service's in a moment."""
        row = self._absent
        return fault.absent and row is not None and course in row.courses and self._clock() - row.since < _SURE

    def doubts(self, course: Course, fault: Fault) -> bool:
        """Whether a request that is to be given up may fail for an outage that only a probe can tell."""
        if not fault.absent or not self._answered or self._dealt_with > course._last_failures[0]:
            return False
        self._suspect()
        return True

    def _suspect(self) -> None:
        """Let a request that was answered before tell whether the service is away."""
        if not self._away and not self._unsure:
            self._unsure, self._pause, self._next = True, _FIRST_PAUSE, 0.0

    def probed(self, course: Course, fault: Fault | None) -> bool:
        """A request that was answered before was sent again, and failed by `fault`, if any.

        Returns:
            Whether the service deals with others as it did: those that fail do so by themselves.
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
                    "%s answers what it answered before: the requests that fail do so by themselves", self._name
                )
            self._away, self._back = False, self._clock()
        self._lives(course)
        return not outage

    def gave_up(self, course: Course, fault: Fault) -> None:
        """A request came to nothing, by a fault that does not name its text as the reason."""
        if fault.absent and course._failed_at is not None and self._last_answered > course._failed_at:
            return  # another was answered between its failures: they are its own
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
            "%s does not answer (%s); waiting for it for up to %g s ('patience'), with one request at a time",
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
        """Ask no more; but where no other request is left, these may be the ones that fail by their texts."""
        if sure or self._others_left:
            self.hopeless = self.hopeless or fault
        else:
            self.resigned = True

    def _plan_next(self, most: float) -> None:
        """When the next request may go out: later each time, but not past `most` seconds from now."""
        if self._clock() >= self._next:  # else it is one that was under way already
            self._next = self._clock() + min(self._pause * random.uniform(0.8, 1.0), max(most, 0.0))
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
