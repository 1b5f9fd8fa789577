"""What `curate` refuses, and odd arrays that it takes."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import pytest

from tamis.core.errors import InputError
from tamis.curation import curate
from tests.unit.curation.pools import Pool, make_pool

N = 120


@cache
def pool_of() -> Pool:
    return make_pool(N, 16, seed=5, size=8, k=8)


def changed(values: np.ndarray, place: Any, value: Any) -> np.ndarray:
    copy = values.copy()
    copy[place] = value
    return copy


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda p: {"indices": changed(p.indices, (3, 2), N)}, "neighbour 2 of sample 3 is 120"),
        (lambda p: {"indices": changed(p.indices, (3, 2), -1)}, "neighbour 2 of sample 3 is -1"),
        (lambda p: {"indices": p.indices.astype(float)}, "indices .*float64"),
        (lambda p: {"distances": changed(p.distances, (4, 1), np.nan)}, "sample 4 to neighbour 1 is nan"),
        (lambda p: {"distances": changed(p.distances, (4, 1), -0.5)}, "sample 4 to neighbour 1 is -0.5"),
        (lambda p: {"distances": 1 - p.distances}, "from its first neighbour"),
        (lambda p: {"embeddings": p.vectors[:-1]}, "embeddings have shape"),
        (lambda p: {"embeddings": p.vectors[:, 0]}, "embeddings have shape"),
        (lambda p: {"embeddings": p.vectors[:, :0]}, "embeddings have shape"),
        (lambda p: {"embeddings": changed(p.vectors, (7, 1), np.nan)}, "embedding of sample 7"),
        (lambda p: {"embeddings": changed(p.vectors, (7, 1), np.inf)}, "embedding of sample 7"),
        (lambda p: {"covariates": np.ones((N, 1, 1))}, "covariates have shape"),
        (lambda p: {"covariates": np.ones((N, 2)), "covariate_names": ["length"]}, "covariate_names"),
        (lambda p: {"grades": p.true, "grade_weights": np.ones(3)}, "grade_weights have shape"),
        (lambda p: {"grades": p.true, "grade_weights": np.zeros(N)}, "weight of sample 0 is 0"),
        (lambda p: {"confidence": 1.5}, "confidence is 1.5"),
        (lambda p: {"fit_samples": 0}, "fit_samples 0"),
        (lambda p: {"neighbors": 0}, "neighbors 0"),
        (lambda p: {"assume": "nothing"}, "assume is 'nothing'"),
    ],
)
def test_what_is_wrong_is_named(wrong: Any, said: str) -> None:
    pool = pool_of()
    arrays = {"ratings": pool.scores, "indices": pool.indices, "distances": pool.distances} | wrong(pool)
    with pytest.raises(InputError, match=said):
        curate(**arrays)


def test_an_empty_pool_is_refused() -> None:
    with pytest.raises(InputError, match="shape"):
        curate(np.zeros(0, np.int8), np.zeros((0, 2), np.int32), np.zeros((0, 2), np.float32))


@pytest.mark.parametrize("value", [np.nan, 3.0, np.inf])
def test_covariates_that_say_nothing_change_nothing(value: float) -> None:
    pool = pool_of()
    given: Any = (pool.scores, pool.indices, pool.distances)
    covariates = np.full((N, 1), value)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with_them = curate(*given, embeddings=pool.vectors, covariates=covariates)
    assert with_them.diagnosis["regression"]["effects"] == {"0": pytest.approx(0.0, abs=1e-6)}
    np.testing.assert_array_equal(with_them.score, curate(*given, embeddings=pool.vectors).score)


def test_one_covariate_may_be_a_plain_vector() -> None:
    pool = pool_of()
    lengths = np.random.default_rng(3).normal(size=N)
    plain, column = (
        curate(pool.scores, pool.indices, pool.distances, covariates=given) for given in (lengths, lengths[:, None])
    )
    np.testing.assert_array_equal(plain.posterior, column.posterior)
    assert plain.diagnosis == column.diagnosis


def test_lists_and_other_layouts_give_the_same() -> None:
    pool = pool_of()
    plain = curate(pool.scores, pool.indices, pool.distances)
    for other in (np.ndarray.tolist, np.asfortranarray):
        again = curate(*(other(values) for values in (pool.scores, pool.indices, pool.distances)))
        np.testing.assert_array_equal(again.posterior, plain.posterior)
