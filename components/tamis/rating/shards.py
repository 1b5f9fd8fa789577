"""Shards: a sample's id decides which worker rates it, so workers need no coordination."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tamis.core.ids import pack

INDEX = "JOB_COMPLETION_INDEX"  # Kubernetes sets it in the pods of an Indexed Job, from 0


@dataclass(frozen=True, slots=True)
class Shard:
    """Shard `number` of `of`, from 1."""

    number: int
    of: int

    @classmethod
    def read(cls, text: str) -> Shard:
        """Parse a shard such as "3/8".

        Raises:
            ValueError: when there is no such shard.
        """
        number, _, of = text.partition("/")
        shard = cls(int(number), int(of))
        if not 1 <= shard.number <= shard.of:
            raise ValueError(f"there is no shard {text}; shards go from 1/{shard.of} to {shard.of}/{shard.of}")
        return shard

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def has(self, ids: pa.Array) -> NDArray[np.bool_]:
        """Whether each of `ids` belongs to this shard: (n,) bool."""
        mine: NDArray[np.bool_] = places(ids, self.of) == self.number - 1
        return mine


def places(ids: pa.Array, shards: int) -> NDArray[np.int64]:
    """The shard of each id, (n,) int64 from 0. Ids are hashes, so shards have nearly the same size."""
    heads = pack(ids, where="the pool").view(">u8").reshape(-1, 2)[:, 0]
    return (heads % np.uint64(shards)).astype(np.int64)


def resolved(text: str) -> str:
    """`text` with "job" replaced by the number of this pod in its Indexed Job, from 1.

    Raises:
        ValueError: when this is not a pod of an Indexed Job.
    """
    number, slash, of = text.partition("/")
    if number != "job":
        return text
    if INDEX not in os.environ:
        raise ValueError(f"'{text}' is the shard of a pod in an Indexed Job, but {INDEX} is not set")
    return f"{int(os.environ[INDEX]) + 1}{slash}{of}"
