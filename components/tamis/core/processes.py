"""Processes that work for another one."""

from __future__ import annotations

import os
import threading
import time


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
