"""Settings of the scoring stage."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tamis.core.conversations import Format
from tamis.core.leftout import MOST_LEFT_OUT
from tamis.core.models import Precision
from tamis.core.references import HubModel
from tamis.core.settings import Settings, StageSettings


class PerplexitySettings(Settings):
    """How surprised a model is by the responses."""

    kind: Literal["perplexity"] = Field("perplexity", description="perplexity of the samples under a causal model")
    model: HubModel = Field(
        "meta-llama/Llama-3.1-8B-Instruct",
        description="causal model: a hub name, or a folder in Hugging Face layout",
        min_length=1,
    )
    revision: str | None = Field(None, description="commit or tag of the hub model")
    text: Literal["response", "conversation"] = Field(
        "response", description="response: assistant turns given all before them; conversation: every token, as text"
    )
    format: Format = Field(
        "chat", description="response: chat: the model's own chat template; tulu: plain headers, for base models"
    )


class DeitaSettings(Settings):
    """DEITA's scorers of complexity and quality (Liu et al., arXiv 2312.15685)."""

    kind: Literal["deita"] = Field(description="complexity of instructions times quality of responses")
    complexity_model: HubModel = Field("hkust-nlp/deita-complexity-scorer", description="scorer of instructions")
    complexity_revision: str | None = Field(None, description="commit or tag of the complexity model")
    quality_model: HubModel = Field("hkust-nlp/deita-quality-scorer", description="scorer of responses")
    quality_revision: str | None = Field(None, description="commit or tag of the quality model")


class ScoringSettings(StageSettings):
    """Scores by token probabilities, computed once and shared by all subsets that rank by them."""

    OUTPUT_REVISION: ClassVar[int] = 1

    measure: Annotated[PerplexitySettings | DeitaSettings, Field(discriminator="kind")] = Field(
        PerplexitySettings(), description="what is measured"
    )
    max_tokens: int = Field(2048, ge=8, description="perplexity: longer samples are cut; deita: they get no score")
    max_left_out_share: float = MOST_LEFT_OUT
    batch_tokens: int = Field(4096, ge=1, description="tokens per forward pass, with padding; bounds memory")
    precision: Precision = Field("auto", description="auto: bfloat16 on a GPU, float32 on a CPU")
