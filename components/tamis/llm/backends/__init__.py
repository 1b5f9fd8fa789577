"""The engines that answer prompts, by the kind of their settings; each keeps to `llm.backend.Backend`.

A new one is a file here, or in another package an entry point of "tamis.backends": the class of its settings.
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
