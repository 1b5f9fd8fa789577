"""Settings of the neighbors stage."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from tamis.core.settings import StageSettings


class NeighborsSettings(StageSettings):
    """How the kNN graph is computed."""

    OUTPUT_REVISION: ClassVar[int] = 1

    k: int = Field(32, ge=2, le=1024, description="neighbours per sample, without the sample itself")
    method: Literal["auto", "exact", "approximate"] = Field(
        "auto", description="exact: compare all pairs; approximate: use faiss; auto: choose by the number of samples"
    )
    exact_up_to: int = Field(
        500_000, ge=3, description="number of samples up to which auto is exact on a CPU; 20 times as many on a GPU"
    )
    memory_mb: int = Field(
        2048, ge=64, description="MiB of main memory for the search; a GPU search uses most of its free memory"
    )
    links: int = Field(32, ge=4, le=256, description="approximate: links per sample in the HNSW index")
    build_effort: int = Field(120, ge=16, description="approximate: candidates examined when a sample is added")
    search_effort: int = Field(
        128, ge=16, description="approximate: candidates examined in a search; raised until `recall` is reached"
    )
    recall: float = Field(
        0.98, ge=0, lt=1, description="approximate: wanted share of the true k nearest neighbours, measured on a sample"
    )
    build_threads: int = Field(
        1, ge=0, description="approximate: threads that build the index; 0: all; only 1 is reproducible"
    )
    recall_sample: int = Field(1000, ge=10, description="approximate: number of samples on which recall is measured")
    seed: int = Field(0, ge=0, description="approximate: seed for drawing these samples")
    shard: str = Field(
        "1/1",
        pattern=r"^[1-9]\d*/[1-9]\d*$",
        description="3/8: search only for the third eighth of the samples; a later run combines the parts",
    )

    @field_validator("shard")
    @classmethod
    def _one_of(cls, shard: str) -> str:
        which, of = map(int, shard.split("/"))
        if which > of:
            raise ValueError(f"there is no shard {which} of {of}; allowed: 1/{of} to {of}/{of}")
        return shard

    def rows(self, n: int) -> tuple[int, int]:
        """The range [first, last) of sample numbers, out of `n`, that the shard searches for."""
        which, of = map(int, self.shard.split("/"))
        return n * (which - 1) // of, n * which // of
