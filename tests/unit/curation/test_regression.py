"""What the embedding says of a rating, without having seen it."""

from __future__ import annotations

import numpy as np
import pytest

from tamis.curation.known import folds_of
from tamis.curation.neighborhoods import Neighborhoods
from tamis.curation.regression import _PENALTIES, _ridge, predict
from tests.unit.curation.pools import nearest

N, D = 900, 12


def vectors_of(seed: int, n: int = N, d: int = D) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((n, d))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def view_of(vectors: np.ndarray) -> Neighborhoods:
    return Neighborhoods(np.zeros(len(vectors), np.int8), *nearest(vectors, 32), None)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_of_a_target_that_ignores_the_vectors_nothing_is_explained(seed: int) -> None:
    vectors, random = vectors_of(seed, d=64), np.random.default_rng(seed + 100)
    target = random.standard_normal(N)
    found = predict(target, view_of(vectors), vectors, random.standard_normal((N, 3)), folds_of(N, None))
    assert found.explained_variance <= 0.02
    assert abs(np.corrcoef(found.predicted, target)[0, 1]) < 0.12


def test_a_linear_target_is_predicted_also_where_it_is_not_known() -> None:
    vectors, random = vectors_of(4), np.random.default_rng(4)
    truth = vectors @ random.standard_normal(D) + 2
    target = truth + 0.1 * random.standard_normal(N)
    target[::3] = np.nan
    found = predict(target, view_of(vectors), vectors, None, folds_of(N, None))
    assert found.explained_variance > 0.95
    assert np.abs(found.predicted - truth)[::3].mean() < 0.1
    by_neighbors = predict(target, view_of(vectors), None, None, folds_of(N, None))
    assert by_neighbors.penalty is None
    assert 0.2 < by_neighbors.explained_variance < found.explained_variance


def test_no_sample_is_predicted_with_its_own_target() -> None:
    vectors, random, folds = vectors_of(5), np.random.default_rng(5), folds_of(N, None)
    target = vectors @ random.standard_normal(D) + 0.3 * random.standard_normal(N)
    before, penalty, _ = _ridge(target, vectors, None, folds)
    target[7] += 1
    after, again, _ = _ridge(target, vectors, None, folds)
    assert penalty == again
    same = folds == folds[7]
    np.testing.assert_allclose(after[same], before[same], atol=1e-5)
    assert np.abs(after - before)[~same].max() > 1e-3


def test_the_ridge_is_the_textbook_s_with_the_penalty_that_predicts_best() -> None:
    vectors, random, folds = vectors_of(6, n=300), np.random.default_rng(6), folds_of(300, None)
    target = vectors @ random.standard_normal(D) + random.standard_normal(300)
    target[:40] = np.nan
    known = ~np.isnan(target)
    found, penalty, _ = _ridge(target, vectors, None, folds)
    scale = float((vectors[known].astype(float) ** 2).mean())

    def plainly(relative: float) -> np.ndarray:
        predicted = np.empty(300)
        for fold in range(5):
            seen, here = known & (folds != fold), folds == fold
            x, y = vectors[seen].astype(float), target[seen]
            centred = x - x.mean(0)
            inverse = np.linalg.inv(centred.T @ centred + relative * scale * seen.sum() * np.eye(D))
            predicted[here] = (vectors[here] - x.mean(0)) @ inverse @ centred.T @ (y - y.mean()) + y.mean()
        return predicted

    np.testing.assert_allclose(found, plainly(penalty), atol=1e-4)
    errors = [((plainly(relative) - target)[known] ** 2).mean() for relative in _PENALTIES]
    assert penalty == _PENALTIES[int(np.argmin(errors))]


@pytest.mark.parametrize("with_vectors", [True, False])
def test_the_effect_of_a_covariate_is_told_per_standard_deviation(with_vectors: bool) -> None:
    vectors, random = vectors_of(8), np.random.default_rng(8)
    lengths = random.normal(3, 7, N)
    covariates = np.column_stack([lengths, random.standard_normal(N)])
    target = 0.5 * (lengths - lengths.mean()) / lengths.std() + 0.2 * random.standard_normal(N)
    found = predict(
        target,
        view_of(vectors),
        vectors if with_vectors else None,
        covariates,
        folds_of(N, None),
        ["length", "nothing"],
    )
    assert found.effects["length"] == pytest.approx(0.5, abs=0.05)
    assert found.effects["nothing"] == pytest.approx(0, abs=0.05)
    assert found.explained_variance > 0.75


def test_covariates_that_are_unknown_say_nothing_and_spoil_nothing() -> None:
    vectors, random = vectors_of(9), np.random.default_rng(9)
    covariates = random.standard_normal((N, 2))
    target = covariates[:, 0] + 0.1 * random.standard_normal(N)
    covariates[:200, 0] = np.nan
    found = predict(target, view_of(vectors), vectors, covariates, folds_of(N, None))
    assert np.isfinite(found.predicted).all()
    assert np.corrcoef(found.predicted[200:], target[200:])[0, 1] > 0.9
    assert found.predicted[:200].std() < 0.3 * found.predicted[200:].std()
    assert list(found.effects) == ["0", "1"]


def test_folds_are_even_without_order_and_keep_copies_together() -> None:
    folds = folds_of(1000, None)
    assert np.bincount(folds, minlength=5).min() > 150
    assert len(np.unique(folds[::5])) == 5
    groups = np.arange(1000) // 3 * 3
    together = folds_of(1000, groups.astype(np.int32))
    np.testing.assert_array_equal(together, together[groups])
    assert np.bincount(together, minlength=5).min() > 100


def test_a_target_of_which_hardly_anything_is_known_gets_its_mean() -> None:
    vectors, target = vectors_of(10, n=50), np.full(50, np.nan)
    target[3] = 2.0
    found = predict(
        target, Neighborhoods(np.zeros(50, np.int8), *nearest(vectors, 8), None), vectors, None, folds_of(50, None)
    )
    np.testing.assert_allclose(found.predicted, 2.0, atol=1e-3)
    assert found.explained_variance == 0
