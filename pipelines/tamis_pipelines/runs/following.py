"""Following a run until it ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from tamis_pipelines.runs.reading import read
from tamis_pipelines.runs.run import Run
from tamis_pipelines.server import Connection, KubeflowError

log = logging.getLogger(__name__)
_QUIET_SECONDS = 300.0  # how long a server may be away
_MISSING_SECONDS = 60.0  # how long it may not know a run that it has had; a gateway says so while the server starts


def follow(
    connection: Connection, run_id: str, show: Callable[[Run], None], *, every: float = 10.0, timeout: float = 0.0
) -> Run:
    """Read a run again and again until it has ended or the time is up, and return it.

    Args:
        connection: the server, which may fail to answer for five minutes.
        run_id: the run's id.
        show: called with the run after each look.
        every: seconds between two looks.
        timeout: seconds to wait; 0: as long as it takes.

    Raises:
        KubeflowError: when the server does not answer for longer, refuses, or does not know the run; where it has known
            the run, not for a minute.
    """
    began = heard = time.monotonic()
    run = None
    while True:
        try:
            run = read(connection, run_id)
            heard = time.monotonic()
            show(run)
        except KubeflowError as error:
            if time.monotonic() - heard >= _patience(error, known=run is not None):
                raise
            log.warning("%s; asking again", error.problem)
        over = bool(timeout) and time.monotonic() - began > timeout
        if run is not None and (run.state.ended or over):
            return run
        time.sleep(every)


def _patience(error: KubeflowError, *, known: bool) -> float:
    """For how many seconds after the last answer this error is no reason to stop asking."""
    if error.away:
        return _QUIET_SECONDS
    return _MISSING_SECONDS if error.missing and known else 0.0
