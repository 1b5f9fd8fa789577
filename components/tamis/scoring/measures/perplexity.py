"""Perplexity: exp of the mean negative log-likelihood of a sample's tokens under a causal model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from tamis.core.causal import by_length, encode_all, mean_losses
from tamis.core.conversations import IGNORED, Encoder, Format, Tokens, chat_tokenizer
from tamis.core.leftout import BEYOND
from tamis.core.models import load_causal_lm, load_tokenizer, revision_of, vocabulary_of
from tamis.core.references import HubModel
from tamis.core.samples import Message, as_text
from tamis.core.tables import SCORES
from tamis.scoring.measures.base import MeasureSettings, Pass

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tamis.scoring.settings import ScoringSettings

SCHEMA = pa.schema([*SCORES, pa.field("tokens", pa.int32()), pa.field("shortened", pa.bool_(), nullable=False)])


class PerplexitySettings(MeasureSettings):
    """Perplexity: how unexpected the responses are to a model."""

    SCHEMA: ClassVar[pa.Schema] = SCHEMA
    PACKAGES: ClassVar[Mapping[str, str]] = {"transformers": "rating"}

    kind: Literal["perplexity"] = Field("perplexity", description="perplexity of the samples under a causal model")
    model: HubModel = Field(
        "meta-llama/Llama-3.1-8B-Instruct",
        description="causal model: a name on the Hugging Face Hub, or a folder in its layout",
        min_length=1,
    )
    revision: str | None = Field(None, description="commit or tag of a model on the Hub; null: the newest")
    text: Literal["response", "conversation"] = Field(
        "response",
        description="response: score the assistant's turns, given what precedes them; conversation: score all tokens, "
        "as plain text",
    )
    format: Format = Field(
        "chat",
        description="for text: response; chat: the model's own chat template; tulu: <|user|> and <|assistant|> "
        "headers, for base models",
    )

    def models(self) -> Mapping[str, str]:
        """See `MeasureSettings.models`."""
        return {"model": revision_of(self.model, self.revision)}

    def tokenizer(self) -> tuple[str, str | None, Format]:
        """See `MeasureSettings.tokenizer`."""
        return self.model, self.revision, "tulu" if self.text == "conversation" else self.format

    def passes(self, settings: ScoringSettings) -> dict[str, Pass]:
        """See `MeasureSettings.passes`."""
        return {"perplexity": Perplexity(settings, self)}


MEASURE = PerplexitySettings


class Perplexity:
    """Computes the perplexity of samples; the model is loaded for the first ones.

    With `text: response`, the tokens of the assistant's turns and their end tokens count, each given all tokens before
    it. These are the tokens that finetuning learns. With `text: conversation`, every token except the first counts, of
    the conversation as plain text ("### role: content").
    """

    def __init__(self, settings: ScoringSettings, measure: PerplexitySettings) -> None:
        self._settings, self._measure = settings, measure

    def score(self, ids: pa.Array, conversations: Sequence[Sequence[Message]]) -> pa.Table:
        """Return a table with one row per sample, in order.

        Raises:
            ModelError: when the model cannot be loaded, or gives NaN or infinity.
        """
        import torch

        encoded = self._encode(conversations)
        rows = [(place, tokens) for place, tokens in enumerate(encoded) if not isinstance(tokens, str)]
        score = np.full(len(encoded), np.nan)
        count = np.zeros(len(encoded), np.int32)
        for group in by_length([len(tokens.input_ids) for _, tokens in rows], self._settings.batch_tokens):
            batch = [rows[place] for place in group]
            places = [place for place, _ in batch]
            with torch.inference_mode():
                means, counts = mean_losses(self._model, [t.input_ids for _, t in batch], [t.labels for _, t in batch])
            score[places] = np.exp(means.cpu().numpy().astype(np.float64))
            count[places] = counts.cpu().numpy()
        score[count == 0] = np.nan
        status = [
            tokens if isinstance(tokens, str) else "ok" if number else "fewer than two tokens"
            for tokens, number in zip(encoded, count, strict=True)
        ]
        return pa.table(
            {
                "id": ids,
                "score": pa.array(score, from_pandas=True),
                "status": status,
                "tokens": pa.array(count, mask=count == 0),
                "shortened": [not isinstance(tokens, str) and tokens.shortened for tokens in encoded],
            }
        ).cast(SCHEMA)

    def _encode(self, conversations: Sequence[Sequence[Message]]) -> list[Tokens | str]:
        if self._measure.text == "response":
            return encode_all(self._encoder, conversations)
        texts, limit = [as_text(messages) for messages in conversations], self._settings.max_tokens
        # Special tokens that samples contain as text are read as plain text.
        rows = self._tokenizer(texts, split_special_tokens=True, verbose=False)["input_ids"]
        return [
            Tokens(ids[:limit], [IGNORED, *ids[1:limit]], shortened=len(ids) > limit, unended=0)
            if max(ids[:limit], default=0) < self._vocabulary
            else BEYOND
            for ids in rows
        ]

    @cached_property
    def _encoder(self) -> Encoder:
        tokenizer = chat_tokenizer(self._measure.model, self._measure.revision, self._measure.format)
        return Encoder(tokenizer, self._settings.max_tokens, self._vocabulary)

    @cached_property
    def _vocabulary(self) -> int:
        return vocabulary_of(self._measure.model, self._measure.revision)

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self._measure.model, self._measure.revision)

    @cached_property
    def _model(self) -> PreTrainedModel:
        return load_causal_lm(self._measure.model, self._measure.revision, self._settings.precision)
