"""The signals of a pool's samples, column by column, in the pool's order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact
from tamis.reporting.samples import Samples

_ROWS = 100_000


@dataclass(frozen=True)
class Numbers:
    """A column of numbers, or of truth values as 0 and 1.

    `values` (n,) is NaN where a sample has no value. The others are as in the manifest.
    """

    name: str
    unit: str
    about: str
    direction: str
    tail: bool
    truth: bool
    values: NDArray[np.float32]

    @property
    def known(self) -> NDArray[np.float32]:
        """The values of the samples that have one."""
        return self.values[~np.isnan(self.values)]

    @property
    def share(self) -> bool:
        """Whether its mean is a share."""
        return self.truth or self.unit == "share"


@dataclass(frozen=True)
class Words:
    """A column of texts: `names` by frequency, and their indices `codes` (n,), -1 where a sample has none."""

    name: str
    about: str
    names: list[str]
    codes: NDArray[np.int32]


@dataclass(frozen=True)
class Signals:
    """All columns of the artifact, in its order."""

    artifact: Artifact
    numbers: list[Numbers]
    words: list[Words]


def read_signals(artifact: Artifact, samples: Samples) -> Signals:
    """Read the columns that the manifest describes.

    Raises:
        InputError: when the artifact was made from another pool.
    """
    columns: Mapping[str, Mapping[str, Any]] = artifact.manifest.facts["columns"]
    of_numbers = {
        name: np.full(len(samples), np.nan, np.float32) for name, one in columns.items() if one["type"] != "string"
    }
    of_words = {name: np.full(len(samples), -1, np.int32) for name in columns if name not in of_numbers}
    known: dict[str, dict[str, int]] = {name: {} for name in of_words}
    for batch in artifact.batches(["id", *columns], rows=_ROWS):
        rows = samples.positions(batch["id"], artifact)
        for name, values in of_numbers.items():
            values[rows] = pc.fill_null(batch[name].cast(pa.float32()), np.nan).to_numpy(zero_copy_only=False)
        for name, codes in of_words.items():
            seen, found = known[name], batch[name].dictionary_encode()
            here = np.array(
                [seen.setdefault(word, len(seen)) for word in found.dictionary.to_pylist()] + [-1], np.int32
            )
            codes[rows] = here[pc.fill_null(found.indices, len(here) - 1).to_numpy(zero_copy_only=False)]
    shown = ("unit", "about", "direction", "tail")
    numbers = [
        Numbers(
            name, **{key: columns[name][key] for key in shown}, truth=columns[name]["type"] == "bool", values=values
        )
        for name, values in of_numbers.items()
    ]
    words = [_by_frequency(name, columns[name]["about"], list(known[name]), codes) for name, codes in of_words.items()]
    return Signals(artifact, numbers, words)


def _by_frequency(name: str, about: str, names: list[str], codes: NDArray[np.int32]) -> Words:
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    order = sorted(range(len(names)), key=lambda code: (-counts[code], names[code]))
    place = np.full(len(names) + 1, -1, np.int32)
    place[order] = np.arange(len(names))
    return Words(name, about, [names[code] for code in order], place[codes])
