"""Steps that are looked at and not run: what `tamis plan` knows of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from tamis.core.artifacts import Manifest


@dataclass(frozen=True)
class Outlook:
    """A step that was looked at and not run.

    Attributes:
        stage: the stage's name.
        name: what the user calls the artifact; empty where a run has one of its kind.
        key: all that the result depends on, hashed; equal keys mean equal results.
        folder: where the finished artifact is kept, whether it is there or not; None without `TAMIS_HOME`.
        manifest: of the finished artifact; None where the step has not been done.
    """

    stage: str
    name: str
    key: str
    folder: Path | None
    manifest: Manifest | None


class LookedAtError(Exception):
    """Ends a stage's `run` that was only to say what it would do; `outlook` is what it said."""

    def __init__(self, outlook: Outlook) -> None:
        super().__init__(f"{outlook.stage} was looked at, not run")
        self.outlook = outlook


_looking: ContextVar[bool] = ContextVar("_looking", default=False)


@contextmanager
def only_looking() -> Iterator[None]:
    """Within this context no step runs: `run_step` finds out its key and whether it is finished, and raises that.

    So `tamis plan` knows a step by the very settings, inputs and files that a run knows it by. Nothing is written.
    """
    token = _looking.set(True)
    try:
        yield
    finally:
        _looking.reset(token)


def looking() -> bool:
    """Whether steps are looked at only."""
    return _looking.get()
