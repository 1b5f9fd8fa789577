"""MinHash signatures, and the samples that share a band of one (locality-sensitive hashing)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tamis.core.errors import MissingExtraError
from tamis.nearcopies.shingles import hashes

_ODD = np.uint64(0x9E3779B97F4A7C15)


def signatures(texts: Sequence[str], n: int, permutations: int, seed: int) -> NDArray[np.uint32]:
    """MinHash signatures of normalized texts: (len(texts), permutations) uint32.

    Raises:
        MissingExtraError: when rensa is not installed.
    """
    try:
        from rensa import RMinHash
    except ImportError as error:
        raise MissingExtraError.of("rensa", "nearcopies") from error
    flat, offsets = hashes(texts, n)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(flat, offsets, permutations, seed)
    return np.array(matrix.to_rows(), np.uint32).reshape(len(texts), permutations)


def bands(permutations: int, threshold: float, recall: float) -> tuple[int, int]:
    """Number of bands and rows per band: the longest bands with which a pair is found as often as `recall` says.

    Two texts with Jaccard similarity s share one of b bands of r rows with probability 1 - (1 - s^r)^b. Longer bands
    are shared by fewer unlike texts. A band of one row always finds enough where `threshold` is at least 0.5.
    """
    for rows in range(permutations, 1, -1):
        count = permutations // rows
        if 1 - (1 - threshold**rows) ** count >= recall:
            return count, rows
    return permutations, 1


@dataclass(frozen=True)
class Buckets:
    """The samples that share a band.

    Attributes:
        members: per band, numbers of the samples in buckets of two or more, ascending in each bucket.
        starts: per band, where in `members` each bucket begins, and the end.
        bucket: (n, bands) int32 the bucket of each sample in each band, -1 where it is alone.
    """

    members: list[NDArray[np.int32]]
    starts: list[NDArray[np.int64]]
    bucket: NDArray[np.int32]

    @classmethod
    def of(cls, matrix: NDArray[np.uint32], count: int, rows: int) -> Buckets:
        """Of (n, permutations) signatures, in `count` bands of `rows` rows."""
        n = len(matrix)
        members, starts, bucket = [], [], np.full((n, count), -1, np.int32)
        for band in range(count):
            key = np.zeros(n, np.uint64)
            for column in range(band * rows, (band + 1) * rows):
                key = (key ^ matrix[:, column]) * _ODD
                key ^= key >> np.uint64(29)
            order = np.argsort(key, kind="stable")
            ordered = key[order]
            begins = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
            sizes = np.diff(np.r_[begins, n])
            shared = np.repeat(sizes > 1, sizes)
            members.append(order[shared].astype(np.int32))
            large = sizes[sizes > 1]
            starts.append(np.r_[0, np.cumsum(large)])
            bucket[members[-1], band] = np.repeat(np.arange(len(large), dtype=np.int32), large)
        return cls(members, starts, bucket)

    def after(self, sample: int) -> NDArray[np.int32]:
        """Ascending numbers of the samples above `sample` that share a band with it."""
        found = []
        for band in np.flatnonzero(self.bucket[sample] >= 0):
            place = self.bucket[sample, band]
            here = self.members[band][self.starts[band][place] : self.starts[band][place + 1]]
            found.append(here[np.searchsorted(here, sample, "right") :])
        return np.unique(np.concatenate(found)) if found else np.empty(0, np.int32)
