"""Settings of the reporting stage."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tamis.core.scales import Scale
from tamis.core.settings import StageSettings


class ReportingSettings(StageSettings):
    """What the report shows beyond the artifacts that it is given."""

    OUTPUT_REVISION: ClassVar[int] = 2

    title: str = Field("Data selection report", min_length=1, description="heading of the page")
    truth: str | None = Field(
        None,
        min_length=1,
        description="numeric field of the pool's metadata, such as an author's grade; raw and curated scores are "
        "compared with it",
    )
    truth_scale: Scale | None = Field(
        None,
        description="the scale of that field, {lowest: 1, highest: 5} say, which is stretched to 1..10; 1 to 10 if not "
        "given, unless its values look like another",
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
