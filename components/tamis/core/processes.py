"""Processes: the cores they have, those that work for another one, and how they end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import Any

from tamis.core.errors import StoppedError

_LONGEST_END = 60.0  # seconds to store what is finished

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of the container: microseconds of CPU time, in as many


def cores() -> int:
    """Cores that this process may use: those it is bound to, and no more than its container's CPU limit."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text(encoding="ascii").split()
    except (OSError, ValueError):  # no container, or one of cgroups' first version
        return bound
    return bound if quota == "max" else min(bound, max(1, ceil(int(quota) / int(period))))


def end_with(pid: int, stop_file: Path | None = None) -> None:
    """End this process within a second or two of the process `pid`, or as soon as `stop_file` exists.

    It ends as by SIGTERM, so that `ended_in_order` can store what is finished; a minute later it is ended in any case.
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
    """Whether a process of this number runs on this machine, whoever's it is."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


class _Signalled(SystemExit):
    """A signal came that asks this process to end."""


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Let SIGTERM, by which Kubernetes evicts a pod, and Ctrl-C end the work as an error would: results are stored.

    A second Ctrl-C ends it at once.

    Raises:
        StoppedError: when such a signal came.
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
        if len(came) == 1:  # a terminal and a runner may both ask
            raise _Signalled(128 + number)

    with _handled(end):
        try:
            yield
        except _Signalled:
            raise StoppedError(
                stopped_by(came[0]), action="start it again: what is finished is kept, and the work goes on from there"
            ) from None


def stopped_by(number: int) -> str:
    """Who ended the work, by the signal that came."""
    return "stopped by Ctrl-C" if number == signal.SIGINT else f"stopped from outside ({signal.Signals(number).name})"


@contextmanager
def stops_children(stop_file: Path) -> Iterator[list[int]]:
    """Let SIGTERM and Ctrl-C make `stop_file`, which ends children that watch for it by `end_with`, in order.

    A second Ctrl-C ends this process at once, and the children with it.

    Yields:
        The signals that came; it grows.
    """
    came: list[int] = []

    def stop(number: int, frame: object) -> None:
        impatient = number == signal.SIGINT and number in came
        came.append(number)
        if impatient:
            raise KeyboardInterrupt
        stop_file.touch()

    stop_file.unlink(missing_ok=True)
    with _handled(stop):
        yield came


@contextmanager
def _handled(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Have SIGTERM and SIGINT handled by `handler`; call it in the main thread."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
