"""Settings of the judging stage."""

from __future__ import annotations

from pydantic import Field

from tamis.core.settings import Settings


class PromptSet(Settings):
    """Questions that both models answer, out of one JSONL file."""

    name: str = Field(min_length=1, description="what tables call the set")
    path: str = Field(min_length=1, description="JSONL file, local or s3://, one object a line")
    fields: list[str] = Field(
        ["prompt"],
        min_length=1,
        description="where the text is, as in turns.0; several are joined by blank lines, and all but the first may be "
        "empty: [instruction, instances.0.input]",
    )
    limit: int | None = Field(None, ge=1, description="at most so many, drawn by the seed; null: all")
    seed: int = Field(42, ge=0, description="of the draw")
