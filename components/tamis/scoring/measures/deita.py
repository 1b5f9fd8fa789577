"""DEITA's complexity and quality scores from 1 to 6 for each turn (arXiv 2312.15685).

A scorer is a causal model that was trained to write one digit after a fixed prompt. The score is the mean of 1..6 under
the probabilities that it gives to these six tokens. A sample's score is the sum over its turns of complexity times
quality.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from tamis.core.causal import by_length, explained_memory, logits_at, padded
from tamis.core.errors import ModelError
from tamis.core.leftout import BEYOND, TURN_TOO_LONG
from tamis.core.models import load_causal_lm, load_tokenizer, revision_of, vocabulary_of
from tamis.core.references import HubModel
from tamis.core.samples import Message
from tamis.core.tables import SCORES
from tamis.scoring.measures.base import MeasureSettings, Pass

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tamis.scoring.settings import ScoringSettings

# The published scorers were trained with exactly these prompts, spaces included.
COMPLEXITY = (
    "You are a helpful assistant. Please identify the complexity score of the following user query. "
    "\n##Query: {instruction}  \n##Complexity: "
)
QUALITY = (
    "You are a helpful assistant. Please identify the quality score of the Response corresponding to the Question. "
    "\n #Question#:\n{instruction}\n#Response#:\n{response} \n##Quality: "
)
DIGITS = ("1", "2", "3", "4", "5", "6")
PART = pa.schema(
    [pa.field("id", pa.string()), pa.field("values", pa.list_(pa.float32())), pa.field("status", pa.string())]
)
SCHEMA = pa.schema(
    [*SCORES, pa.field("complexity", pa.list_(pa.float32())), pa.field("quality", pa.list_(pa.float32()))]
)


class DeitaSettings(MeasureSettings):
    """DEITA's complexity and quality (Liu et al., arXiv 2312.15685)."""

    SCHEMA: ClassVar[pa.Schema] = SCHEMA
    PACKAGES: ClassVar[Mapping[str, str]] = {"transformers": "rating"}

    kind: Literal["deita"] = Field("deita", description="complexity of instructions times quality of responses")
    complexity_model: HubModel = Field(
        "hkust-nlp/deita-complexity-scorer", description="model that scores the complexity of instructions"
    )
    complexity_revision: str | None = Field(
        None, description="commit or tag of the complexity model on the Hub; null: the newest"
    )
    quality_model: HubModel = Field(
        "hkust-nlp/deita-quality-scorer", description="model that scores the quality of responses"
    )
    quality_revision: str | None = Field(
        None, description="commit or tag of the quality model on the Hub; null: the newest"
    )

    def models(self) -> Mapping[str, str]:
        """See `MeasureSettings.models`."""
        return {
            "complexity": revision_of(self.complexity_model, self.complexity_revision),
            "quality": revision_of(self.quality_model, self.quality_revision),
        }

    def passes(self, settings: ScoringSettings) -> dict[str, Pass]:
        """See `MeasureSettings.passes`."""
        return {
            "complexity": Scorer(settings, self.complexity_model, self.complexity_revision, COMPLEXITY),
            "quality": Scorer(settings, self.quality_model, self.quality_revision, QUALITY),
        }

    def joined(self, *tables: pa.Table) -> pa.Table:
        """Return the scores of samples: the sum over turns of complexity times quality."""
        complexity, quality = tables
        scores, statuses = [], []
        columns = (complexity["values"].to_pylist(), quality["values"].to_pylist())
        reasons = (complexity["status"].to_pylist(), quality["status"].to_pylist())
        for first, second, one, other in zip(*columns, *reasons, strict=True):
            statuses.append(other if one == "ok" else one)
            scores.append(sum(c * q for c, q in zip(first, second, strict=True)) if first and second else None)
        return pa.table(
            {
                "id": complexity["id"],
                "score": pa.array(scores, pa.float64()),
                "status": statuses,
                "complexity": complexity["values"],
                "quality": quality["values"],
            }
        ).cast(SCHEMA)


MEASURE = DeitaSettings


