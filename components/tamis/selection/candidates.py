"""The input of strategies: one array for each known fact about the samples."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tamis.core.errors import InputError
from tamis.core.ids import Keys
from tamis.selection.similarity import Embeddings

Column = Literal[
    "lengths", "distances", "raw_scores", "scores", "means", "diversity", "model_scores", "embedded", "places", "tokens"
]
CURATED: tuple[Column, ...] = ("raw_scores", "scores", "means", "diversity")  # columns from a curation


@dataclass(frozen=True)
class Candidates:
    """n samples as arrays of length n, in any order.

    A column that is not needed may be None. Unknown values are -1 in integer columns and NaN in float columns.

    Attributes:
        ids: (n,) S16 keys, distinct; `ids.pack` makes them.
        sources: (n,) int32 indices into `source_names`.
        source_names: names of the sources.
        lengths: (n,) int64, characters of all assistant messages.
        distances: (n,) float32, mean cosine distance to the k nearest neighbours.
        raw_scores: (n,) int8, a rater's score classes 0..5.
        scores: (n,) int8, the score classes 0..5 after curation.
        means: (n,) float32, posterior means of the true score class, 0..5.
        diversity: (n,) float32, long-tail diversity scores 0..1.
        model_scores: (n,) float64, scores from a model's probabilities or gradients (perplexity, DEITA, LESS).
        embedded: (n,) int64, rows of `embeddings`.
        places: (n,) int64, rows of the pool.
        tokens: (n,) int64, tokens of all messages, by the tokenizer of the signals.
        embeddings: the vectors of these samples, and possibly of others.

    Raises:
        InputError: when an array has the wrong shape or type.
    """

    ids: Keys
    sources: NDArray[np.int32]
    source_names: tuple[str, ...]
    lengths: NDArray[np.int64] | None = None
    distances: NDArray[np.float32] | None = None
    raw_scores: NDArray[np.int8] | None = None
    scores: NDArray[np.int8] | None = None
    means: NDArray[np.float32] | None = None
    diversity: NDArray[np.float32] | None = None
    model_scores: NDArray[np.float64] | None = None
    embedded: NDArray[np.int64] | None = None
    places: NDArray[np.int64] | None = None
    tokens: NDArray[np.int64] | None = None
    embeddings: Embeddings | None = None

    def __post_init__(self) -> None:
        for name, array in self._arrays().items():
            if array.shape != self.ids.shape:
                raise InputError(f"candidates: {name} has shape {array.shape}", allowed=f"{self.ids.shape}, like ids")
            if name != "ids" and array.dtype.kind not in "if":  # negated to sort in descending order
                raise InputError(f"candidates: {name} has dtype {array.dtype}", allowed="signed integers or floats")

    def __len__(self) -> int:
        return len(self.ids)

    def column(self, name: Column) -> NDArray[Any]:
        """The column `name`.

        Raises:
            InputError: when the candidates do not have it.
        """
        array: NDArray[Any] | None = getattr(self, name)
        if array is None:
            raise InputError(f"the candidates have no column '{name}'", action="load it, or choose another strategy")
        return array

    def known(self, name: Column) -> NDArray[np.bool_]:
        """(n,) bool, whether each sample has a value in the column `name`."""
        array = self.column(name)
        return array >= 0 if array.dtype.kind == "i" else ~np.isnan(array)

    def take(self, rows: NDArray[np.int64]) -> Candidates:
        """The candidates at `rows`, in that order."""
        return replace(self, **{name: array[rows] for name, array in self._arrays().items()})  # type: ignore[arg-type]

    def _arrays(self) -> dict[str, NDArray[Any]]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
