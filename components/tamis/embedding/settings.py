"""Settings of the embedding stage."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from tamis.core.models import Precision
from tamis.core.references import HubModel
from tamis.core.settings import StageSettings


class EmbeddingSettings(StageSettings):
    """How samples are embedded (paper section 4.1: bge-large, mean pooling, normalised)."""

    OUTPUT_REVISION: ClassVar[int] = 1

    model: HubModel = Field(
        "BAAI/bge-large-en-v1.5", description="encoder: a Hub name, or a folder in Hugging Face layout", min_length=1
    )
    revision: str | None = Field(None, description="commit or tag of the Hub model")
    text: Literal["conversation", "instruction"] = Field(
        "conversation", description="text to embed: all messages, or only the first user message"
    )
    max_tokens: int = Field(512, ge=8, description="largest number of tokens; longer texts are cut at the end")
    shared_beginnings: Literal["leave_out", "keep"] = Field(
        "leave_out",
        description="whether to leave out long beginnings that many texts of a source share, such as system prompts, "
        "so that the parts that distinguish the texts are embedded",
    )
    batch_size: int | None = Field(None, ge=1, description="texts per forward pass; null: 256 on a GPU, 64 on a CPU")
    precision: Precision = Field("auto", description="auto: bfloat16 on a GPU, float32 on a CPU")
