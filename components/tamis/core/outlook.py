"""Inspecting steps without running them, for `tamis plan`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from tamis.core.artifacts import Manifest


@dataclass(frozen=True)
class Outlook:
    """What is known of a step that was not run.

    Attributes:
        stage: the stage's name.
        name: the user's name for the artifact; empty where a run has only one of its kind.
        key: a hash of everything that the result depends on; equal keys mean equal results.
        folder: where the finished artifact is or would be kept; None without `TAMIS_HOME`.
        manifest: the finished artifact's manifest; None if the step has not been run.
    """

    stage: str
    name: str
    key: str
    folder: Path | None
    manifest: Manifest | None


class LookedAtError(Exception):
    """Raised by a stage's `run` within `only_looking`, in place of running. `outlook` describes the step."""

    def __init__(self, outlook: Outlook) -> None:
        super().__init__(f"{outlook.stage} was looked at, not run")
        self.outlook = outlook


_looking: ContextVar[bool] = ContextVar("_looking", default=False)


@contextmanager
def only_looking() -> Iterator[None]:
    """Within this context no step runs: `run_step` finds the step's key and finished artifact and raises them.

    `tamis plan` thus computes keys with the same code as a run. Nothing is written.
    """
    token = _looking.set(True)
    try:
        yield
    finally:
        _looking.reset(token)


def looking() -> bool:
    """Whether steps are inspected and not run."""
    return _looking.get()
