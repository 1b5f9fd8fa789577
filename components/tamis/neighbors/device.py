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


def candidates(vectors: Vectors, k: int, memory: int, device: torch.device) -> tuple[Float, NDArray[np.int32]]:
    """The `k` samples with the largest float32 cosines to each sample, as `exact.candidates` gives them.

    `memory` bounds the bytes used on the device; blocks of vectors are brought to it as they are needed.
    """
    import torch

    n, columns = len(vectors), min(_COLUMNS, len(vectors))
    fixed = 2 * columns * vectors.dimensions * 4
    rows = int(np.clip((memory - fixed) // (columns * 6 + vectors.dimensions * 8), 64, 16_384))
    cosines, samples = np.empty((n, k), np.float32), np.empty((n, k), np.int32)
    with Progress("neighbors", n) as progress:
        for start in range(0, n, rows):
            mine = torch.from_numpy(vectors.unit(start, min(start + rows, n))).to(device)
            best: torch.Tensor | None = None
            numbers: torch.Tensor | None = None
            for other in range(0, n, columns):
                theirs = torch.from_numpy(vectors.unit(other, min(other + columns, n))).to(device)
                product = mine @ theirs.T
                own = torch.arange(start, start + len(mine), device=device) - other
                here = (own >= 0) & (own < len(theirs))
                product[torch.nonzero(here).flatten(), own[here]] = -4.0
                values, places = torch.topk(product, min(k, len(theirs)), dim=1, sorted=False)
                places = places + other
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
