"""A rating, as the store and the ratings table hold it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from tamis.core.errors import UnparsableError
from tamis.core.scales import HIGHEST, LOWEST
from tamis.core.tables import NOT_ASKED, RATINGS, RATIONALE, criteria_in, ratings_with
from tamis.llm.asking import summed
from tamis.llm.backend import Answer
from tamis.llm.readings import failed, forgiven, unparsable
from tamis.llm.store import ATTEMPTS, TOKENS, Records
from tamis.rating.criteria import Criteria

Status = Literal["ok", "unparsable", "refused", "too_long", "failed", "missing", "not_asked"]


class Rating(BaseModel):
    """One sample's rating by one rater, without its criteria: `model_of` adds a field for each.

    Tokens are summed over all attempts, because all of them are computed or paid.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[0-9a-f]{32}$")
    status: Status
    overall: int | None = Field(None, ge=LOWEST, le=HIGHEST, strict=True)
    expected: float | None = Field(None, ge=LOWEST, le=HIGHEST)
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

    def row(self, rater: str, schema: pa.Schema = RATINGS) -> dict[str, object]:
        """The row in a ratings table. A rating without scores, such as a missing one, may lack its criteria."""
        return {name: rater if name == "rater" else getattr(self, name, None) for name in schema.names}


_IN_STORE = (
    pa.field("cached_tokens", pa.int32()),
    pa.field("reasoning_tokens", pa.int32()),
    pa.field("shortened", pa.bool_()),
    pa.field("lenient", pa.string()),
    pa.field("raw", pa.string()),
)
# Names that no column of a criterion may have.
TAKEN = frozenset({*RATINGS.names, *Rating.model_fields, RATIONALE.name}) - frozenset(criteria_in(RATINGS))


@lru_cache
def model_of(criteria: Criteria) -> type[Rating]:
    """The model of ratings with these criteria."""
    columns: dict[str, Any] = {}
    for one in criteria.criteria:
        if one.column is not None:
            ends = (LOWEST, HIGHEST) if criteria.mapped else (one.scale.lowest, one.scale.highest)
            whole = pa.types.is_integer(ratings_with(criteria.fields).field(one.column).type)
            columns[one.column] = (int | None if whole else float | None, Field(None, ge=ends[0], le=ends[1]))
    if criteria.rationale is not None:
        columns[RATIONALE.name] = (str | None, None)
    return create_model("Rating", __base__=Rating, **columns)


@lru_cache
def records_of(criteria: Criteria) -> Records[Rating]:
    """The records of a store of ratings with these criteria."""
    table = ratings_with(criteria.fields, rationale=criteria.rationale is not None)
    schema = pa.schema([*(field for field in table if field.name != "rater"), *_IN_STORE])
    return Records(model_of(criteria), schema, "ratings")


def not_asked(sample: str) -> Rating:
    """The rating of a sample that is left out by the setting `sample`."""
    return Rating.model_construct(id=sample, status=NOT_ASKED, attempts=0)


def rating_of(answer: Answer, attempt: int, earlier: Rating | None = None, *, criteria: Criteria) -> Rating:
    """Read the answer of attempt number `attempt`; `earlier` is the record of the attempts before it."""
    model = model_of(criteria)
    common = {
        "id": answer.id,
        "attempts": attempt,
        **summed(answer, earlier),
        "shortened": answer.shortened,
    }
    if answer.problem is not None:
        return model.model_validate(common | failed(answer))
    try:
        read = criteria.read(answer.text)
    except UnparsableError as error:
        return model.model_validate(common | unparsable(answer, error))
    said = {"status": "ok", "overall": read.overall, "expected": criteria.expected(answer.probabilities)}
    said["lenient"] = forgiven(answer, read.leniencies)
    if criteria.rationale is not None:
        said[RATIONALE.name] = read.rationale
    return model.model_validate(common | read.scores | said)
