"""Processes: those that work for another one, and how they end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


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
