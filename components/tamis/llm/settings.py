"""Settings of the engines that answer prompts: base classes for all backends, local models and services."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, model_validator

from tamis.core.errors import MissingExtraError, SettingsError
from tamis.core.models import Precision
from tamis.core.references import HubModel
from tamis.core.secrets import know
from tamis.core.settings import MoneyLimit, Settings

if TYPE_CHECKING:
    from tamis.core.conversations import Format
    from tamis.llm.backend import Backend, Prompt
    from tamis.llm.backends.sampling import Sampling


class BackendSettings(Settings, ABC):
    """Base class of the settings of every backend. The rest of Tamis knows a backend only by this class.

    A subclass has `kind`, a Literal with its name. A backend whose model runs in this process is a
    `LocalModelSettings`; one with OpenAI's interface is also a `ServiceSettings`.

    Attributes:
        PACKAGES: the packages that it imports, mapped to the extras of Tamis that install them, for `tamis doctor`.
        PRICED: whether its tokens cost money.
        NOT_OF_ANSWERS: names of settings that do not affect answers; `Backend.identity` does not contain them.
        JOURNALED: whether it answers by jobs that may take a day and continue when this process ends. The engine then
            has a method `remember_in`, which takes the journal for these jobs.
    """

    PACKAGES: ClassVar[Mapping[str, str]] = {}
    PRICED: ClassVar[bool] = False
    NOT_OF_ANSWERS: ClassVar[frozenset[str]] = frozenset()
    JOURNALED: ClassVar[bool] = False

    kind: str
    model: str

    @abstractmethod
    def open(self, prompt: Prompt, sampling: Sampling, *, style: Format = "chat") -> Backend:
        """Open the engine; `style` is the chat template of local models.

        Raises:
            ModelError: when its model cannot be used.
            MissingExtraError: when its packages are not installed.
        """

    def check(self) -> None:
        """Check what a request needs, such as a key, before anything is spent.

        Raises:
            TamisError: when something is missing.
        """


class LocalModelSettings(BackendSettings, ABC):
    """Base class of backends whose model runs in this process; the model's files are part of a step's key."""

    model: HubModel = Field(
        min_length=1, description="chat model: a name on the Hugging Face Hub, or a folder in its layout"
    )
    revision: str | None = Field(None, description="commit or tag of a model on the Hub")
    precision: Precision = Field("auto", description="auto: bfloat16 on a GPU, float32 on a CPU")


class LimitSettings(Settings):
    """Rate limits of a service, per minute; null: no limit."""

    requests_per_minute: int | None = Field(None, ge=1, description="requests, including failed ones")
    tokens_per_minute: int | None = Field(None, ge=1, description="tokens of prompts and answers together")
    input_tokens_per_minute: int | None = Field(None, ge=1, description="tokens of prompts")
    output_tokens_per_minute: int | None = Field(None, ge=1, description="tokens of answers")


class AzureSettings(Settings):
    """Settings for Azure OpenAI, in addition to the endpoint in `base_url`."""

    api_version: str = Field(min_length=1, description="version of the API, such as 2024-10-21")
    deployment: str | None = Field(
        None, min_length=1, description="name of the deployment; default: the name of the model"
    )


class ServiceSettings(Settings):
    """A service with OpenAI's chat interface: OpenAI, Azure OpenAI, or a compatible server such as vLLM."""

    PACKAGES: ClassVar[Mapping[str, str]] = {"openai": "openai"}
    PRICED: ClassVar[bool] = True

    model: str = Field(min_length=1, description="name of the model at the service")
    base_url: str | None = Field(
        None,
        pattern=r"^https?://",
        description="address of the endpoint, including /v1, or with azure the Azure endpoint; default: OpenAI's",
    )
    azure: AzureSettings | None = Field(None, description="settings for Azure OpenAI; null for other services")
    api_key_env: str | None = Field(
        "OPENAI_API_KEY",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="NAME of the environment variable with the key; null if the service needs none",
    )
    limits: LimitSettings = Field(LimitSettings(), description="rate limits of the service, per minute")
    concurrency: int = Field(
        64, ge=1, le=4096, description="most concurrent requests; fewer are sent while the service is overloaded"
    )
    timeout: float = Field(
        120.0, gt=0, description="seconds that one request may take, up to the last byte of its answer"
    )
    tries: int = Field(
        8,
        ge=1,
        le=100,
        description="how often a request is sent that fails for technical reasons while others are answered; does not "
        "apply to batches",
    )
    patience: float = Field(
        600.0,
        ge=0,
        description="seconds that a request is retried after technical faults, and that a run waits for a service that "
        "is down",
    )

    max_thinking_tokens: int | None = Field(
        None,
        ge=0,
        description="tokens for reasoning, in addition to the answer; default: 4096 for models whose name is known to "
        "be that of a reasoning model, unless `extra` turns reasoning off, and 0 for others",
    )

    @model_validator(mode="after")
    def _reachable(self) -> ServiceSettings:
        if self.base_url is not None and "@" in self.base_url.partition("://")[2].partition("/")[0]:
            raise ValueError(
                "'base_url' contains a user or a password, which would appear in artifacts; use api_key_env"
            )
        if self.azure is not None and self.base_url is None:
            raise ValueError("with azure, 'base_url' must be the endpoint, as in https://NAME.openai.azure.com")
        return self

    @property
    def asked_model(self) -> str:
        """The model in a request: on Azure the deployment."""
        return self.azure.deployment or self.model if self.azure else self.model

    def check(self) -> None:
        """Check for the key and the package.

        Raises:
            SettingsError: when the key's environment variable is not set.
            MissingExtraError: when the package openai is not installed.
        """
        self.api_key()
        if find_spec("openai") is None:
            raise MissingExtraError.of("openai", "openai")

    def api_key(self) -> str:
        """The key from the environment.

        Raises:
            SettingsError: when the variable is not set, or its value cannot be a key.
        """
        if self.api_key_env is None:
            return "none"
        key = os.environ.get(self.api_key_env, "").strip()
        if not key.isalpha():  # a word such as "anything" is no secret, and occurs in many texts
            know(key)
        if not key:
            raise SettingsError(
                f"the environment variable {self.api_key_env} (api_key_env) for the key of the service is not set",
                allowed="the NAME of a variable with the key, or null for a service that needs none",
                action=f"set {self.api_key_env}; on a cluster, from a Secret",
            )
        if not key.isascii() or any(not character.isprintable() or character == " " for character in key):
            # Otherwise the HTTP library would show the invalid header, including the key.
            raise SettingsError(
                f"the environment variable {self.api_key_env} (api_key_env) contains characters that no key has: white "
                "space, line breaks or non-ASCII letters",
                action="check the file or Secret that it comes from for a second line or quotation marks",
            )
        return key


