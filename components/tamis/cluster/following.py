"""The progress of a TrainJob: its conditions, its pods, the first node's log, and why it failed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tamis.core.errors import PERMANENT, TamisError

log = logging.getLogger(__name__)
Body = dict[str, Any]
TAIL = 20  # lines of a failed pod that are shown
_RANK = "batch.kubernetes.io/job-completion-index"
_LAST_ATTEMPT_SECONDS = 120.0  # pods that failed longer than this before the last one belong to an earlier attempt


def _conditions(job: Body) -> list[Body]:
    return [one for one in job.get("status", {}).get("conditions", ()) if one["status"] == "True"]


def ended_as(job: Body) -> str | None:
    """How a TrainJob has ended: "Complete" or "Failed"; None if it has not ended."""
    return next((one["type"] for one in _conditions(job) if one["type"] in ("Complete", "Failed")), None)


def message(job: Body, kind: str) -> str:
    """The message of the condition `kind` of a TrainJob."""
    found = next(one for one in _conditions(job) if one["type"] == kind)
    return str(found["message"] or found["reason"])


def _rank(pod: Any) -> str:
    """The number of a pod's node, from 0."""
    given = (pod.metadata.annotations or {}) | (pod.metadata.labels or {})
    return str(given.get(_RANK, "0"))


def container_of(pod: Any) -> str:
    """The container that trains; Kubeflow Trainer calls it "node"."""
    names: list[str] = [container.name for container in pod.spec.containers]
    return "node" if "node" in names else names[0]


def _statuses(pod: Any) -> list[Any]:
    return [*(pod.status.init_container_statuses or ()), *(pod.status.container_statuses or ())]


@dataclass
class Failure:
    """How a pod failed: its exit code, if a container ended with one, and its last output or message."""

    who: str
    ended: datetime
    how: str
    words: str
    exit_code: int | None = None


def failure_of(pod: Any) -> Failure | None:
    """How a pod failed; None if it has not."""
    who = f"{pod.metadata.name} (node {_rank(pod)})"
    for status in _statuses(pod):
        for state in (status.state, status.last_state):
            over = state.terminated if state else None
            if over is not None and over.exit_code:
                reason = "" if over.reason in (None, "Error") else f", {over.reason}"
                ended = over.finished_at or datetime.now(UTC)
                words = "\n".join((over.message or "").strip().splitlines()[-TAIL:])
                return Failure(who, ended, f"exit code {over.exit_code}{reason}", words, over.exit_code)
    if pod.status.phase == "Failed":
        words = pod.status.message or "no reason given"
        return Failure(who, datetime.now(UTC), pod.status.reason or "failed", words.strip())
    return None


@dataclass
class Seen:
    """What has been reported, and which pods failed, including those that no longer exist."""

    said: dict[str, str] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)

    def news(self, job: Body, pods: list[Any]) -> Iterator[str]:
        """Lines about what has changed since the last call."""
        states = {f"TrainJob: {one['type'].lower()}": str(one["message"] or one["reason"]) for one in _conditions(job)}
        states |= {f"node {_rank(pod)}": _state(pod) for pod in sorted(pods, key=_age)}
        for what, state in states.items():
            if self.said.get(what) != state:
                self.said[what] = state
                yield f"{what}: {state}"

    def last_words(self) -> list[str]:
        """How the pods of the last attempt failed, the earliest first."""
        last = reversed(self._last_attempt())
        unique = {one.words: f"{one.who}: {one.how}\n    " + one.words.replace("\n", "\n    ") for one in last}
        return list(reversed(unique.values()))[:3]

    def is_permanent(self) -> bool:
        """Whether a pod of the last attempt ended with the exit code for what another attempt cannot help."""
        return any(one.exit_code == PERMANENT for one in self._last_attempt())

    def _last_attempt(self) -> list[Failure]:
        """The failures of the last attempt, the earliest first."""
        found = sorted(self.failures.values(), key=lambda one: one.ended)
        return [one for one in found if (found[-1].ended - one.ended).total_seconds() <= _LAST_ATTEMPT_SECONDS]


def _age(pod: Any) -> Any:
    return pod.metadata.creation_timestamp


def _state(pod: Any) -> str:
    """The phase of a pod, and the reason if it is waiting."""
    for status in _statuses(pod):
        waiting = status.state.waiting if status.state else None
        if waiting is not None and waiting.reason not in (None, "ContainerCreating", "PodInitializing"):
            return f"waiting: {waiting.reason} {waiting.message or ''}".strip()
    for one in pod.status.conditions or ():
        if one.type == "PodScheduled" and one.status == "False":
            return f"not scheduled: {one.message or one.reason}"
    on = f" on {pod.spec.node_name}" if pod.spec.node_name else ""
    return f"{str(pod.status.phase).lower()}{on}"


class Logs:
    """Shows the log of the first node in the background, for each of its pods in turn."""

    def __init__(self, read: Callable[[Any, float | None], Iterator[str]], say: Callable[[str], None]) -> None:
        self._read, self._say = read, say
        self._threads: dict[str, threading.Thread] = {}
        self._last: dict[str, tuple[str, float]] = {}  # time of the last line shown, and when that was
        self._whole: set[str] = set()

    def follow(self, pods: list[Any]) -> None:
        """Start reading the logs of new pods, and continue where a connection ended before its pod."""
        for pod in pods:
            name = pod.metadata.name
            reading = name in self._threads and self._threads[name].is_alive()
            if _rank(pod) == "0" and pod.status.phase != "Pending" and name not in self._whole and not reading:
                self._threads[name] = threading.Thread(target=self._show, args=(pod,), daemon=True)
                self._threads[name].start()

    def _show(self, pod: Any) -> None:
        name = pod.metadata.name
        shown, when = self._last.get(name, ("", None))
        try:
            for line in self._read(pod, None if when is None else time.monotonic() - when):
                moment, _, text = line.partition(" ")
                if _comparable(moment) > shown:
                    self._last[name] = _comparable(moment), time.monotonic()
                    self._say(text)
        except TamisError as error:
            log.debug("the log of %s: %s", name, error)
        if pod.status.phase in ("Succeeded", "Failed"):
            self._whole.add(name)

    def stop(self) -> None:
        """Wait up to five seconds for each log that is still being read."""
        for thread in self._threads.values():
            thread.join(5.0)


def _comparable(moment: str) -> str:
    """A time from Kubernetes, as in 2026-11-26T10:00:00.12Z, in a form whose order as text is that of time."""
    seconds, _, fraction = moment.rstrip("Z").partition(".")
    return f"{seconds}.{fraction:0<9}"
