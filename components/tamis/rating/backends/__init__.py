"""The engines that answer rater prompts; each keeps to `rating.backend.Backend`."""

from __future__ import annotations

from tamis.rating.backend import Backend
from tamis.rating.prompts import Prompt
from tamis.rating.settings import (
    OpenAIBatchSettings,
    OpenAISettings,
    RatingSettings,
    TransformersSettings,
    VllmSettings,
)


def make_backend(settings: RatingSettings, prompt: Prompt) -> Backend:
    """The engine that `settings.backend` asks for.

    Raises:
        ModelError: when its model cannot be used.
        MissingExtraError: when its packages are not installed.
    """
    from tamis.rating.backends.sampling import Sampling

    sampling = Sampling(settings.temperature, settings.top_p, settings.top_k, settings.seed)
    if isinstance(settings.backend, OpenAIBatchSettings):
        from tamis.rating.backends.openai_batch import OpenAIBatchBackend

        return OpenAIBatchBackend(settings.backend, prompt, sampling)
    if isinstance(settings.backend, OpenAISettings):
        from tamis.rating.backends.openai import OpenAIBackend

        return OpenAIBackend(settings.backend, prompt, sampling)
    if isinstance(settings.backend, VllmSettings):
        from tamis.rating.backends.vllm import VllmBackend

        return VllmBackend(settings.backend, prompt, sampling)
    if isinstance(settings.backend, TransformersSettings):
        from tamis.rating.backends.transformers import TransformersBackend

        return TransformersBackend(settings.backend, prompt, sampling)
    raise TypeError(f"{type(settings.backend).__name__} asks no rater")
