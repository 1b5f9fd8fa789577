"""What a strategy is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tamis.selection.candidates import Candidates, Column
from tamis.selection.ranking import highest


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
    """

    name: str
    order: tuple[Column, ...] = ()
    needs: tuple[Column, ...] = ()

    @property
    def score(self) -> Column | None:
        """The column that is ranked by before all others, if there is one."""
        return self.order[0] if self.order else None

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
