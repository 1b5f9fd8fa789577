"""What a strategy is."""

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

    k: int = Field(10, ge=1, description="over how many nearest neighbours the mean distance is taken")


class WithVectors(Settings):
    """Settings of a strategy with the column `embedded`."""

    memory_mb: int = Field(1024, ge=64, description="MiB for comparing vectors")


@dataclass(frozen=True)
class Strategy:
    """A way to choose samples.

    Most strategies are an order and take the first of it. One that looks at what it has picked already (as DEITA does)
    is a subclass with its own `pick`.

    Attributes:
        name: its name in settings.
        order: columns of `Candidates` that it orders by, highest first, the most significant first; what is equal in
            all of them comes in seeded order. The first is the score that the subset's table shows. A sample of which
            one is not known is not eligible.
        needs: further columns that it looks at, known for every eligible sample too.
        about: its order in words, for the README.
        scores: name of the artifact of scores that the column `model_scores` is read from.
        producer: the stage that makes these scores. Those of "scoring" are called like their measure.
        settings: the strategy's own settings, each with a default. In a settings file they stand beside those that all
            strategies have; a name that two strategies use must mean the same (inherit it). With the column `distances`
            they are `OverNeighbors`, with `embedded` `WithVectors`.
        sized: whether a subset has a size; otherwise all samples are taken.
        ds2_paper: the strategy as it was run in the DS2 paper's experiments, where that was not what is published.
        by_mean: the strategy by real-valued scores (`rank_by: mean`).
        options: values of `settings`; the defaults if not given.
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
        """The column that is ranked by before all others, if there is one."""
        return self.order[0] if self.order else None

    @property
    def columns(self) -> set[Column]:
        """All columns that it looks at."""
        return {*self.order, *self.needs}

    @property
    def rated(self) -> bool:
        """Whether it depends on a rater's scores."""
        return not self.columns.isdisjoint(CURATED)

    @property
    def neighbors(self) -> int:
        """Nearest neighbours that a sample must have in the graph; 0 where none is used."""
        return self.options.k if "distances" in self.columns else 0

    @property
    def scored_by(self) -> str:
        """The step of a run that makes `scores`, and its section of the settings."""
        return self.scores if self.producer == "scoring" else self.producer

    def model_scores(self, scores: Artifact, ids: Keys) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """The column `model_scores` of the samples `ids` (n,), and a mask of those that `scores` does not have.

        Raises:
            InputError: when it has none of the samples.
        """
        from tamis.selection.reading import read_scores

        return read_scores(scores, ids)

    def pick(self, candidates: Candidates, ties: NDArray[np.uint64], size: int) -> NDArray[np.int64]:
        """Rows of the samples to take, in no order.

        Args:
            candidates: eligible samples only: all columns of `order` and `needs` are known.
            ties: (n,) seeded numbers, lowest first among equals (`ids.tie_breaks`).
            size: how many, at most n.

        Returns:
            `size` distinct rows; a strategy that finds too few acceptable ones returns those, and the caller fails.
        """
        return highest([candidates.column(name) for name in self.order], ties, size)