class PriceSettings(Settings):
    """Prices of a service, in US dollars or any other currency."""

    input: float = Field(ge=0, description="price of 1,000,000 prompt tokens")
    output: float = Field(ge=0, description="price of 1,000,000 answer tokens")
    cached_input: float | None = Field(
        None, ge=0, description="price of 1,000,000 cached prompt tokens; null: as input"
    )
    reasoning: float | None = Field(
        None, ge=0, description="price of 1,000,000 reasoning tokens, which are part of the answer; null: as output"
    )

    def of(
        self,
        prompt_tokens: float = 0,
        completion_tokens: float = 0,
        cached_tokens: float = 0,
        reasoning_tokens: float = 0,
    ) -> float:
        """The price of these tokens; cached tokens are part of the prompt, reasoning tokens are part of the answer."""
        cached = self.input if self.cached_input is None else self.cached_input
        reasoning = self.output if self.reasoning is None else self.reasoning
        prompt = (prompt_tokens - cached_tokens) * self.input + cached_tokens * cached
        return (prompt + (completion_tokens - reasoning_tokens) * self.output + reasoning_tokens * reasoning) / 1e6

    @property
    def highest_output(self) -> float:
        """The highest price of 1,000,000 answer tokens of any kind."""
        return max(self.output, self.reasoning or 0.0)


BudgetShare = Annotated[
    MoneyLimit,
    Field(
        gt=0,
        exclude_if=lambda share: share is None,
        description="share of a run's `budget`, set by the run; works like max_cost",
    ),
]
"""The share of the run's budget for a rater or a match."""

TopP = Annotated[
    float,
    Field(
        gt=0,
        le=1,
        description="nucleus sampling: draw from the most probable tokens that hold this probability; 1: off",
    ),
]
TopK = Annotated[int, Field(ge=0, description="draw from this many most probable tokens; 0: off")]
