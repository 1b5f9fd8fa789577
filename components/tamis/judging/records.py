"""The records of a comparison in the store: the contestants' answers, and the judge's verdicts."""

from __future__ import annotations

from typing import Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tamis.core.errors import UnparsableError
from tamis.judging.comparison import Verdict
from tamis.judging.prompts import JudgePrompt
from tamis.llm.asking import summed
from tamis.llm.backend import Answer
from tamis.llm.faults import storable
from tamis.llm.readings import failed, forgiven, no_answer, unparsable
from tamis.llm.store import ATTEMPTS, TOKENS, Records
from tamis.llm.thoughts import split

Status = Literal["ok", "unparsable", "refused", "too_long", "failed"]
_COMMON = [
    pa.field("id", pa.string()),
    pa.field("status", pa.string()),
    pa.field("error", pa.string()),
    pa.field("attempts", pa.int16()),
    pa.field("prompt_tokens", pa.int32()),
    pa.field("completion_tokens", pa.int32()),
    pa.field("lenient", pa.string()),
    pa.field("raw", pa.string()),
    pa.field("cached_tokens", pa.int32()),
    pa.field("reasoning_tokens", pa.int32()),
]


class _Asked(BaseModel):
    """Fields of both kinds. Tokens are summed over all attempts, because all of them are computed or paid."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[0-9a-f]{32}$")
    status: Status
    error: str | None = None
    attempts: int = ATTEMPTS
    prompt_tokens: int | None = TOKENS
    completion_tokens: int | None = TOKENS
    cached_tokens: int | None = TOKENS
    reasoning_tokens: int | None = TOKENS
    lenient: str | None = None  # names of the lenient readings of the answer
    raw: str | None = None  # an answer that was paid for but not understood: its text, or a service's whole response


class Text(_Asked):
    """A contestant's answer to the question with the same id. Answers of local models and files may be empty."""

    text: str | None = None
    cut: bool = False

    @model_validator(mode="after")
    def _a_text_when_ok(self) -> Text:
        if (self.status == "ok") != (self.text is not None):
            raise ValueError(f"status '{self.status}' with the text {self.text!r:.40}")
        return self


class Judged(_Asked):
    """A judge's verdict on two answers in one order. The id is a hash of the text that the judge sees."""

    verdict: Verdict | None = None
    first: int | None = Field(None, ge=1, le=10, strict=True)
    second: int | None = Field(None, ge=1, le=10, strict=True)

    @model_validator(mode="after")
    def _a_verdict_when_ok(self) -> Judged:
        if (self.status == "ok") != (self.verdict is not None):
            raise ValueError(f"status '{self.status}' with the verdict {self.verdict!r}")
        return self


TEXTS = Records(Text, pa.schema([*_COMMON, pa.field("text", pa.string()), pa.field("cut", pa.bool_())]), "answers")
VERDICTS = Records(
    Judged,
    pa.schema(
        [
            *_COMMON,
            pa.field("verdict", pa.string()),
            pa.field("first", pa.int8()),
            pa.field("second", pa.int8()),
        ]
    ),
    "verdicts",
)


def text_of(answer: Answer, attempt: int, earlier: Text | None) -> Text:
    """Read a contestant's answer: the text after its thoughts, if any. Thoughts alone are not an answer."""
    common = _common(answer, attempt, earlier)
    if answer.problem is not None:
        return Text.model_validate(common | failed(answer))
    thoughts, text = (part.strip() for part in split(storable(answer.text)))
    if thoughts and not text:
        return Text.model_validate(common | {"status": "failed", "error": no_answer(answer)})
    lenient = forgiven(answer, ["thoughts"] if thoughts else [])
    return Text.model_validate(common | {"status": "ok", "text": text, "cut": answer.cut, "lenient": lenient})


def verdict_of(prompt: JudgePrompt, answer: Answer, attempt: int, earlier: Judged | None) -> Judged:
    """Read a judge's answer in the form that its prompt asks for."""
    common = _common(answer, attempt, earlier)
    if answer.problem is not None:
        return Judged.model_validate(common | failed(answer))
    try:
        values, leniencies, _ = prompt.form.read(answer.text)
    except UnparsableError as error:
        return Judged.model_validate(common | unparsable(answer, error))
    common |= {"status": "ok", "lenient": forgiven(answer, leniencies)}
    if prompt.kind == "verdict":
        said: Verdict = ("tie", "first", "second")[values[0]]
        return Judged.model_validate(common | {"verdict": said})
    first, second = values
    said = "tie" if first == second else "first" if first > second else "second"
    return Judged.model_validate(common | {"verdict": said, "first": first, "second": second})


def _common(answer: Answer, attempt: int, earlier: _Asked | None) -> dict[str, object]:
    return {
        "id": answer.id,
        "attempts": attempt,
        **summed(answer, earlier),
    }
