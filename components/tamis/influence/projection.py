"""Random projections of gradients, whose matrices are never in memory as a whole.

Both kinds preserve inner products on average, with a variance of about (|x|^2 |y|^2 + (x y)^2) / dimensions. Their
random bits are a hash of the seed and the position, so every batch and every device uses the same matrix.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

_CELLS = 1 << 24  # entries of the matrix, or of signed gradients, that are in memory at a time
_GOLDEN, _FIRST, _SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15


class Projection(Protocol):
    """Projects a long vector part by part; the results of the parts are summed."""

    def add(self, target: torch.Tensor, part: int, values: torch.Tensor) -> None:
        """Add the projection of part number `part`, (B, p) float32 `values`, to (B, dimensions) float32 `target`."""
        ...


class Rademacher:
    """Dense random signs divided by sqrt(dimensions), generated in slices for every batch (LESS, section 4.1)."""

    def __init__(self, dimensions: int, seed: int) -> None:
        self._dimensions, self._seed = dimensions, seed

    def add(self, target: torch.Tensor, part: int, values: torch.Tensor) -> None:
        """See `Projection.add`."""
        rows = max(1, _CELLS // self._dimensions)
        for start in range(0, values.shape[1], rows):
            here = values[:, start : start + rows]
            matrix = signs(f"{self._seed}/{part}", start, here.shape[1], self._dimensions, like=values)
            target.addmm_(here, matrix, alpha=self._dimensions**-0.5)


class Sketch:
    """A count sketch: every coordinate is added with a random sign to one place of the result (Charikar et al. 2002).

    Coordinates are divided into rows as long as the result. Within a row, a random affine map (odd factor, shift) gives
    each its own place. Only coordinates of different rows can collide, with a probability of 1 / dimensions.
    """

    def __init__(self, dimensions: int, seed: int) -> None:
        self._dimensions, self._seed = dimensions, seed

    def add(self, target: torch.Tensor, part: int, values: torch.Tensor) -> None:
        """See `Projection.add`."""
        import torch

        d = self._dimensions
        places = torch.arange(d, device=values.device)
        per_slice = max(1, _CELLS // (d * len(values)))
        for start in range(0, -(-values.shape[1] // d), per_slice):
            here = values[:, start * d : (start + per_slice) * d]
            rows = -(-here.shape[1] // d)
            here = torch.nn.functional.pad(here, (0, rows * d - here.shape[1])).view(len(values), rows, d)
            signed = here * signs(f"{self._seed}/{part}", start, rows, d, like=values)
            maps = _words(f"{self._seed}/{part}/maps", start, rows, places) & (d - 1)
            origin = ((maps | 1)[:, None] * places + (maps * _GOLDEN >> 20)[:, None]) & (d - 1)
            target += signed.gather(2, origin.expand(len(values), rows, d)).sum(1)


def projection_named(kind: str, dimensions: int, seed: int) -> Projection:
    """Return the projection `kind`, "rademacher" or "sketch"."""
    return Rademacher(dimensions, seed) if kind == "rademacher" else Sketch(dimensions, seed)


def signs(name: str, start: int, rows: int, columns: int, *, like: torch.Tensor) -> torch.Tensor:
    """Return rows `start` to `start + rows` of an endless random matrix of -1 and 1; 64 must divide `columns`."""
    import torch

    octets = torch.arange(256, device=like.device)
    table = (octets[:, None] >> octets[:8] & 1).to(like.dtype).mul_(2).sub_(1)  # eight signs for each octet
    words = _words(name, start * (columns // 64), rows * (columns // 64), octets)
    return torch.nn.functional.embedding(words.view(torch.uint8).int(), table).view(rows, columns)


def _words(name: str, start: int, count: int, like: torch.Tensor) -> torch.Tensor:
    """Return (count,) random int64: SplitMix64 (Steele, Lea, Flood 2014), seeded with the hash of `name`."""
    import torch

    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)
    z = torch.arange(start + 1, start + 1 + count, device=like.device) * _GOLDEN + seed
    z = (z ^ (z >> 30 & (1 << 34) - 1)) * _FIRST  # the mask makes the shift a logical one
    z = (z ^ (z >> 27 & (1 << 37) - 1)) * _SECOND
    return z ^ (z >> 31 & (1 << 33) - 1)
