"""Settings of the neighbors stage."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from tamis.core.settings import StageSettings


class NeighborsSettings(StageSettings):
    """How the k-nearest-neighbour graph is found."""

    OUTPUT_REVISION: ClassVar[int] = 1

    k: int = Field(32, ge=2, le=1024, description="neighbours per sample; the sample itself is none of them")
    method: Literal["auto", "exact", "approximate"] = Field(
        "auto", description="exact: every pair is compared; approximate: faiss; auto: by the number of samples"
    )
    exact_up_to: int = Field(
        500_000, ge=3, description="auto is exact up to so many samples on a CPU, and twenty times as many on a GPU"
    )
    memory_mb: int = Field(
        2048, ge=64, description="MiB of main memory for the search; of a GPU's, most of what is free"
    )
    links: int = Field(32, ge=4, le=256, description="approximate: links per sample in the HNSW index")
    build_effort: int = Field(120, ge=16, description="approximate: candidates looked at when a sample is added")
    search_effort: int = Field(
        128, ge=16, description="approximate: candidates looked at in a search; raised until the recall is reached"
    )
    recall: float = Field(
        0.98, ge=0, lt=1, description="approximate: share of the true k nearest that must be found, measured on samples"
    )
    build_threads: int = Field(
        1, ge=0, description="approximate: threads that build the index; only 1 gives the same graph every time; 0: all"
    )
    recall_sample: int = Field(1000, ge=10, description="approximate: samples on which recall is measured exactly")
    seed: int = Field(0, ge=0, description="approximate: draws the recall sample")
    shard: str = Field(
        "1/1",
        pattern=r"^[1-9]\d*/[1-9]\d*$",
        description="3/8: search for the third eighth of the samples only; the parts are given to a run of the whole",
    )

    @field_validator("shard")
    @classmethod
    def _one_of(cls, shard: str) -> str:
        which, of = map(int, shard.split("/"))
        if which > of:
            raise ValueError(f"there is no shard {which} of {of}; allowed: 1/{of} to {of}/{of}")
        return shard

    def rows(self, n: int) -> tuple[int, int]:
        """First and last-but-one number of the samples, of `n`, that the shard searches for."""
        which, of = map(int, self.shard.split("/"))
        return n * (which - 1) // of, n * which // of
