"""A rating, as the store and the ratings table hold it."""

from __future__ import annotations

from typing import Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tamis.core.errors import UnparsableError
from tamis.core.scales import Scale
from tamis.core.tables import NOT_ASKED, RATINGS
from tamis.llm.asking import summed
from tamis.llm.backend import Answer
from tamis.llm.readings import failed, forgiven, unparsable
from tamis.llm.store import ATTEMPTS, TOKENS, Records
from tamis.rating.parsing import HIGH, LOW
from tamis.rating.scaling import expected_of, scores_in

Status = Literal["ok", "unparsable", "refused", "too_long", "failed", "missing", "not_asked"]
ONE_TO_TEN = Scale()
Score = Field(None, ge=LOW, le=HIGH, strict=True)


class Rating(BaseModel):
    """One sample's rating by one rater: the columns of `core.tables.RATINGS` without the rater, and some for the store.

    Tokens are summed over all attempts, because all of them are computed or paid.
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
    attempts: int = ATTEMPTS
    prompt_tokens: int | None = TOKENS
    completion_tokens: int | None = TOKENS
    cached_tokens: int | None = TOKENS
    reasoning_tokens: int | None = TOKENS
    shortened: bool = False
    lenient: str | None = None  # names of the lenient readings of the answer
    raw: str | None = None  # an answer that was paid for but not understood: its text, or a service's whole response

    @model_validator(mode="after")
    def _scored_when_ok(self) -> Rating:
        if (self.status == "ok") != (self.overall is not None):
            raise ValueError(f"status '{self.status}' with the overall rating {self.overall}")
        return self

    def row(self, rater: str) -> dict[str, object]:
        """The row in the ratings table."""
        return {name: rater if name == "rater" else getattr(self, name) for name in RATINGS.names}


def not_asked(sample: str) -> Rating:
    """The rating of a sample that is left out by the setting `sample`."""
    return Rating.model_construct(id=sample, status=NOT_ASKED, attempts=0)


RECORDS = Records(
    Rating,
    pa.schema(
        [
            *(field for field in RATINGS if field.name != "rater"),
            pa.field("cached_tokens", pa.int32()),
            pa.field("reasoning_tokens", pa.int32()),
            pa.field("shortened", pa.bool_()),
            pa.field("lenient", pa.string()),
            pa.field("raw", pa.string()),
        ]
    ),
    "ratings",
)


def rating_of(answer: Answer, attempt: int, earlier: Rating | None = None, *, scale: Scale = ONE_TO_TEN) -> Rating:
    """Read the answer of attempt number `attempt`; `earlier` is the record of the attempts before it.

    The scores of the answer are on `scale`, those of the rating on 1 to 10.
    """
    common = {
        "id": answer.id,
        "attempts": attempt,
        **summed(answer, earlier),
        "shortened": answer.shortened,
    }
    if answer.problem is not None:
        return Rating.model_validate(common | failed(answer))
    try:
        scores, leniencies = scores_in(answer.text, scale)
    except UnparsableError as error:
        return Rating.model_validate(common | unparsable(answer, error))
    said = {"status": "ok", "expected": expected_of(answer.probabilities, scale)}
    said["lenient"] = forgiven(answer, leniencies)
    return Rating.model_validate(common | scores._asdict() | said)
