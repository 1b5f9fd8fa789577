"""Following a run until it ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from tamis_pipelines.runs.reading import read
from tamis_pipelines.runs.run import Run
from tamis_pipelines.server import Connection, KubeflowError

log = logging.getLogger(__name__)
_QUIET_SECONDS = 300.0  # how long a server may be away
_MISSING_SECONDS = 60.0  # how long it may not know a run that it has had; a gateway says so while the server starts


@dataclass(frozen=True)
class Seen:
    """A run as it was last seen.

    Attributes:
        run: the run.
        at: when the server last answered.
        away: whether it has not answered since then.
    """

    run: Run
    at: datetime
    away: bool


def follow(
    connection: Connection, run_id: str, show: Callable[[Run], None], *, every: float = 10.0, timeout: float = 0.0
) -> Seen:
    """Read a run again and again until it has ended or the time is up, and return it.

    A server that does not answer is named in one warning, however long that lasts.

    Args:
        connection: the server, which may fail to answer for five minutes.
        run_id: the run's id.
        show: called with the run after each answer.
        every: seconds between two requests.
        timeout: seconds to wait; 0: no limit.

    Raises:
        KubeflowError: when the server does not answer for longer, refuses, or does not know the run; where it has known
            the run, not for a minute.
    """
    began = heard = time.monotonic()
    seen, away = None, False
    while True:
        try:
            run = read(connection, run_id)
            if away:
                log.info("the server answers again")
            heard, away = time.monotonic(), False
            seen = Seen(run, datetime.now(UTC), away=False)
            show(run)
        except KubeflowError as error:
            patience = _patience(error, known=seen is not None)
            if time.monotonic() - heard >= patience:
                raise
            if not away:
                log.warning("%s; asking again for up to %.0f s", error.problem, patience)
            away = True
        over = bool(timeout) and time.monotonic() - began > timeout
        if seen is not None and (seen.run.state.ended or over):
            return replace(seen, away=away)
        time.sleep(every)


def _patience(error: KubeflowError, *, known: bool) -> float:
    """For how many seconds after the last answer this error is no reason to stop asking."""
    if error.away:
        return _QUIET_SECONDS
    return _MISSING_SECONDS if error.missing and known else 0.0
