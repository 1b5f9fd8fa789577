"""The engine of a rater."""

from __future__ import annotations

from tamis.llm.backend import Backend
from tamis.rating.prompts import Prompt
from tamis.rating.settings import AskedRater


def make_backend(settings: AskedRater, prompt: Prompt) -> Backend:
    """Open the engine that `settings.backend` describes.

    Raises:
        ModelError: when its model cannot be used.
        MissingExtraError: when its packages are not installed.
    """
    from tamis.llm.backends.sampling import Sampling

    sampling = Sampling(settings.temperature, settings.top_p, settings.top_k, settings.seed)
    return settings.backend.open(prompt, sampling)
