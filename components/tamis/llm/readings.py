"""Fields of records for failed and unreadable answers, and reading stored answers again with a newer version."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, TypeVar

from pydantic import BaseModel

from tamis.core.errors import UnparsableError
from tamis.llm.backend import Answer
from tamis.llm.replies import Reply, reply_of
from tamis.llm.thoughts import ADVICE, split

_LONGEST = 20_000  # characters of an unreadable answer that is stored; a part of a longer one could mean something else
_USED_UP = f"thoughts took all tokens: {ADVICE}"
R = TypeVar("R", bound=BaseModel)


def failed(answer: Answer) -> dict[str, Any]:
    """The fields of a record without an answer."""
    return {"status": answer.problem, "error": answer.error, "raw": answer.raw}


def unparsable(answer: Answer, error: UnparsableError) -> dict[str, Any]:
    """The fields of a record whose answer cannot be read; its text is stored."""
    reason = error.problem
    if answer.cut:
        reason = _USED_UP if _only_thoughts(answer) else f"cut off: {reason}"
    return {"status": "unparsable", "error": reason, "raw": answer.text if 0 < len(answer.text) <= _LONGEST else None}


def no_answer(answer: Answer, finish: str = "stop") -> str:
    """Why an answer of free text is empty."""
    if not answer.cut:
        said = "thoughts only" if _only_thoughts(answer) else "nothing"
        return f"no answer: {said} (finish_reason {finish})"
    return _USED_UP if _only_thoughts(answer) else "no answer: cut off before its first word"


def forgiven(answer: Answer, leniencies: Iterable[str]) -> str | None:
    """The names of all leniencies, for a record."""
    return ", ".join(dict.fromkeys((*answer.leniencies, *leniencies))) or None


def counted(lenient: Iterable[str | None]) -> dict[str, int]:
    """The number of answers by leniency, from fields made by `forgiven`."""
    return dict(sorted(Counter(chain.from_iterable(one.split(", ") for one in lenient if one)).items()))


def anew(record: R, read: Callable[[Answer, int, R | None], R]) -> R:
    """Read the stored answer of a record again; the same record if it has none, or it is still unreadable."""
    kept: Any = record
    answer = _held(kept)
    if answer is None:
        return record
    found: Any = read(answer, kept.attempts, None)
    if found.status != "ok":
        return record
    # Token counts and attempts stay as they were.
    stays = {
        name for name in type(record).model_fields if name.endswith("_tokens") or name in ("attempts", "shortened")
    }
    changed: R = found.model_copy(update={name: getattr(record, name) for name in stays})
    return changed


def _held(record: Any) -> Answer | None:
    if record.raw is None:
        return None
    if record.status == "unparsable":
        return Answer(record.id, record.raw)
    reply = reply_of(record.raw.encode())
    if isinstance(reply, Reply) and reply.raw is None and reply.text.strip() and not reply.moderated:
        return Answer(record.id, reply.text, cut=reply.finish == "length")
    return None


def _only_thoughts(answer: Answer) -> bool:
    thoughts, text = split(answer.text)
    return not text.strip() and (answer.thought or bool(thoughts.strip()))
