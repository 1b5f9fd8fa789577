"""Progress of long work, as lines of a log."""

from __future__ import annotations

import io
import logging
import re
import sys

import pytest

from tamis.core import progress
from tamis.core.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in its only entry, in seconds."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def _said(caplog: pytest.LogCaptureFixture) -> list[tuple[int, float, str]]:
    """Units done, rate and time left of each line."""
    found = [re.search(r": (\d+) of .*?([\d.]+)/s(?:, (.*) left)?$", record.message) for record in caplog.records]
    return [(int(one[1]), float(one[2]), one[3] or "") for one in found if one]


def test_the_first_line_comes_within_five_seconds_and_the_last_tells_of_all(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tamis")
    with Progress("work", 20) as work:
        for second in range(1, 21):
            clock[0] = second
            work.advance()
    assert _said(caplog) == [(3, 1.0, "17 s"), (13, 1.0, "7 s"), (20, 1.0, "")]


def test_the_time_left_follows_the_last_minute(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tamis")
    with Progress("work", 10_000) as work:
        for second in range(1, 601):  # ten minutes at one a second, then ten times as fast
            clock[0] = second
            work.advance(1 if second <= 500 else 10)
        done, rate, left = _said(caplog)[-1]
    assert rate == pytest.approx(10, abs=0.2)
    assert left == f"{(10_000 - done) / rate / 60:.0f} min"


def test_what_failed_is_done_but_does_not_shorten_the_time_left(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tamis")
    with Progress("work", 1_000) as work:
        for second in range(1, 5):
            clock[0] = second
            work.advance(101, failed=100)
        assert _said(caplog)[0] == (303, 1.0, "12 min")
        work.advance(596)


def test_a_bar_s_time_left_counts_successes(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("work", 1_000) as work:
        for second in range(1, 4):
            clock[0] = second
            work.advance(101, failed=100)
        assert work._bar is not None
        assert work._bar.postfix == "1.0/s, 12 min left"  # 697 of 1,000 are left
        work._bar.refresh()
    assert "303/1000" in terminal.getvalue()
    assert "it/s" not in terminal.getvalue()
    assert "samples/s" not in terminal.getvalue()


def test_what_both_packages_say_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    before = {name: logging.getLogger(name).level for name in ("", "tamis", "tamis_pipelines")}
    try:
        progress.set_up_logging()
        assert all(logging.getLogger(f"{name}.results").isEnabledFor(logging.INFO) for name in before if name)
        assert not logging.getLogger("transformers").isEnabledFor(logging.INFO)
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
