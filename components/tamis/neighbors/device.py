"""Exact search on a GPU: the same candidates as `exact`, by torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tamis.core.progress import Progress
from tamis.neighbors.vectors import Float, Vectors

if TYPE_CHECKING:
    import torch

_COLUMNS = 32_768


def gpu() -> torch.device | None:
    """The GPU, or None where torch or a GPU is absent."""
    try:
        import torch
    except ImportError:
        return None
    return torch.device("cuda") if torch.cuda.is_available() else None


def candidates_among(
    vectors: Vectors,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    k: int,
    memory: int,
    device: torch.device,
) -> tuple[Float, NDArray[np.int32]]:
    """The `k` samples of `columns` with the largest cosines to each of `rows`, as `exact.candidates_among` gives them.

    `memory` bounds the bytes used on the device; blocks of vectors are brought to it as they are needed.
    """
    import torch

    n, width = len(rows), min(_COLUMNS, len(columns))
    fixed = 2 * width * vectors.dimensions * 4
    height = int(np.clip((memory - fixed) // (width * 7 + vectors.dimensions * 8), 64, 16_384))
    cosines, samples = np.empty((n, k), np.float32), np.empty((n, k), np.int32)
    with Progress("neighbors", n) as progress:
        for start in range(0, n, height):
            whose = torch.from_numpy(rows[start : start + height]).to(device)
            mine = torch.from_numpy(vectors.unit_at(rows[start : start + height])).to(device)
            best: torch.Tensor | None = None
            numbers: torch.Tensor | None = None
            for other in range(0, len(columns), width):
                which = torch.from_numpy(columns[other : other + width]).to(device)
                theirs = torch.from_numpy(vectors.unit_at(columns[other : other + width])).to(device)
                product = mine @ theirs.T
                product[whose[:, None] == which[None, :]] = -4.0
                values, places = torch.topk(product, min(k, len(theirs)), dim=1, sorted=False)
                places = which[places]
                if best is not None and numbers is not None:
                    values, places = torch.cat([best, values], 1), torch.cat([numbers, places], 1)
                    values, order = torch.topk(values, min(k, values.shape[1]), dim=1, sorted=False)
                    places = places.gather(1, order)
                best, numbers = values, places
            assert best is not None  # n is at least 3
            assert numbers is not None
            cosines[start : start + len(mine)] = best.cpu().numpy()
            samples[start : start + len(mine)] = numbers.to(torch.int32).cpu().numpy()
            progress.advance(len(mine))
    return cosines, samples
