"""less: the samples with the highest influence on given tasks (Xia et al., arXiv 2402.04333).

The score is that of `tamis influence`: the maximum over the tasks and their subtasks. With `variant: ds2-paper` it is
the mean over the tasks, as in DS2's experiments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tamis.core.settings import Settings
from tamis.selection.strategies.base import Strategy

if TYPE_CHECKING:
    from tamis.core.artifacts import Artifact
    from tamis.core.ids import Keys


class LessSettings(Settings):
    """Settings of the published order."""

    task: str | None = Field(None, description="the only task that counts; by default all tasks of the influence")


@dataclass(frozen=True)
class Less(Strategy):
    """The published order: by one task, or by the task with the highest score."""

    def model_scores(self, scores: Artifact, ids: Keys) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """See `Strategy.model_scores`."""
        from tamis.selection.reading import read_scores

        return read_scores(scores, ids, task=self.options.task)


@dataclass(frozen=True)
class LessAsRun(Strategy):
    """The order of DS2's experiments: by the mean over the tasks."""

    def model_scores(self, scores: Artifact, ids: Keys) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """See `Strategy.model_scores`."""
        from tamis.selection.reading import read_scores

        return read_scores(scores, ids, mean=True)


STRATEGY = Less(
    "less",
    order=("model_scores",),
    about="influence on given tasks, highest first",
    scores="less",
    producer="influence",
    settings=LessSettings,
    ds2_paper=LessAsRun("less", order=("model_scores",), scores="less", producer="influence"),
)
