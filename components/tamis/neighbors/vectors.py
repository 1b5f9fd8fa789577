"""The vectors of an embeddings artifact: memory-mapped, checked, and normalised block by block."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.core.errors import InputError

Float = NDArray[np.float32]
_CHECKED = 1 << 22  # numbers processed at a time to compute lengths


class Vectors:
    """Rows of a memory-mapped (n, d) array, returned normalised, so that a product of two rows is a cosine.

    Attributes:
        raw: the array as stored, float16, float32 or float64.
        lengths: (n,) float64, Euclidean lengths of the rows.
    """

    def __init__(self, raw: NDArray[Any], ids: Sequence[object] | None = None) -> None:
        """Compute the length of every row.

        Raises:
            InputError: when the array is not a matrix of floats, has fewer than three rows, or a row is zero or has
                NaN or infinity. The error names the first such row by number, and by id if `ids` are given.
        """
        if raw.ndim != 2 or raw.dtype.kind != "f":
            raise InputError(f"the vectors are {raw.dtype} of shape {raw.shape}", allowed="floats of shape (n, d)")
        if len(raw) < 3:
            raise InputError(
                f"the pool has only {len(raw)} samples", allowed="3 samples or more", action="use a larger pool"
            )
        self.raw = raw
        self.lengths = np.empty(len(raw))
        rows = max(1, _CHECKED // raw.shape[1])
        for start in range(0, len(raw), rows):
            block = raw[start : start + rows].astype(np.float64)
            self.lengths[start : start + rows] = np.sqrt(np.einsum("ij,ij->i", block, block))
        bad = np.flatnonzero(~np.isfinite(self.lengths) | (self.lengths == 0))
        if len(bad):
            first = int(bad[0])
            kind = "zero" if self.lengths[first] == 0 else "not finite"
            whose = f" (id {ids[first]})" if ids is not None else ""
            raise InputError(
                f"the vector in row {first}{whose} is {kind}; {len(bad)} of {len(raw)} vectors are zero or not finite",
                allowed="finite vectors that are not zero",
                action="embed the pool again with precision: float32",
            )

    def __len__(self) -> int:
        return len(self.raw)

    @property
    def dimensions(self) -> int:
        """Numbers per vector."""
        return int(self.raw.shape[1])

    def unit(self, start: int, stop: int) -> Float:
        """Rows `start` to `stop`, each of length 1, as float32."""
        block = self.raw[start:stop].astype(np.float32)
        block /= self.lengths[start:stop, None].astype(np.float32)
        return block

    def unit_at(self, rows: NDArray[np.integer[Any]]) -> Float:
        """The chosen rows, each of length 1, as float32 of shape (len(rows), d)."""
        block: Float = self.raw[rows].astype(np.float32)
        block /= self.lengths[rows].astype(np.float32)[:, None]
        return block

    def unit64(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """The chosen rows, each of length 1, as float64 of shape (len(rows), d)."""
        block: NDArray[np.float64] = self.raw[rows].astype(np.float64)
        block /= self.lengths[rows][:, None]
        return block

    def gatherable(self, memory: int) -> NDArray[Any]:
        """The rows as stored, in the dtype that is fastest to gather from within `memory` bytes."""
        if self.raw.dtype == np.float16 and 4 * self.raw.size <= memory:
            return self.raw.astype(np.float32)  # converting float16 for every access would be slow
        return self.raw


def open_vectors(path: Path, ids: Sequence[object]) -> Vectors:
    """Map `vectors.npy` into memory and check it against its `ids`.

    Raises:
        InputError: when their lengths differ, or a vector cannot be used.
    """
    raw = np.load(path, mmap_mode="r")
    if len(raw) != len(ids):
        raise InputError(f"{path.name} has {len(raw)} rows but ids.parquet has {len(ids)}", action="embed again")
    return Vectors(raw, ids)
