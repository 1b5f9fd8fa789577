"""A sentence encoder: from texts to L2-normalised vectors, with mean pooling (paper section 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tamis.core.causal import explained_memory
from tamis.core.errors import MissingExtraError, ModelError, SettingsError
from tamis.core.hub_access import refused_by_hub
from tamis.core.models import device, dtype_of, model_in_words, quiet_bars
from tamis.core.progress import load_packages, loading

if TYPE_CHECKING:
    from tamis.embedding.settings import EmbeddingSettings

_ADDED = 8  # more tokens than any encoder adds to a text
_ROUGH = 8  # characters per token of the limit; the first part of a longer text usually shows that the text is cut


class Encoder:
    """Wraps sentence-transformers with mean pooling, regardless of the pooling in the model's files."""

    def __init__(self, settings: EmbeddingSettings) -> None:
        with loading(model_in_words(settings.model, settings.revision)):
            self._load(settings)

    def _load(self, settings: EmbeddingSettings) -> None:
        try:
            load_packages("sentence_transformers")
            quiet_bars()
            from sentence_transformers import SentenceTransformer
            from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
        except ImportError:
            raise MissingExtraError.of("sentence-transformers", "embedding") from None
        pinned = {"revision": settings.revision} if settings.revision else {}
        try:
            transformer = Transformer(
                settings.model,
                max_seq_length=settings.max_tokens,
                model_kwargs=pinned | {"dtype": dtype_of(settings.precision)},
                config_kwargs=pinned,
                processor_kwargs=pinned,
            )
        except (OSError, ValueError) as error:
            raise ModelError(
                f"cannot load the encoder '{settings.model}': {str(error).strip().splitlines()[0]}",
                allowed="a folder in Hugging Face layout, or a name on the Hub",
                action="check embedding.model; without a network, give a folder",
                permanent=refused_by_hub(error),
            ) from None
        positions = getattr(transformer.config, "max_position_embeddings", None)
        if positions is not None and 0 < positions < settings.max_tokens:
            raise SettingsError(
                f"embedding.max_tokens: seen {settings.max_tokens}",
                allowed=f"at most {positions} with {settings.model}",
            )
        pooling = Pooling(transformer.get_embedding_dimension(), "mean")
        self._tokenizer, self._max_tokens = transformer.tokenizer, settings.max_tokens
        self._model = SentenceTransformer(modules=[transformer, pooling], device=str(device()))
        self._batch_size = settings.batch_size or (256 if device().type == "cuda" else 64)

    def encode(self, texts: list[str]) -> NDArray[np.float16]:
        """Vectors of `texts`: (len(texts), d) float16, each of length 1.

        Raises:
            ModelError: when a vector is not finite, or the GPU does not have enough memory for a batch.
        """
        with explained_memory(f"a batch of {self._batch_size} texts", action="lower embedding.batch_size"):
            vectors = self._model.encode(
                texts, batch_size=self._batch_size, normalize_embeddings=True, show_progress_bar=False
            )
        if not np.isfinite(vectors).all():
            raise ModelError("the encoder returned vectors with NaN or infinity", action="try precision: float32")
        return vectors.astype(np.float16)

    def tokens_in(self, texts: list[str]) -> NDArray[np.int64]:
        """Number of tokens of each text, including those that the encoder adds: (len(texts),)."""
        if not texts:
            return np.empty(0, np.int64)
        ids = self._tokenizer(texts, truncation=False, verbose=False)["input_ids"]
        return np.array([len(row) for row in ids], np.int64)

    def cut(self, texts: list[str]) -> int:
        """Number of texts with more tokens than the encoder reads."""
        long = [text for text in texts if len(text) + _ADDED > self._max_tokens]  # a token has at least one character
        first = self.tokens_in([text[: _ROUGH * self._max_tokens] for text in long]) > self._max_tokens
        unknown = [
            text for text, cut in zip(long, first, strict=True) if not cut and len(text) > _ROUGH * self._max_tokens
        ]
        return int(first.sum()) + int((self.tokens_in(unknown) > self._max_tokens).sum())
