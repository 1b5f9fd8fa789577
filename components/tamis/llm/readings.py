"""What a record says of an answer that was read, or could not be; and those that were not understood, read anew."""

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

_LONGEST = 20_000  # characters of an answer that is kept to be read anew; a part of one could say something else
_USED_UP = f"thoughts took all tokens: {ADVICE}"
R = TypeVar("R", bound=BaseModel)


def failed(answer: Answer) -> dict[str, Any]:
    """The fields of a record of which there is no answer."""
    return {"status": answer.problem, "error": answer.error, "raw": answer.raw}


def unparsable(answer: Answer, error: UnparsableError) -> dict[str, Any]:
    """The fields of a record whose answer is not in its form; its text is kept."""
    reason = error.problem
    if answer.cut:
        reason = _USED_UP if _only_thoughts(answer) else f"cut off: {reason}"
    return {"status": "unparsable", "error": reason, "raw": answer.text if 0 < len(answer.text) <= _LONGEST else None}


def no_answer(answer: Answer, finish: str = "stop") -> str:
    """Why there is nothing in an answer of free text."""
    if not answer.cut:
        said = "thoughts only" if _only_thoughts(answer) else "nothing"
        return f"no answer: {said} (finish_reason {finish})"
    return _USED_UP if _only_thoughts(answer) else "no answer: cut off before its first word"


def forgiven(answer: Answer, leniencies: Iterable[str]) -> str | None:
    """The names of all that was forgiven, for a record."""
    return ", ".join(dict.fromkeys((*answer.leniencies, *leniencies))) or None


def counted(lenient: Iterable[str | None]) -> dict[str, int]:
    """How many answers each leniency was for, of the fields that `forgiven` made."""
    return dict(sorted(Counter(chain.from_iterable(one.split(", ") for one in lenient if one)).items()))


def anew(record: R, read: Callable[[Answer, int, R | None], R]) -> R:
    """The record, as this version reads what it holds; unchanged where that is nothing, or is still not understood."""
    kept: Any = record
    answer = _held(kept)
    if answer is None:
        return record
    found: Any = read(answer, kept.attempts, None)
    if found.status != "ok":
        return record
    # What it took stays what it was.
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
