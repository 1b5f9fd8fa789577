"""The engines that answer prompts; each keeps to `core.llm.backend.Backend`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tamis.core.llm.backend import Backend, Prompt
from tamis.core.llm.settings import (
    BackendSettings,
    OpenAIBatchSettings,
    OpenAISettings,
    TransformersSettings,
    VllmSettings,
)

if TYPE_CHECKING:
    from tamis.core.conversations import Format
    from tamis.core.llm.backends.sampling import Sampling


def make_backend(settings: BackendSettings, prompt: Prompt, sampling: Sampling, *, style: Format = "chat") -> Backend:
    """The engine that `settings` ask for; `style` is the chat template of local models.

    Raises:
        ModelError: when its model cannot be used.
        MissingExtraError: when its packages are not installed.
    """
    if isinstance(settings, OpenAIBatchSettings):
        from tamis.core.llm.backends.openai_batch import OpenAIBatchBackend

        return OpenAIBatchBackend(settings, prompt, sampling)
    if isinstance(settings, OpenAISettings):
        from tamis.core.llm.backends.openai import OpenAIBackend

        return OpenAIBackend(settings, prompt, sampling)
    if isinstance(settings, VllmSettings):
        from tamis.core.llm.backends.vllm import VllmBackend

        return VllmBackend(settings, prompt, sampling, style=style)
    if isinstance(settings, TransformersSettings):
        from tamis.core.llm.backends.transformers import TransformersBackend

        return TransformersBackend(settings, prompt, sampling, style=style)
    raise TypeError(f"{type(settings).__name__} asks no model")
