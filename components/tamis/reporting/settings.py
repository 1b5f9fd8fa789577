"""Settings of the reporting stage."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tamis.core.scales import Scale
from tamis.core.settings import StageSettings


class ReportingSettings(StageSettings):
    """Options of the report."""

    OUTPUT_REVISION: ClassVar[int] = 5

    title: str = Field("Data selection report", min_length=1, description="heading of the page")
    truth: str | None = Field(
        None,
        min_length=1,
        description="numeric field of the pool's metadata, such as an author's grade; raw and curated scores are "
        "compared with it",
    )
    truth_scale: Scale | None = Field(
        None,
        description="the scale of that field, for example {lowest: 1, highest: 5}, which is mapped to 1 to 10; the "
        "default is 1 to 10, but values that look like another scale are an error",
    )
    group: str | None = Field(
        None, min_length=1, description="field of the pool's metadata to break down by, such as a topic"
    )
    examples: int = Field(
        20,
        ge=0,
        le=500,
        description="number of corrections shown for each rater, the most confident first, and of judged prompts shown "
        "for each model",
    )
    notes: tuple[str, ...] = Field((), description="remarks in plain text, shown at the top of the page")
