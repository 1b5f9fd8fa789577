"""Processes: the cores they have, those that work for another one, and how they end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of the container: microseconds of CPU time, in as many


def cores() -> int:
    """Cores that this process may use: those it is bound to, and no more than its container's CPU limit."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text(encoding="ascii").split()
    except (OSError, ValueError):  # no container, or one of cgroups' first version
        return bound
    return bound if quota == "max" else min(bound, max(1, ceil(int(quota) / int(period))))


def end_with(pid: int) -> None:
    """End this process within a second or two of the process `pid`, however that one ends."""

    def watch() -> None:
        while True:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                os._exit(1)
            time.sleep(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Lets SIGTERM, by which Kubernetes evicts a pod, end the run as an error would: what is finished is stored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
