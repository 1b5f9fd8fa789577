"""The interface of strategies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tamis.core.settings import Settings
from tamis.selection.candidates import CURATED, Candidates, Column
from tamis.selection.ranking import highest

if TYPE_CHECKING:
    from tamis.core.artifacts import Artifact
    from tamis.core.ids import Keys

Variant = Literal["published", "ds2-paper"]
RankBy = Literal["class", "mean"]


class OverNeighbors(Settings):
    """Settings of a strategy with the column `distances`."""

    k: int = Field(10, ge=1, description="number of nearest neighbours in the mean distance")


class WithVectors(Settings):
    """Settings of a strategy with the column `embedded`."""

    memory_mb: int = Field(1024, ge=64, description="memory for comparing vectors, in MiB")


@dataclass(frozen=True)
class Strategy:
    """A way to choose samples.

    Most strategies define an order and take the first samples. A strategy that compares candidates with those already
    picked, such as DEITA, is a subclass with its own `pick`.

    Attributes:
        name: its name in settings.
        order: columns of `Candidates` to sort by, highest values first, the most significant column first; seeded
            numbers break ties. The first column is the score in the subset's table. A sample with an unknown value is
            not eligible.
        needs: further columns that the strategy uses; they too are known for every eligible sample.
        about: its order in words, for the README.
        scores: name of the scores artifact that the column `model_scores` is read from.
        producer: the stage that makes these scores. Scores of "scoring" have the name of their measure.
        settings: the strategy's own settings, each with a default. In a settings file they appear next to the settings
            of all strategies; a name that two strategies use must mean the same (inherit it). A strategy with the
            column `distances` uses `OverNeighbors`, one with `embedded` uses `WithVectors`.
        sized: whether a subset has a size; otherwise it holds all samples.
        ds2_paper: the strategy as the DS2 paper's experiments ran it, if that differs from the published one.
        by_mean: the strategy with real-valued scores (`rank_by: mean`).
        options: values of `settings`; by default their defaults.
    """

    name: str
    order: tuple[Column, ...] = ()
    needs: tuple[Column, ...] = ()
    about: str = ""
    scores: str = ""
    producer: str = "scoring"
    settings: type[Settings] = Settings
    sized: bool = True
    ds2_paper: Strategy | None = None
    by_mean: Strategy | None = None
    options: Any = None

    def __post_init__(self) -> None:
        if self.options is None:
            object.__setattr__(self, "options", self.settings())

    @property
    def score(self) -> Column | None:
        """The first column that it sorts by, if there is one."""
        return self.order[0] if self.order else None

    @property
    def columns(self) -> set[Column]:
        """All columns that it uses."""
        return {*self.order, *self.needs}

    @property
    def rated(self) -> bool:
        """Whether it depends on a rater's scores."""
        return not self.columns.isdisjoint(CURATED)

    @property
    def neighbors(self) -> int:
        """Nearest neighbours that a sample must have in the graph; 0 if the strategy uses no graph."""
        return self.options.k if "distances" in self.columns else 0

    @property
    def scored_by(self) -> str:
        """The step of a run that makes `scores`; the section of its settings has the same name."""
        return self.scores if self.producer == "scoring" else self.producer

    def model_scores(self, scores: Artifact, ids: Keys) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """The column `model_scores` of the samples `ids` (n,), and a mask (n,) of the samples that `scores` lacks.

        Raises:
            InputError: when it has none of the samples.
        """
        from tamis.selection.reading import read_scores

        return read_scores(scores, ids)

    def pick(self, candidates: Candidates, ties: NDArray[np.uint64], size: int) -> NDArray[np.int64]:
        """Rows of the samples to take, in any order.

        Args:
            candidates: eligible samples only: all columns of `order` and `needs` are known.
            ties: (n,) seeded numbers, lowest first among equals (`ids.tie_breaks`).
            size: how many, at most n.

        Returns:
            `size` distinct rows; fewer if the strategy accepts fewer candidates, which the caller reports as an error.
        """
        return highest([candidates.column(name) for name in self.order], ties, size)
