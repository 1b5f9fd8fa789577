"""Settings of the near-copies stage."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from tamis.core.settings import StageSettings


class NearCopiesSettings(StageSettings):
    """Which samples are near-copies, and which of them is kept."""

    OUTPUT_REVISION: ClassVar[int] = 1

    threshold: float = Field(
        0.8,
        ge=0.5,
        le=1,
        description="least Jaccard similarity of two near-copies: shared n-grams / all n-grams of both texts",
    )
    text: Literal["conversation", "instruction", "response"] = Field(
        "conversation", description="text that is compared: all messages, the first user message, or all answers"
    )
    ngram: int = Field(5, ge=1, le=64, description="characters per n-gram")
    keep: Literal["first", "longest", "best"] = Field(
        "first",
        description="which near-copy is kept: the first in the order of the pool's sources, the longest text, or the "
        "one with the highest value of `rated_by`",
    )
    rated_by: str | None = Field(
        None, min_length=1, description="best: a number in the column `metadata`, a field in the source's `keep`"
    )
    recall: float = Field(
        0.99, ge=0.5, lt=1, description="least probability that a pair with a similarity of `threshold` is compared"
    )
    permutations: int = Field(128, ge=16, le=1024, description="hash functions per MinHash signature")
    seed: int = Field(0, ge=0, description="seed of these hash functions")

    @model_validator(mode="after")
    def _rating_is_named(self) -> NearCopiesSettings:
        if (self.keep == "best") != (self.rated_by is not None):
            raise ValueError("`keep: best` and `rated_by` need each other; give both, or neither")
        return self
