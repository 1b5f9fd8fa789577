"""One thing that was looked at before a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tamis.core.errors import InputError, TamisError

_MARKS = {"ok": "ok  ", "note": "NOTE", "failed": "FAIL"}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. A "note" is what may be meant, and may spoil the run; it does not keep it."""

    what: str
    level: Literal["ok", "note", "failed"]
    seen: str
    action: str = ""
    code: str = ""
    """Of a failed one the kind of error that a run would end with, as `TamisError.code`, where that is known."""

    @classmethod
    def of(
        cls, what: str, passed: bool, seen: str, action: str = "", *, error: type[TamisError] | None = None
    ) -> Check:
        """A check that can only be passed or failed; `error` is what a run would end with if it is not."""
        code = error.code if error is not None and not passed else ""
        return cls(what, "ok" if passed else "failed", seen, action, code)

    @classmethod
    def refused(cls, what: str, error: TamisError) -> Check:
        """What an error says is wrong."""
        action = "; ".join(filter(None, (_allowed(error), error.action)))
        return cls(what, "failed", error.problem, action, error.code)

    @property
    def passed(self) -> bool:
        """Whether a run may begin."""
        return self.level != "failed"

    def __str__(self) -> str:
        action = f"\n        to do: {self.action}" if self.action and self.level != "ok" else ""
        return f"{_MARKS[self.level]}  {self.what}: {self.seen}{action}"


def no_file(what: str, path: str) -> Check:
    """The failed check of a folder where a file is read."""
    return Check.of(what, False, f"{path} is a folder", "name the file in it", error=InputError)


def _allowed(error: TamisError) -> str:
    return f"allowed is {error.allowed}" if error.allowed else ""
