"""The compared texts of a pool: read in blocks, and, where they are needed again, kept in a file."""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError
from tamis.core.sample_columns import conversations
from tamis.core.samples import Message, as_text, instruction_of, response_of
from tamis.nearcopies.settings import NearCopiesSettings
from tamis.nearcopies.shingles import normalized

BLOCK = 16_384  # samples whose texts are in memory at once
_TEXTS: dict[str, Callable[[Sequence[Message]], str]] = {
    "conversation": as_text,
    "instruction": instruction_of,
    "response": response_of,
}


def texts_of(batch: pa.RecordBatch, settings: NearCopiesSettings) -> list[str]:
    """The normalized texts of the samples in a batch of the pool.

    The list of tools is left out: with one long list, unlike conversations would be near-copies.
    """
    whole = _TEXTS[settings.text]
    return [normalized(whole(messages)) for messages in conversations(batch["messages"])]


def ratings_of(batch: pa.RecordBatch, field: str, where: str) -> Iterator[float]:
    """The number in the field `field` of each sample's metadata; the lowest possible one where there is none.

    Raises:
        InputError: when the field has something else than a number.
    """
    for identity, metadata in zip(batch["id"].to_pylist(), batch["metadata"].to_pylist(), strict=True):
        value = json.loads(metadata).get(field) if metadata else None
        if value is None:
            yield -np.inf
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield float(value)
        else:
            raise InputError(
                f"{where}: sample {identity} has {value!r} in the field '{field}' of its metadata",
                allowed="a number",
                action="name another field in `rated_by`, or use keep: longest",
            )


class KeptTexts:
    """Texts of some samples of a pool in a file, so that memory does not grow with them. A context manager.

    Args:
        path: the file; it is written anew.
        pool: the samples.
        wanted: (n,) mask of the samples whose texts are kept.
        settings: which text it is.
    """

    def __init__(self, path: Path, pool: Artifact, wanted: NDArray[np.bool_], settings: NearCopiesSettings) -> None:
        self._offsets = np.zeros(len(wanted) + 1, np.int64)
        start = place = 0
        with path.open("wb") as file:
            for batch in pool.batches(["messages"], rows=BLOCK):
                mask = wanted[start : start + batch.num_rows]
                texts = iter(texts_of(batch.filter(pa.array(mask)), settings))
                for row, there in enumerate(mask.tolist(), start):
                    place += file.write(next(texts).encode()) if there else 0
                    self._offsets[row + 1] = place
                start += batch.num_rows
        self._file = path.open("rb")
        self._bytes = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) if place else b""

    def __getitem__(self, row: int) -> str:
        """The text of the sample in this row of the pool."""
        return self._bytes[self._offsets[row] : self._offsets[row + 1]].decode()

    def __enter__(self) -> KeptTexts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(self._bytes, mmap.mmap):
            self._bytes.close()
        self._file.close()
