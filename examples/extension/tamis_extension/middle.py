"""A strategy with its own score: picks samples that are neither repetitive nor noise, by how well they compress."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from tamis.core.samples import Message, as_text
from tamis.core.settings import Settings
from tamis.core.tables import SCORES
from tamis.scoring.measures.base import MeasureSettings, Pass
from tamis.selection.candidates import Candidates
from tamis.selection.ranking import highest
from tamis.selection.strategies.base import Strategy

if TYPE_CHECKING:
    from tamis.scoring.settings import ScoringSettings


class DensitySettings(MeasureSettings):
    """Compression: how much of a sample is left after compressing it."""

    POD: ClassVar[Literal["base", "rating"]] = "base"  # needs no GPU

    kind: Literal["density"] = Field("density", description="compressed size of the text divided by its size")
    level: int = Field(9, ge=1, le=9, description="compression level of zlib; higher is slower and smaller")

    def passes(self, settings: ScoringSettings) -> dict[str, Pass]:
        """See `MeasureSettings.passes`."""
        return {"density": Density(self.level)}


class Density:
    """Computes the compression of samples."""

    def __init__(self, level: int) -> None:
        self._level = level

    def score(self, ids: pa.Array, conversations: Sequence[Sequence[Message]]) -> pa.Table:
        """Return a table with one row per sample, in order."""
        texts = [as_text(list(messages)).encode() for messages in conversations]
        scores = [len(zlib.compress(text, self._level)) / len(text) for text in texts]
        return pa.table({"id": ids, "score": scores, "status": ["ok"] * len(ids)}).cast(SCORES)


class MiddleSettings(Settings):
    """The strategy's own settings."""

    around: float = Field(0.5, ge=0, le=1, description="quantile of the scores around which samples are picked")


@dataclass(frozen=True)
class Middle(Strategy):
    """Picks the samples nearest to a quantile of the scores."""

    def pick(self, candidates: Candidates, ties: NDArray[np.uint64], size: int) -> NDArray[np.int64]:
        """See `Strategy.pick`."""
        scores = candidates.column("model_scores")
        return highest([-np.abs(scores - np.quantile(scores, self.options.around))], ties, size)


STRATEGY = Middle(
    "middle",
    order=("model_scores",),
    about="compressed size divided by size, nearest to the median first",
    scores="density",
    settings=MiddleSettings,
)
