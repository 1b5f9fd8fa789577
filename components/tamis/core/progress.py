"""Progress of long work, as a bar on a terminal and as log lines elsewhere, and the format of the log.

This module imports no large package: the first line must appear before PyTorch is loaded, which takes seconds, and up
to a minute on a busy machine.
"""

from __future__ import annotations

import importlib
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from tamis.core.secrets import Formatter, mask_tracebacks

WARNING, _ERROR = "warning: ", "error: "  # prefixes of messages
_FIRST_LINE_SECONDS, _LINE_EVERY_SECONDS = 3.0, 10.0
_REMINDER_SECONDS, _SHORT_SECONDS = 30.0, 2.0
_WINDOW_SECONDS = 60.0  # the rate is that of the last minute, so that a slow start or a pause is soon forgotten


class _Labelled(Formatter):
    """Puts the level before warnings and errors."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line without a traceback."""
        if record.levelno >= logging.WARNING:
            record.message = (WARNING if record.levelno < logging.ERROR else _ERROR) + record.message
        return super().formatMessage(record)


def set_up_logging(verbose: bool = False) -> None:
    """Log to standard error: "12:34:56 tamis.rating message", warnings as "12:34:56 tamis.rating warning: message".

    Of other packages only warnings and errors are logged. Secrets are masked, also in tracebacks.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Labelled("%(asctime)s %(name)s %(message)s", "%H:%M:%S"))
    # Forced, because kfp's executor configures logging before a component runs.
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    mask_tracebacks()
    for ours in ("tamis", "tamis_pipelines"):
        logging.getLogger(ours).setLevel(logging.DEBUG if verbose else logging.INFO)


@contextmanager
def loading(what: str, *, at_once: bool = True) -> Iterator[None]:
    """Log that `what` is being loaded, a reminder every 30 seconds, and at the end how many seconds it took.

    Without `at_once`, nothing is logged if loading takes less than two seconds.
    """
    with timed(f"loading {what}", f"loaded {what}", at_once=at_once):
        yield


@contextmanager
def timed(doing: str, done: str, *, at_once: bool = True) -> Iterator[None]:
    """Log the start of some work, a reminder every 30 seconds, and at the end how many seconds it took.

    Errors are passed on and not logged here.
    """
    log, start, over = logging.getLogger("tamis.progress"), time.monotonic(), threading.Event()
    said = at_once

    def remind() -> None:
        nonlocal said
        if not said:
            if over.wait(_SHORT_SECONDS):
                return
            said = True
            log.info("%s …", doing)
        while not over.wait(_REMINDER_SECONDS):
            log.info("%s: %.0f s so far", doing, time.monotonic() - start)

    if at_once:
        log.info("%s …", doing)
    threading.Thread(target=remind, daemon=True).start()
    try:
        yield
    finally:
        over.set()
    if said:
        log.info("%s in %.1f s", done, time.monotonic() - start)


def load_packages(*names: str) -> None:
    """Import packages or modules that take long to import, and log this unless they are imported already.

    Raises:
        ImportError: when one is not installed.
    """
    if new := [name for name in names if name not in sys.modules]:
        shown = ", ".join(name.partition(".")[0] for name in new)
        with loading(f"the package{'s' if len(new) > 1 else ''} {shown}"):
            for name in new:
                importlib.import_module(name)


class Progress:
    """Counts finished units of work and shows the progress.

    Use it as a context manager and call `advance`. If there is no progress for 30 seconds, a line says that the work
    continues. `total` is None if unknown. `done` units were finished by an earlier run: they are shown, but do not
    count for the rate.
    """

    def __init__(self, title: str, total: int | None, *, unit: str = "samples", done: int = 0) -> None:
        self._title, self._total, self._unit = title, total, unit
        self._done = self._first = done
        self._note = ""
        self._log = logging.getLogger("tamis.progress")

    def __enter__(self) -> Progress:
        self._start = now = time.monotonic()
        self._next_line = now + _FIRST_LINE_SECONDS
        self._last_line, self._over = now, threading.Event()
        self._marks = deque([(now, 0)])  # times, with the units finished without failure by then
        self._well = 0
        self._bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            # tqdm's own rate and remaining time would include failures, which are quick.
            form = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
            form = form if self._total is not None else "{desc}: {n_fmt}{unit} [{elapsed}{postfix}]"
            self._bar = tqdm(
                total=self._total, desc=self._title, unit=f" {self._unit}", initial=self._first, bar_format=form
            )
        else:
            threading.Thread(target=self._remind, name=f"progress of {self._title}", daemon=True).start()
        return self

    def _remind(self) -> None:
        """Log a line if there was none for long, as during a first large block."""
        while not self._over.wait(max(0.0, self._last_line + _REMINDER_SECONDS - time.monotonic())):
            if time.monotonic() - self._last_line >= _REMINDER_SECONDS:
                self._say(*self._marks[0])

    def advance(self, count: int = 1, note: str = "", *, failed: int = 0) -> None:
        """Count `count` more finished units. `note` is shown next to them, as in "350 tokens/s".

        `failed` of them count as done, but not for the rate and the remaining time, because failures are quick.
        """
        self._done += count
        self._well += count - failed
        self._note = note or self._note
        now = time.monotonic()
        if now - self._marks[-1][0] >= 1:
            self._marks.append((now, self._well))
            while len(self._marks) > 2 and now - self._marks[1][0] >= _WINDOW_SECONDS:
                self._marks.popleft()
        if self._bar is not None:
            rate, left = self._rate_and_left(*self._marks[0])
            self._bar.set_postfix_str(f"{rate:.1f}/s{left}{', ' if self._note else ''}{self._note}", refresh=False)
            self._bar.update(count)
        elif now >= self._next_line and self._done != self._total:  # the last line is logged on exit
            self._next_line = now + _LINE_EVERY_SECONDS
            self._say(*self._marks[0])

    def _rate_and_left(self, since: float, before: int) -> tuple[float, str]:
        """The rate since the time `since`, when `before` units had been finished, and the remaining time as text."""
        seconds = time.monotonic() - since
        rate = (self._well - before) / seconds if seconds > 0 else 0.0
        if self._total is None or rate <= 0 or self._done >= self._total:
            return rate, ""
        return rate, f", {_duration((self._total - self._done) / rate)} left"

    def _say(self, since: float, before: int) -> None:
        """Log one line with the rate since the time `since`, when `before` units had been finished."""
        self._last_line = time.monotonic()
        rate, left = self._rate_and_left(since, before)
        note = f", {self._note}" if self._note else ""
        if self._total is None:
            self._log.info("%s: %d %s, %.1f/s%s", self._title, self._done, self._unit, rate, note)
            return
        share = 100 * self._done / max(self._total, 1)
        seen = f"{self._title}: {self._done} of {self._total} {self._unit} ({share:.0f} %), {rate:.1f}/s"
        self._log.info("%s%s%s", seen, note, left)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._bar is not None:
            self._bar.close()
        elif kind is None:
            self._say(self._start, 0)  # the rate of the whole work


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{hours:.1f} h" if hours >= 2 else f"{minutes:.0f} min" if minutes >= 2 else f"{seconds:.0f} s"