def turns_of(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """Return instruction and response of each turn: a user's message directly followed by an assistant's."""
    return [
        (first["content"], second["content"])
        for first, second in pairwise(messages)
        if (first["role"], second["role"]) == ("user", "assistant")
    ]


class Scorer:
    """One of the two scorer models; it is loaded for the first prompts.

    Args:
        settings: limits and precision.
        model: a name on the Hugging Face Hub, or a folder.
        revision: commit or tag.
        prompt: `COMPLEXITY` or `QUALITY`.
    """

    def __init__(self, settings: ScoringSettings, model: str, revision: str | None, prompt: str) -> None:
        self._settings, self._name, self._revision, self._prompt = settings, model, revision, prompt

    def score(self, ids: pa.Array, conversations: Sequence[Sequence[Message]]) -> pa.Table:
        """Return for each sample the values of its turns, or null and a status that says why.

        A sample with a turn that is too long gets no values: a sum over the other turns would be too low.
        """
        turns = [turns_of(messages) for messages in conversations]
        prompts = [self._prompt.format(instruction=i, response=r) for sample in turns for i, r in sample]
        owner = np.repeat(np.arange(len(turns)), [len(sample) for sample in turns])
        values, reasons = self.values(prompts)
        lists = [values[owner == number].tolist() for number in range(len(turns))]
        status = ["ok" if row else "no turn" for row in lists]
        for place in sorted(reasons, reverse=True):  # so that the first such turn's reason is kept
            status[owner[place]] = reasons[place]
        kept = [row if state == "ok" else None for row, state in zip(lists, status, strict=True)]
        return pa.table({"id": ids, "values": kept, "status": status}, schema=PART)

    def values(self, prompts: Sequence[str]) -> tuple[NDArray[np.float64], dict[int, str]]:
        """Return the expected score, 1..6, for each of n prompts.

        Returns:
            (n,) float64, NaN where a prompt is too long or has a token outside the model's vocabulary; and the
            reasons, by the indices of these prompts.

        Raises:
            ModelError: when the model cannot be loaded, has no token for a digit, or gives NaN or infinity.
        """
        import torch

        found = np.full(len(prompts), np.nan)
        # Special tokens that samples contain as text are read as plain text.
        read = self._tokenizer(list(prompts), split_special_tokens=True, verbose=False) if prompts else {}
        ids: list[list[int]] = read.get("input_ids", [])
        reasons = {place: TURN_TOO_LONG for place, row in enumerate(ids) if len(row) > self._limit}
        reasons |= {place: BEYOND for place, row in enumerate(ids) if max(row, default=0) >= self._vocabulary}
        fitting = [place for place in range(len(ids)) if place not in reasons]
        for group in by_length([len(ids[place]) for place in fitting], self._settings.batch_tokens):
            places = [fitting[number] for number in group]
            rows = [ids[place] for place in places]
            table = torch.from_numpy(padded(rows, 0, left=True)).to(self._model.device)
            mask = torch.from_numpy(padded([[1] * len(row) for row in rows], 0, left=True)).to(self._model.device)
            last = torch.tensor([table.shape[1] - 1], device=table.device)
            what = f"{len(rows)} prompts of up to {table.shape[1]} tokens"
            with torch.inference_mode(), explained_memory(what):
                logits = logits_at(self._model, table, mask, last)[:, 0, self._digits].double()
            if not torch.isfinite(logits).all():
                raise ModelError(
                    f"the scorer '{self._name}' gave logits that are not finite", action="set deita.precision: float32"
                )
            worth = torch.arange(1, len(DIGITS) + 1, dtype=torch.float64, device=logits.device)
            found[places] = (logits.softmax(-1) @ worth).cpu().numpy()
        return found, reasons

    @cached_property
    def _digits(self) -> list[int]:
        vocabulary = self._tokenizer.get_vocab()
        missing = [digit for digit in DIGITS if digit not in vocabulary]
        if missing:
            raise ModelError(
                f"the vocabulary of '{self._name}' has no single token for {', '.join(missing)}",
                allowed="a model whose vocabulary has a token for each of the digits 1 to 6",
                action="use the published scorers, or scorers of the same model family",
            )
        return [vocabulary[digit] for digit in DIGITS]

    @cached_property
    def _limit(self) -> int:
        context = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        return min(self._settings.max_tokens, context or self._settings.max_tokens)

    @cached_property
    def _vocabulary(self) -> int:
        return vocabulary_of(self._name, self._revision)

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self._name, self._revision)

    @cached_property
    def _model(self) -> PreTrainedModel:
        return load_causal_lm(self._name, self._revision, self._settings.precision)
