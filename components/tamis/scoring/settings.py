"""Settings of the scoring stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tamis.core.leftout import MOST_LEFT_OUT
from tamis.core.models import Precision
from tamis.core.registry import one_of
from tamis.core.settings import StageSettings
from tamis.scoring.measures import MEASURES
from tamis.scoring.measures.base import MeasureSettings

if TYPE_CHECKING:
    Measure = MeasureSettings
else:
    Measure = one_of(*MEASURES.values())


class ScoringSettings(StageSettings):
    """How every sample is scored; all subsets that rank by these scores share them."""

    OUTPUT_REVISION: ClassVar[int] = 1

    measure: Measure = Field(next(iter(MEASURES.values())).model_validate({}), description="what is measured")
    max_tokens: int = Field(
        2048,
        ge=8,
        description="perplexity: longer samples are cut at the end; deita: samples with a longer turn get no score",
    )
    max_left_out_share: float = MOST_LEFT_OUT
    batch_tokens: int = Field(4096, ge=1, description="tokens per forward pass, with padding; limits memory")
    precision: Precision = Field("auto", description="auto: bfloat16 on a GPU, float32 on a CPU")

    @classmethod
    def of(cls, measure: str) -> ScoringSettings:
        """Return the default settings for a measure."""
        return cls(measure=MEASURES[measure](kind=measure)) if measure != next(iter(MEASURES)) else cls()
