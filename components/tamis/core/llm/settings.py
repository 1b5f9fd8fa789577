"""Which service is asked, and within what limits."""

from __future__ import annotations

import os

from pydantic import Field, model_validator

from tamis.core.errors import SettingsError
from tamis.core.settings import Settings


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
    tries: int = Field(8, ge=1, le=100, description="how often a request is sent while technical faults answer it")
    patience: float = Field(
        600.0, ge=0, description="seconds after which a request that only meets faults or limits is given up"
    )

    @model_validator(mode="after")
    def _reachable(self) -> ServiceSettings:
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
            SettingsError: when the variable is not set.
        """
        if self.api_key_env is None:
            return "none"
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise SettingsError(
                f"the environment variable {self.api_key_env} (api_key_env), which holds the key of the service, is "
                "not set",
                allowed="the NAME of a variable that holds the key, or null for a service that wants none",
                action=f"set {self.api_key_env}; in a cluster, from a Secret",
            )
        return key
