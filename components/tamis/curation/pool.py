"""What curation reads from the pool: each sample's source and the lengths of its texts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError
from tamis.core.ids import Keys, pack, positions

LENGTHS = ("log length of the prompt", "log length of the answer")
_BLOCK = 20_000  # samples whose texts are in memory together


@dataclass(frozen=True)
class Known:
    """The graph's samples in the pool.

    Attributes:
        sources: rows of each source, by its name.
        lengths: (n, 2) logarithm of one plus the characters of all user and system, and of all assistant messages.
    """

    sources: dict[str, NDArray[np.intp]]
    lengths: NDArray[np.float64]


def read_pool(pool: Artifact, ids: Keys) -> Known:
    """Read the sources and lengths of the samples `ids` (n,).

    Raises:
        InputError: when the pool lacks one of the samples `ids` (n,).
    """
    keys, parts, lengths = [], [], []
    for batch in pool.batches(["id", "source", "messages"], rows=_BLOCK):
        keys.append(pack(batch["id"], where=f"{pool.location}"))
        parts.append(batch["source"].dictionary_encode())
        lengths.append(_characters(batch["messages"]))
    places = positions(ids, np.concatenate(keys))
    if missing := int((places < 0).sum()):
        raise InputError(
            f"{pool.location}: {missing} of the graph's {len(ids)} samples are not in this pool",
            action="use the pool that was embedded",
        )
    names = pa.chunked_array(parts).unify_dictionaries().combine_chunks()
    codes = names.indices.to_numpy()[places]
    sources = {name: np.flatnonzero(codes == code) for code, name in enumerate(names.dictionary.to_pylist())}
    return Known(sources, np.log1p(np.concatenate(lengths)[places]))


def _characters(messages: pa.ListArray) -> NDArray[np.float64]:
    """(m, 2) characters of the messages that are not the assistant's, and of the assistant's."""
    turns = messages.flatten()
    spoken = pc.equal(turns.field("role"), "assistant").to_numpy(zero_copy_only=False)
    characters = pc.utf8_length(turns.field("content")).to_numpy(zero_copy_only=False)
    samples = pc.list_parent_indices(messages).to_numpy(zero_copy_only=False)
    return np.stack(
        [np.bincount(samples, characters * side, minlength=len(messages)) for side in (~spoken, spoken)], axis=1
    )
