"""Random projection: linear, the same for every batch, and true to inner products."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tamis.influence import projection
from tamis.influence.projection import projection_named, signs

KINDS = ["rademacher", "sketch"]


def projected(kind: str, values: torch.Tensor, *, dimensions: int = 256, seed: int = 0, part: int = 0) -> torch.Tensor:
    target = torch.zeros((len(values), dimensions))
    projection_named(kind, dimensions, seed).add(target, part, values)
    return target


@pytest.mark.parametrize("kind", KINDS)
def test_inner_products_are_kept_on_average_and_spread_as_promised(kind: str) -> None:
    torch.manual_seed(1)
    x = torch.randn(2, 3000)
    x[1] += 0.5 * x[0]
    # Few large coordinates in the same places of several rows: what a careless sketch gets wrong.
    x[:, ::256] *= 8
    exact, norms = float(x[0] @ x[1]), float(x[0].norm() * x[1].norm())
    found = []
    for seed in range(300):
        one, two = projected(kind, x, seed=seed)
        found.append(float(one @ two))
    spread = np.sqrt((norms**2 + exact**2) / 256)
    assert abs(np.mean(found) - exact) < 4 * spread / np.sqrt(300)
    assert np.std(found) < 1.25 * spread


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_is_projected_the_same_in_every_batch_and_slice(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(2)
    x = torch.randn(5, 2000)
    whole = projected(kind, x)
    monkeypatch.setattr(projection, "_CELLS", 1 << 9)
    parts = torch.cat([projected(kind, row[None]) for row in x])
    torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(whole, projected(kind, x, part=1), atol=0.1)
    assert not torch.allclose(whole, projected(kind, x, seed=1), atol=0.1)


def test_the_dense_matrix_is_the_signs_over_the_root_of_the_dimensions() -> None:
    matrix = projected("rademacher", torch.eye(500))
    torch.testing.assert_close(matrix, signs("0/0", 0, 500, 256, like=matrix) / 16)
    assert set(matrix.unique().tolist()) == {-1 / 16, 1 / 16}
    assert abs(float(matrix.mean())) < 5 / 16 / np.sqrt(matrix.numel())
    assert int(torch.linalg.matrix_rank(matrix)) == 256


def test_a_sketch_gives_each_coordinate_of_a_row_its_own_place() -> None:
    matrix = projected("sketch", torch.eye(512))
    for half in (matrix[:256], matrix[256:]):
        assert (half != 0).sum(0).tolist() == [1] * 256
        assert (half != 0).sum(1).tolist() == [1] * 256
    assert set(matrix.unique().tolist()) == {-1.0, 0.0, 1.0}


def test_signs_are_the_same_wherever_a_slice_begins() -> None:
    like = torch.zeros(1)
    torch.testing.assert_close(signs("a", 0, 8, 128, like=like)[3:6], signs("a", 3, 3, 128, like=like))
