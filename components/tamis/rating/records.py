"""A finished rating, as the store keeps it and the ratings table shows it."""

from __future__ import annotations

from typing import Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tamis.core.llm.asking import summed
from tamis.core.llm.backend import Answer
from tamis.core.scales import Scale
from tamis.core.store import Records
from tamis.core.tables import NOT_ASKED, RATINGS
from tamis.rating.parsing import HIGH, LOW, UnparsableError
from tamis.rating.scaling import expected_of, scores_in

Status = Literal["ok", "unparsable", "refused", "too_long", "failed", "not_asked"]
ONE_TO_TEN = Scale()
Score = Field(None, ge=LOW, le=HIGH, strict=True)


class Rating(BaseModel):
    """One sample's rating by one rater; the columns of `core.tables.RATINGS` without the rater, and `shortened`.

    Tokens are summed over the attempts: what was computed or paid.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[0-9a-f]{32}$")
    status: Status
    rarity: int | None = Score
    complexity: int | None = Score
    informativeness: int | None = Score
    overall: int | None = Score
    expected: float | None = Field(None, ge=LOW, le=HIGH)
    error: str | None = None
    attempts: int = Field(ge=0)
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    shortened: bool = False

    @model_validator(mode="after")
    def _scored_when_ok(self) -> Rating:
        if (self.status == "ok") != (self.overall is not None):
            raise ValueError(f"status '{self.status}' with the overall rating {self.overall}")
        return self

    def row(self, rater: str) -> dict[str, object]:
        """Its row in the ratings table."""
        return {name: rater if name == "rater" else getattr(self, name) for name in RATINGS.names}


def not_asked(sample: str) -> Rating:
    """The row of a sample that is not to be rated."""
    return Rating.model_construct(id=sample, status=NOT_ASKED, attempts=0)


RECORDS = Records(
    Rating,
    pa.schema([field for field in RATINGS if field.name != "rater"] + [pa.field("shortened", pa.bool_())]),
    "ratings",
)


def rating_of(answer: Answer, attempt: int, earlier: Rating | None = None, *, scale: Scale = ONE_TO_TEN) -> Rating:
    """Read the answer of attempt number `attempt`; `earlier` is what the attempts before it came to.

    Its scores are on `scale`, the rating's on 1 to 10.
    """
    common = {
        "id": answer.id,
        "attempts": attempt,
        "prompt_tokens": summed(answer.prompt_tokens, earlier.prompt_tokens if earlier else None),
        "completion_tokens": summed(answer.completion_tokens, earlier.completion_tokens if earlier else None),
        "shortened": answer.shortened,
    }
    if answer.problem is not None:
        return Rating.model_validate(common | {"status": answer.problem, "error": answer.error})
    try:
        scores = scores_in(answer.text, scale)
    except UnparsableError as error:
        reason = f"cut off: {error.problem}" if answer.cut else error.problem
        return Rating.model_validate(common | {"status": "unparsable", "error": reason})
    expected = expected_of(answer.probabilities, scale)
    return Rating.model_validate(common | scores._asdict() | {"status": "ok", "expected": expected})
