"""Settings of the reporting stage."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tamis.core.settings import StageSettings


class ReportingSettings(StageSettings):
    """What the report shows beyond the artifacts that it is given."""

    OUTPUT_REVISION: ClassVar[int] = 2

    title: str = Field("Data selection report", min_length=1, description="heading of the page")
    truth: str | None = Field(
        None,
        min_length=1,
        description="numeric field of the pool's metadata on the scale 1..10, such as an author's grade; raw and "
        "curated scores are compared with it",
    )
    group: str | None = Field(
        None, min_length=1, description="field of the pool's metadata to break down by, such as a topic"
    )
    examples: int = Field(
        20,
        ge=0,
        le=500,
        description="most confident corrections shown for each rater, and judged prompts of each model",
    )
    notes: tuple[str, ...] = Field((), description="remarks in plain text, shown at the top of the page")
