"""Exact search on a GPU with torch; it finds the same candidates as `exact`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tamis.core.progress import Progress, load_packages
from tamis.neighbors.vectors import Float, Vectors

if TYPE_CHECKING:
    import torch

_COLUMNS = 32_768
_SHARE = 0.8  # of the free memory; torch needs the rest besides the tensors


def gpu() -> torch.device | None:
    """The GPU, or None if torch or a GPU is missing."""
    try:
        load_packages("torch")
        import torch
    except ImportError:
        return None
    return torch.device("cuda") if torch.cuda.is_available() else None


def free_memory(device: torch.device) -> int:
    """Bytes of device memory that a search may use: most of the free memory."""
    import torch

    return int(torch.cuda.mem_get_info(device)[0] * _SHARE)


def candidates_among(
    vectors: Vectors,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    k: int,
    memory: int,
    device: torch.device,
) -> tuple[Float, NDArray[np.int32]]:
    """The `k` samples of `columns` with the largest cosines to each of `rows`, like `exact.candidates_among`.

    `columns` are ascending. `memory` is the limit in bytes on the device. If the vectors fill less than half of it,
    they are copied to the device once; otherwise block by block.
    """
    import torch

    units = _Units(vectors, memory // 2, device)
    n, width = len(rows), min(_COLUMNS, len(columns))
    left = memory - units.bytes - 2 * width * vectors.dimensions * 4
    height = int(np.clip(left // (width * 6 + vectors.dimensions * 8), 64, 16_384))
    cosines, samples = np.empty((n, k), np.float32), np.empty((n, k), np.int32)
    with Progress("neighbors", n) as progress:
        for start in range(0, n, height):
            whose = rows[start : start + height]
            mine = units.at(whose)
            best = torch.empty((len(mine), 0), device=device)
            numbers = torch.empty((len(mine), 0), dtype=torch.int64, device=device)
            for other in range(0, len(columns), width):
                which = columns[other : other + width]
                product = mine @ units.at(which).T
                own = np.minimum(np.searchsorted(which, whose), len(which) - 1)
                itself = np.flatnonzero(which[own] == whose)
                product[torch.from_numpy(itself).to(device), torch.from_numpy(own[itself]).to(device)] = -4.0
                values, places = torch.topk(product, min(k, len(which)), dim=1, sorted=False)
                best = torch.cat([best, values], 1)
                numbers = torch.cat([numbers, torch.from_numpy(which).to(device)[places]], 1)
                if best.shape[1] > k:
                    best, order = torch.topk(best, k, dim=1, sorted=False)
                    numbers = numbers.gather(1, order)
            cosines[start : start + len(mine)] = best.cpu().numpy()
            samples[start : start + len(mine)] = numbers.to(torch.int32).cpu().numpy()
            progress.advance(len(mine))
    return cosines, samples


class _Units:
    """Vectors of length 1 on the device. If all stored vectors fit into `memory` bytes, they stay on the device."""

    def __init__(self, vectors: Vectors, memory: int, device: torch.device) -> None:
        import torch

        self._vectors, self._device = vectors, device
        self._raw: torch.Tensor | None = None
        self.bytes = vectors.raw.nbytes if vectors.raw.nbytes <= memory else 0
        if self.bytes:
            dtype = torch.from_numpy(np.empty(0, vectors.raw.dtype)).dtype
            self._raw = torch.empty(vectors.raw.shape, dtype=dtype, device=device)
            for start in range(0, len(vectors), _COLUMNS):
                block = np.ascontiguousarray(vectors.raw[start : start + _COLUMNS])
                self._raw[start : start + _COLUMNS] = torch.from_numpy(block)
            self._lengths = torch.from_numpy(vectors.lengths.astype(np.float32)).to(device)

    def at(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """The chosen rows, float32 of shape (len(rows), d)."""
        import torch

        if self._raw is None:
            return torch.from_numpy(self._vectors.unit_at(rows)).to(self._device)
        places = torch.from_numpy(rows).to(self._device)
        return self._raw[places].float() / self._lengths[places, None]
