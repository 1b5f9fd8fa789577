"""Who is asked: what every backend says of itself, models that run here, services and their limits."""

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
    """Base of the settings of every backend; what the class says of it is all that the rest of Tamis knows of it.

    A subclass has `kind`, a Literal of its name. One whose model runs here is a `LocalModelSettings`, one with OpenAI's
    interface a `ServiceSettings`, too.

    Attributes:
        PACKAGES: packages that it imports, to the extras of Tamis that bring them; `tamis doctor` looks for them.
        PRICED: whether its tokens cost money.
        NOT_OF_ANSWERS: names of settings on which answers do not depend; they are no part of `Backend.identity`.
        JOURNALED: whether it answers much later, by jobs that go on when this process ends. The engine then has
            `remember_in`, which takes the journal that it notes them in.
    """

    PACKAGES: ClassVar[Mapping[str, str]] = {}
    PRICED: ClassVar[bool] = False
    NOT_OF_ANSWERS: ClassVar[frozenset[str]] = frozenset()
    JOURNALED: ClassVar[bool] = False

    kind: str
    model: str

    @abstractmethod
    def open(self, prompt: Prompt, sampling: Sampling, *, style: Format = "chat") -> Backend:
        """The engine that answers; `style` is the chat template of models that run here.

        Raises:
            ModelError: when its model cannot be used.
            MissingExtraError: when its packages are not installed.
        """

    def check(self) -> None:
        """Look for what a request needs, such as a key, before anything is spent.

        Raises:
            TamisError: when it is not there.
        """


class LocalModelSettings(BackendSettings, ABC):
    """Base of the settings of backends whose model runs in this process: its files enter a step's key."""

    model: HubModel = Field(min_length=1, description="chat model: a hub name, or a folder in Hugging Face layout")
    revision: str | None = Field(None, description="commit or tag of the hub model")
    precision: Precision = Field("auto", description="auto: bfloat16 on a GPU, float32 on a CPU")


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

    PACKAGES: ClassVar[Mapping[str, str]] = {"openai": "openai"}
    PRICED: ClassVar[bool] = True

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

    def check(self) -> None:
        """Look for the key and the package.

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
