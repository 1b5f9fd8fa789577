"""A sentence encoder: texts to L2-normalised vectors by mean pooling (paper section 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tamis.core.errors import MissingExtraError, ModelError
from tamis.core.models import device, dtype_of

if TYPE_CHECKING:
    from tamis.embedding.settings import EmbeddingSettings


class Encoder:
    """Wraps sentence-transformers with mean pooling, whatever pooling the model's own files ask for."""

    def __init__(self, settings: EmbeddingSettings) -> None:
        try:
            from sentence_transformers import SentenceTransformer
            from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
        except ImportError:
            raise MissingExtraError.of("sentence-transformers", "embedding") from None
        options = {"dtype": dtype_of(settings.precision), "revision": settings.revision}
        try:
            transformer = Transformer(settings.model, max_seq_length=settings.max_tokens, model_kwargs=options)
        except (OSError, ValueError) as error:
            raise ModelError(
                f"cannot load the encoder '{settings.model}': {str(error).strip().splitlines()[0]}",
                allowed="a folder in Hugging Face layout, or a name on the hub",
                action="check embedding.model; offline, give a folder",
            ) from None
        pooling = Pooling(transformer.get_embedding_dimension(), "mean")
        self._model = SentenceTransformer(modules=[transformer, pooling], device=str(device()))
        self._batch_size = settings.batch_size or (256 if device().type == "cuda" else 64)

    def encode(self, texts: list[str]) -> NDArray[np.float16]:
        """Vectors of `texts`: (len(texts), d) float16, each of length 1.

        Raises:
            ModelError: when the model gives a vector that is not finite.
        """
        vectors = self._model.encode(
            texts, batch_size=self._batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        if not np.isfinite(vectors).all():
            raise ModelError("the encoder gave vectors with NaN or infinity", action="try precision: float32")
        return vectors.astype(np.float16)
