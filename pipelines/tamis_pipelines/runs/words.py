"""The messages of failed pods and runs in plain words."""

from __future__ import annotations

import re

NO_MESSAGE = "left no message"
_EXIT = re.compile(r"^(?:[\w-]+: )?Error \(exit code (\d+)\)(?:: (?P<words>.+))?$", re.DOTALL)
_OUT_OF_MEMORY = re.compile(r"^(?:[\w-]+: )?OOMKilled\b")
_TOO_LARGE = re.compile(r"compressed size (\d+) > maxSize (\d+)")
_STOPPED = re.compile(r"exceeded its deadline|exceeded workflow deadline|[Ss]topped with strategy|workflow shutdown")


def words_of(message: str) -> str:
    """The message of a failed pod without what Argo puts around it; Tamis' own last words, if there are any."""
    message = message.strip()
    if found := _EXIT.match(message):
        return (found["words"] or "").strip() or f"the container ended with exit code {found[1]} and {NO_MESSAGE}"
    if _OUT_OF_MEMORY.match(message):
        return f"the pod needed more memory than its limit ({message})"
    if message == "pod deleted":
        return "its pod was deleted"
    return message


def too_large(message: str) -> tuple[int, int] | None:
    """The size and the limit in bytes, if a workflow's message says that it became too large."""
    found = _TOO_LARGE.search(message)
    return (int(found[1]), int(found[2])) if found else None


def ended_from_outside(message: str) -> bool:
    """Whether a message says that Argo ended the pod because the run was stopped or its time was over."""
    return bool(_STOPPED.search(message))
