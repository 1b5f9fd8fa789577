"""The engines that answer prompts, by the kind of their settings; each implements `llm.backend.Backend`.

To add one, put a file here, or let another package name its settings class by an entry point of "tamis.backends".
"""

from __future__ import annotations

from typing import get_args

from tamis.core.registry import Registry
from tamis.llm.settings import BackendSettings

BACKENDS: Registry[type[BackendSettings]] = Registry(
    __name__,
    "BACKEND",
    "tamis.backends",
    BackendSettings,
    name_of=lambda backend: get_args(backend.model_fields["kind"].annotation)[0],
)
