"""Processes: how many cores they may use, and how they and their children stop."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from math import ceil
from pathlib import Path
from typing import Any

from tamis.core.errors import StoppedError

_LONGEST_END = 60.0  # seconds for storing finished work

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of the container: microseconds of CPU time per period of microseconds


def cores() -> int:
    """Number of cores that this process may use: those it is bound to, up to its container's CPU limit."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text(encoding="ascii").split()
    except (OSError, ValueError):  # no container, or a container with cgroups version 1
        return bound
    return bound if quota == "max" else min(bound, max(1, ceil(int(quota) / int(period))))


def end_with(pid: int, stop_file: Path | None = None) -> None:
    """Stop this process soon after the process `pid` has ended, or when `stop_file` appears.

    It gets SIGTERM, so that `ended_in_order` can store finished work, and is killed a minute later.
    """

    def watch() -> None:
        while runs(pid) and not (stop_file is not None and stop_file.exists()):
            time.sleep(1)
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
            time.sleep(_LONGEST_END)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def runs(pid: int) -> bool:
    """Whether a process with this id runs on this machine, of whichever user."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


class _Signalled(SystemExit):
    """This process received a signal to stop."""


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Let SIGTERM, which Kubernetes sends to evict a pod, and Ctrl-C stop the work like an error: results are stored.

    A second Ctrl-C stops it at once.

    Raises:
        StoppedError: when such a signal was received.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def end(number: int, frame: object) -> None:
        impatient = number == signal.SIGINT and number in came
        came.append(number)
        if impatient:
            raise KeyboardInterrupt
        if len(came) == 1:  # a terminal and a runner may both send one
            raise _Signalled(128 + number)

    with _handled(end):
        try:
            yield
        except _Signalled:
            raise StoppedError(
                stopped_by(came[0]), action="start it again: finished work is kept, and the run continues from there"
            ) from None


def stopped_by(number: int) -> str:
    """What stopped the work, given the signal."""
    return "stopped by Ctrl-C" if number == signal.SIGINT else f"stopped from outside ({signal.Signals(number).name})"


@contextmanager
def stops_children(stop_file: Path) -> Iterator[list[int]]:
    """Let SIGTERM and Ctrl-C create `stop_file`, at which children that called `end_with` stop in order.

    A second Ctrl-C stops this process at once, and the children with it.

    Yields:
        The signals received so far; the list grows.
    """
    stop_file.unlink(missing_ok=True)
    with passed_on(stop_file.touch) as came:
        yield came


@contextmanager
def passed_on(stop: Callable[[], None]) -> Iterator[list[int]]:
    """Let SIGTERM and Ctrl-C call `stop`, which asks children to end in order; this process goes on and waits for them.

    A second Ctrl-C stops this process at once. Outside the main thread, signals are left as they are.

    Yields:
        The signals received so far; the list grows.
    """
    came: list[int] = []

    def end(number: int, frame: object) -> None:
        impatient = number == signal.SIGINT and number in came
        came.append(number)
        if impatient:
            raise KeyboardInterrupt
        stop()

    with _handled(end) if threading.current_thread() is threading.main_thread() else nullcontext():
        yield came


@contextmanager
def _handled(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Handle SIGTERM and SIGINT with `handler`. Only the main thread may call this."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
