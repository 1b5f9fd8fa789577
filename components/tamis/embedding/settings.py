"""Settings of the embedding stage."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from tamis.core.models import Precision
from tamis.core.references import HubModel
from tamis.core.settings import StageSettings


class EmbeddingSettings(StageSettings):
    """How samples become vectors (paper section 4.1: bge-large, mean pooling, normalised)."""

    OUTPUT_REVISION: ClassVar[int] = 1

    model: HubModel = Field(
        "BAAI/bge-large-en-v1.5", description="encoder: a hub name, or a folder in Hugging Face layout", min_length=1
    )
    revision: str | None = Field(None, description="commit or tag of the hub model")
    text: Literal["conversation", "instruction"] = Field(
        "conversation", description="what is embedded: all messages, or the first user message"
    )
    max_tokens: int = Field(512, ge=8, description="longer texts are cut at the end after so many tokens")
    shared_beginnings: Literal["leave_out", "keep"] = Field(
        "leave_out",
        description="long beginnings that many texts of a source share, as system prompts or examples: left out, so "
        "that what distinguishes the texts is embedded",
    )
    batch_size: int | None = Field(None, ge=1, description="texts per forward pass; null: 256 on a GPU, 64 on a CPU")
    precision: Precision = Field("auto", description="auto: bfloat16 on a GPU, float32 on a CPU")
