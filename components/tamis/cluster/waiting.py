"""Waiting for artifacts, on clusters where no pipeline engine starts the stages in order."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from tamis.core.artifacts import MANIFEST, Artifact
from tamis.core.errors import ArtifactError
from tamis.core.storage import exists, locate

log = logging.getLogger(__name__)
_SAY_EVERY_SECONDS = 300.0


def wait_for(uris: Sequence[str], *, timeout: float, every: float) -> None:
    """Return when every artifact at `uris` is finished. Check every `every` seconds.

    If storage does not answer, the wait ends at once: the pod's log then says why, and its Job starts another pod.

    Raises:
        ArtifactError: after `timeout` seconds, with the unfinished artifacts; or when a manifest cannot be read.
        StorageError: when storage refuses access or does not answer.
    """
    give_up = time.monotonic() + timeout
    said = float("-inf")
    waiting = list(uris)
    while waiting := [uri for uri in waiting if not _finished(uri)]:
        now = time.monotonic()
        if now >= give_up:
            raise ArtifactError(
                f"still unfinished after {timeout:.0f} s: {', '.join(waiting)}",
                action="look at the Jobs that make them (kubectl get jobs), or raise --timeout",
                permanent=False,
            )
        if now - said >= _SAY_EVERY_SECONDS:
            log.info("waiting for %s", ", ".join(waiting))
            said = now
        time.sleep(min(every, give_up - now))


def _finished(uri: str) -> bool:
    if not exists(locate(uri) / MANIFEST):
        return False
    manifest = Artifact.open(uri).manifest
    log.info("ready: %s (%s, %s rows)", uri, manifest.kind, f"{manifest.rows:,}")
    return True
