"""Progress of long work: a bar on a terminal, plain lines every few seconds elsewhere. And the log's form."""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from types import TracebackType

from tamis.core.secrets import Formatter, mask_tracebacks

WARNING, _ERROR = "warning: ", "error: "  # before the messages of these levels
_FIRST_LINE_SECONDS, _LINE_EVERY_SECONDS = 3.0, 10.0
_WINDOW_SECONDS = 60.0  # the rate is that of the last minute: a slow start or a pause does not spoil it for ever


class _Labelled(Formatter):
    """Says of warnings and errors that they are some."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line, without a traceback."""
        if record.levelno >= logging.WARNING:
            record.message = (WARNING if record.levelno < logging.ERROR else _ERROR) + record.message
        return super().formatMessage(record)


def set_up_logging(verbose: bool = False) -> None:
    """Log to standard error: "12:34:56 tamis.rating message", warnings as "12:34:56 tamis.rating warning: message".

    Other packages are heard from warnings on. Secrets are masked, in tracebacks too.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Labelled("%(asctime)s %(name)s %(message)s", "%H:%M:%S"))
    # Forced, since kfp's executor has set up a logging of its own before a component runs.
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    mask_tracebacks()
    logging.getLogger("tamis").setLevel(logging.DEBUG if verbose else logging.INFO)


class Progress:
    """Counts finished units of work and says how far it is.

    Use it as a context manager and call `advance`. `total` may be None when it is not known; `done` counts what an
    earlier run had finished, which is shown but does not enter the rate.
    """

    def __init__(self, title: str, total: int | None, *, unit: str = "samples", done: int = 0) -> None:
        self._title, self._total, self._unit = title, total, unit
        self._done = self._first = done
        self._note = ""
        self._log = logging.getLogger("tamis.progress")

    def __enter__(self) -> Progress:
        self._start = now = time.monotonic()
        self._next_line = now + _FIRST_LINE_SECONDS
        self._marks = deque([(now, 0)])  # when so many units had been finished well
        self._well = 0
        self._bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=self._total, desc=self._title, unit=f" {self._unit}", initial=self._first)
        return self

    def advance(self, count: int = 1, note: str = "", *, failed: int = 0) -> None:
        """Say that `count` more units are finished; `note` is shown beside them, as in "350 tokens/s".

        `failed` of them count as done, but not in the rate and the time that is left: failing is quick.
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
            self._bar.set_postfix_str(self._note, refresh=False)
            self._bar.update(count)
        elif now >= self._next_line and self._done != self._total:  # the end is said at the end
            self._next_line = now + _LINE_EVERY_SECONDS
            self._say(*self._marks[0])

    def _say(self, since: float, before: int) -> None:
        """One line; the rate is that since the time `since`, when `before` units had been finished well."""
        seconds = time.monotonic() - since
        rate = (self._well - before) / seconds if seconds > 0 else 0.0
        note = f", {self._note}" if self._note else ""
        if self._total is None:
            self._log.info("%s: %d %s, %.1f/s%s", self._title, self._done, self._unit, rate, note)
            return
        left = f", {_duration((self._total - self._done) / rate)} left" if rate > 0 and self._done < self._total else ""
        share = 100 * self._done / max(self._total, 1)
        seen = f"{self._title}: {self._done} of {self._total} {self._unit} ({share:.0f} %), {rate:.1f}/s"
        self._log.info("%s%s%s", seen, note, left)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif kind is None:
            self._say(self._start, 0)  # all of it


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{hours:.1f} h" if hours >= 2 else f"{minutes:.0f} min" if minutes >= 2 else f"{seconds:.0f} s"
