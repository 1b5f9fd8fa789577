"""Settings of the selection stage."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from tamis.core.references import DataPath
from tamis.core.settings import StageSettings

StrategyName = Literal["full", "random", "length", "perplexity", "knn", "less", "alpagasus", "deita", "ds2-raw", "ds2"]
Variant = Literal["published", "ds2-paper"]
RankBy = Literal["class", "mean"]
# Strategies that have a variant "ds2-paper".
VARIED: frozenset[StrategyName] = frozenset(("alpagasus", "deita", "less"))


def uses_ratings(strategy: StrategyName, variant: Variant = "published") -> bool:
    """Whether the strategy ranks by a rater's scores."""
    return strategy in ("alpagasus", "ds2-raw", "ds2") or (strategy == "deita" and variant == "ds2-paper")


def _amount(value: Any) -> int | float:
    """A whole number of samples, or a share; Kubeflow hands whole numbers over as floats."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0 or (value > 1 and value % 1):
        raise ValueError("give a whole number of samples, or a share between 0 and 1")
    return value if value < 1 else int(value)


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Amount = Annotated[int | float, BeforeValidator(_amount)]


class SelectionSettings(StageSettings):
    """Which samples make up one subset (paper section 4.3 and the baselines of section 5)."""

    OUTPUT_REVISION: ClassVar[int] = 1

    name: str = Field(
        description="what the subset is called, here and in reports",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=150,
    )
    strategy: StrategyName = Field(description="how samples are chosen")
    variant: Variant = Field(
        "published", description="ds2-paper: alpagasus, deita and less as they were run in the DS2 paper's experiments"
    )
    rank_by: RankBy = Field(
        "class", description="ds2: the curated score class, as published, or the posterior mean of the true class"
    )
    size: Amount | None = Field(None, description="samples: a number, or a share of the pool below 1; none for full")
    rater: str | None = Field(None, description="whose scores are used; the only rater's if there is one")
    min_score: int | None = Field(
        None, ge=0, le=5, description="samples of lower score classes, or without one, are never picked"
    )
    k: int = Field(10, ge=1, description="knn: over how many nearest neighbours the mean distance is taken")
    max_similarity: float = Field(
        0.9, gt=-1, le=1, description="deita: largest cosine similarity that two picked samples may have"
    )
    task: str | None = Field(None, description="less: the one task that counts; none: all of the influence's tasks")
    memory_mb: int = Field(1024, ge=64, description="deita: MiB for comparing vectors")
    sources: dict[str, Amount] = Field(
        {}, description="how much of the subset comes from a source: a number, or a share of the size below 1"
    )
    exclude: Annotated[tuple[DataPath, ...], BeforeValidator(_as_tuple)] = Field(
        (), description="files (txt, jsonl, csv, parquet) with the ids of samples that are never picked"
    )
    seed: int = Field(42, ge=0, lt=2**63, description="decides random choices and the order of equals")

    @model_validator(mode="after")
    def _fits_together(self) -> SelectionSettings:
        if self.strategy == "full" and (self.size is not None or self.sources):
            raise ValueError("full takes every sample; leave size and sources out, or choose the strategy random")
        if self.strategy != "full" and self.size is None:
            raise ValueError(f"the strategy {self.strategy} needs a size")
        if self.variant == "ds2-paper" and self.strategy not in VARIED:
            raise ValueError(f"the strategy {self.strategy} was run as published; leave variant out")
        if self.rank_by != "class" and self.strategy != "ds2":
            raise ValueError(
                f"rank_by: mean goes with the strategy ds2 only; the strategy {self.strategy} allows class, the default"
            )
        if self.task is not None and (self.strategy != "less" or self.variant != "published"):
            raise ValueError("task goes with the strategy less, as published")
        return self
