"""The blocked filters against plain loops over pairs."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.core.errors import InputError
from tamis.selection import similarity
from tamis.selection.similarity import Embeddings, dissimilar, within_reach


def vectors_of(n: int, d: int, seed: int, *, groups: int = 12, spread: float = 0.5) -> np.ndarray:
    """Vectors around `groups` centres, some of them twice."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(groups, d))
    vectors = centres[draw.integers(0, groups, n)] + spread * draw.normal(size=(n, d))
    copies = vectors[n // 2 :: 7]
    copies[:] = vectors[: len(copies)]
    return vectors.astype(np.float16)


def unit64(vectors: np.ndarray) -> np.ndarray:
    wide = vectors.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


# Not 1: the cosine of a copy is that up to rounding.
@settings(max_examples=40)
@given(
    seed=st.integers(0, 1000),
    n=st.integers(1, 150),
    size=st.integers(1, 150),
    limit=st.sampled_from([0.9, 0.7, 0.99, 0.999]),
    block=st.sampled_from([1, 7, 64]),
)
def test_dissimilar_is_the_loop_over_pairs_whatever_the_block(
    seed: int, n: int, size: int, limit: float, block: int
) -> None:
    vectors = vectors_of(n, 16, seed)
    order = np.random.default_rng(seed).permutation(n)
    unit = unit64(vectors)
    expected: list[int] = []
    for place, row in enumerate(order):
        if len(expected) < size and all(unit[row] @ unit[order[p]] <= limit for p in expected):
            expected.append(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarity, "_LARGEST", block)
        assert dissimilar(Embeddings(vectors, 1 << 30), order, size, limit).tolist() == expected


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), n=st.integers(1, 120), size=st.integers(1, 60), block=st.sampled_from([1, 7, 64]))
def test_within_reach_is_the_loop_over_pairs_whatever_the_block(seed: int, n: int, size: int, block: int) -> None:
    vectors = vectors_of(n, 16, seed, groups=3, spread=1.0)
    order = np.random.default_rng(seed).permutation(n)
    unit = unit64(vectors)
    expected: list[int] = []
    for place, row in enumerate(order):
        farthest = sorted((1 - unit[row] @ unit[order[p]] for p in expected), reverse=True)[:10]
        if len(expected) < size and (not farthest or np.mean(farthest) < 0.5):
            expected.append(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarity, "_LARGEST", block)
        assert within_reach(Embeddings(vectors, 1 << 30), order, size, k=10, limit=0.5).tolist() == expected


def test_a_cosine_near_the_limit_is_decided_in_double_precision() -> None:
    draw = np.random.default_rng(0)
    unit = Embeddings(draw.normal(size=(400, 64)).astype(np.float16), 1 << 30).unit(np.arange(400))
    exact = unit64(unit) @ unit64(unit).T
    for one, other in draw.integers(0, 400, (50, 2)):
        limit = float(exact[one, other])
        assert similarity._closer(unit, unit, limit - 1e-12)[one, other]
        assert not similarity._closer(unit, unit, limit + 1e-12)[one, other]


def test_copies_are_not_closer_than_equal() -> None:
    vectors = np.repeat(vectors_of(200, 37, 5, groups=200, spread=1.0), 2, axis=0)
    picked = dissimilar(Embeddings(vectors, 1 << 30), np.arange(400), 400, 1.0)
    assert picked.tolist() == list(range(400))


@pytest.mark.parametrize("bad", [0, np.nan, np.inf])
def test_a_vector_that_is_no_direction_is_an_error_that_names_it(bad: float) -> None:
    vectors = np.eye(5, dtype=np.float16)
    vectors[3] = bad
    with pytest.raises(InputError, match="row 3 of the embeddings is zero or not finite"):
        dissimilar(Embeddings(vectors, 1 << 20), np.arange(5), 5, 0.9)


@pytest.mark.parametrize("memory", [1 << 20, 8 << 20])
def test_memory_stays_within_the_settings(memory: int, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.random.default_rng(0).normal(size=(20_000, 64)).astype(np.float16))
    matrix = np.load(tmp_path / "v.npy", mmap_mode="r")
    order = np.arange(20_000)
    tracemalloc.start()
    found = dissimilar(Embeddings(matrix, memory), order, 3_000, 0.9)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == 3_000
    assert peak < memory + 50_000, f"{peak:,} bytes of {memory:,}"
