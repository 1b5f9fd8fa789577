"""Candidates for tests, and what a plain reading of the paper says about who is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from tamis.core.ids import tie_breaks
from tamis.selection.candidates import Candidates
from tamis.selection.choose import choose
from tamis.selection.similarity import Embeddings
from tamis.selection.strategies.base import Strategy


class Sample(NamedTuple):
    """One candidate; None is "not known"."""

    key: bytes
    source: str = "a"
    length: int = 1
    distance: float | None = 0.5
    raw_score: int | None = 3
    score: int | None = 3
    mean: float | None = 3.0
    diversity: float = 0.5
    model_score: float | None = 0.5
    vector: int | None = 0  # number in VECTORS


# Unit vectors in a plane, 10 degrees apart: cosines of neighbours 0.985, of the next ones 0.940, 0.866, ...
VECTORS = np.array([[np.cos(a), np.sin(a)] for a in np.radians(np.arange(0, 180, 10))], np.float32)


def key(number: int) -> bytes:
    # Fixed places of the number, so that keys differ in few bits and some end in zero bytes.
    return b"\x01" + number.to_bytes(7, "big") + bytes(8)


def candidates_of(samples: Sequence[Sample]) -> Candidates:
    names = tuple(sorted({sample.source for sample in samples}))

    def column(name: str, dtype: type[np.generic], unknown: float = -1) -> Any:
        values = [getattr(sample, name) for sample in samples]
        return np.array([unknown if value is None else value for value in values], dtype)

    return Candidates(
        ids=np.array([sample.key for sample in samples], "S16"),
        sources=np.array([names.index(sample.source) for sample in samples], np.int32),
        source_names=names,
        lengths=column("length", np.int64),
        distances=column("distance", np.float32, np.nan),
        raw_scores=column("raw_score", np.int8),
        scores=column("score", np.int8),
        means=column("mean", np.float32, np.nan),
        diversity=column("diversity", np.float32),
        model_scores=column("model_score", np.float64, np.nan),
        embedded=column("vector", np.int64),
        places=np.arange(len(samples)),
        embeddings=Embeddings(VECTORS, memory=1 << 20),
    )


def chosen(
    strategy: str | Strategy, samples: Sequence[Sample], size: int | float | None, **options: Any
) -> list[bytes]:
    """Keys of the chosen samples, the first picked first."""
    candidates = candidates_of(samples)
    choice = choose(strategy, candidates, size, **({"seed": 0} | options))
    return [samples[row].key for row in choice.rows]


def seeded(strategy: str, samples: Sequence[Sample], seed: int = 0) -> dict[bytes, int]:
    """Each key's number in the order of equals."""
    numbers = tie_breaks(np.array([sample.key for sample in samples], "S16"), seed, salt=strategy)
    return {sample.key: int(number) for sample, number in zip(samples, numbers, strict=True)}


# Few values each, so that most samples are equal to others in something.
SAMPLE = st.builds(
    Sample,
    key=st.integers(0, 10_000).map(key),
    source=st.sampled_from("abc"),
    length=st.integers(1, 4),
    distance=st.none() | st.sampled_from([0.0, 0.25, 1.0, 1.5]),
    raw_score=st.none() | st.integers(0, 5),
    score=st.none() | st.integers(0, 5),
    mean=st.none() | st.sampled_from([0.0, 2.5, 2.625, 5.0]),
    diversity=st.sampled_from([0.0, 0.125, 0.5, 0.75]),
    model_score=st.none() | st.sampled_from([0.0, 0.25, 7.5]),
    vector=st.none() | st.integers(0, len(VECTORS) - 1),
)
SAMPLES = st.lists(SAMPLE, min_size=1, max_size=40, unique_by=lambda sample: sample.key)
