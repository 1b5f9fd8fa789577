"""A run on Kubeflow as Tamis shows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from tamis_pipelines.runs.reasons import Reason
from tamis_pipelines.runs.steps import Step

WAYS_TO_NAME = "a run's id, its name, its schedule's name, or newest"  # on the command line


class State(StrEnum):
    """The state of a run."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return self in (State.SUCCEEDED, State.FAILED, State.STOPPED)


@dataclass(frozen=True)
class Run:
    """A run.

    Attributes:
        id: its id on the server.
        name: its name, which other runs may have too.
        url: its page in the UI.
        state: its state.
        began, ended: times as in "2026-11-30T00:04:36Z"; empty where there is none.
        steps: its steps in order; empty if the server does not say.
        reasons: why it failed or was stopped, in the order in which that happened.
        unread: what the server does not return, and what that means for the rest.
    """

    id: str
    name: str
    url: str
    state: State
    began: str
    ended: str
    steps: tuple[Step, ...] = ()
    reasons: tuple[Reason, ...] = ()
    unread: tuple[str, ...] = field(default=())
