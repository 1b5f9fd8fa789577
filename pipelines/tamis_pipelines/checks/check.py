"""The result of one check before a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tamis.core.errors import InputError, TamisError

_MARKS = {"ok": "ok  ", "note": "NOTE", "failed": "FAIL"}


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        what: the setting or thing that was checked.
        level: a "note" does not prevent a run: what was found may be intended, or may be a mistake.
        seen: what was found.
        action: what to do about it.
        code: for a failed check, the code of the error that a run would end with (`TamisError.code`), if it is known.
    """

    what: str
    level: Literal["ok", "note", "failed"]
    seen: str
    action: str = ""
    code: str = ""

    @classmethod
    def of(
        cls, what: str, passed: bool, seen: str, action: str = "", *, error: type[TamisError] | None = None
    ) -> Check:
        """Return a check that has passed or failed; `error` is the error that a run would end with if it failed."""
        code = error.code if error is not None and not passed else ""
        return cls(what, "ok" if passed else "failed", seen, action, code)

    @classmethod
    def refused(cls, what: str, error: TamisError) -> Check:
        """Return a failed check that says what `error` says."""
        allowed = f"allowed: {error.allowed}" if error.allowed else ""
        action = error.action or ("correct it" if allowed else "")
        return cls(what, "failed", error.problem, f"{action} ({allowed})" if allowed else action, error.code)

    @property
    def passed(self) -> bool:
        """Whether a run may start."""
        return self.level != "failed"

    def __str__(self) -> str:
        action = f"\n        to do: {self.action}" if self.action and self.level != "ok" else ""
        return f"{_MARKS[self.level]}  {self.what}: {self.seen}{action}"


def no_file(what: str, path: str) -> Check:
    """Return a failed check for a folder that was given in place of a file."""
    return Check.of(what, False, f"{path} is a folder, not a file", "give the path of the file in it", error=InputError)
