"""Exact and approximate search against the plainest one."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from tamis.core.errors import InputError, SettingsError
from tamis.neighbors import approximate, device, exact, mutual, refine
from tamis.neighbors.settings import NeighborsSettings
from tamis.neighbors.vectors import Vectors

MEMORY = 256 << 20


def brute_force(vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Sort every sample's distances to all others, in double precision on the grid that the graph uses."""
    unit = vectors.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    distances = np.clip(np.round((1 - unit @ unit.T) * 2**23) / 2**23, 0, 2)
    np.fill_diagonal(distances, np.inf)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(distances, order, 1).astype(np.float32)


def search(vectors: np.ndarray, k: int, memory: int = MEMORY) -> tuple[np.ndarray, np.ndarray, int]:
    held = Vectors(vectors)
    cosines, candidates = exact.candidates(held, min(k + refine.SPARE, len(vectors) - 1), memory)
    return refine.neighbors_of(held, candidates, k, cosines)


@pytest.mark.parametrize(("n", "d", "k"), [(3, 2, 2), (40, 5, 39), (500, 16, 10), (3000, 24, 7), (2500, 8, 60)])
def test_exact_search_is_brute_force(n: int, d: int, k: int) -> None:
    vectors = np.random.default_rng(n).standard_normal((n, d)).astype(np.float16)
    indices, distances, _ = search(vectors, k)
    expected, far = brute_force(vectors, k)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(distances, far)
    assert indices.dtype == np.int32
    assert distances.dtype == np.float32


def test_samples_in_order_of_nearness_are_found_too() -> None:
    # The worst order for running bounds: each block brings nearer samples than all before.
    angle = np.linspace(0, 1.5, 5000) ** 2
    vectors = np.stack([np.cos(angle), np.sin(angle), np.full(5000, 0.1)], axis=1).astype(np.float16)
    indices, distances, _ = search(vectors, 12)
    expected, far = brute_force(vectors, 12)
    np.testing.assert_array_equal(distances, far)
    np.testing.assert_array_equal(indices, expected)


def test_many_copies_of_one_vector_are_ordered_by_number() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((800, 33)).astype(np.float16)
    vectors[::3] = vectors[0]
    indices, distances, doubtful = search(vectors, 9)
    expected, far = brute_force(vectors, 9)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(distances, far)
    assert doubtful >= len(vectors[::3])
    assert (distances[::3] == 0).all()
    assert (indices != np.arange(800)[:, None]).all()


def test_size_of_tiles_does_not_change_the_graph() -> None:
    vectors = np.random.default_rng(1).standard_normal((2600, 48)).astype(np.float16)
    small, _ = exact.tiles_within(4 << 20, 2600, 48, 16)
    assert small < 600
    for one, other in zip(search(vectors, 8), search(vectors, 8, memory=4 << 20), strict=True):
        np.testing.assert_array_equal(one, other)


def test_memory_that_is_too_small_says_how_much_is_needed() -> None:
    with pytest.raises(SettingsError, match=r"neighbors\.memory_mb: 1 MiB .*\b100000 samples") as caught:
        exact.tiles_within(1 << 20, 100_000, 384, 40)
    needed = int(caught.value.allowed.split()[0])
    assert exact.tiles_within(needed << 20, 100_000, 384, 40) == (128, 1)


def test_many_workers_find_the_same_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(5).integers(-2, 3, (3000, 8)).astype(np.float16) + np.float16(0.5)  # many ties
    expected, far = brute_force(vectors, 10)
    monkeypatch.setattr(exact, "cores", lambda: 16)
    monkeypatch.setattr(exact, "_LARGEST", 128)
    for _ in range(5):
        indices, distances, _ = search(vectors, 10)
        np.testing.assert_array_equal(indices, expected)
        np.testing.assert_array_equal(distances, far)


def test_a_worker_that_fails_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(exact._Tile, "product", fail)
    with pytest.raises(MemoryError, match="no room"):
        search(np.random.default_rng(5).standard_normal((5000, 8)).astype(np.float16), 4)


@pytest.mark.parametrize("memory", [1 << 20, 1 << 17])  # vectors that stay on the device, and that do not
def test_the_device_path_gives_the_same_graph(memory: int) -> None:
    torch = pytest.importorskip("torch")
    vectors = np.random.default_rng(2).standard_normal((1500, 32)).astype(np.float16)
    vectors[700:720] = vectors[3]
    held = Vectors(vectors)
    cosines, candidates = device.candidates_among(
        held, np.arange(1500), np.arange(1500), 18, memory, torch.device("cpu")
    )
    by_device = refine.neighbors_of(held, candidates, 10, cosines)
    for one, other in zip(search(vectors, 10), by_device, strict=True):
        np.testing.assert_array_equal(one, other)


def test_length_of_vectors_does_not_matter() -> None:
    vectors = np.random.default_rng(3).standard_normal((300, 12)).astype(np.float32)
    longer = vectors * np.float32(4) ** np.arange(300)[:, None].clip(max=8).astype(np.float32)
    np.testing.assert_array_equal(search(vectors, 6)[0], search(longer, 6)[0])


@pytest.mark.parametrize(("value", "kind"), [(0.0, "zero"), (np.nan, "not finite"), (np.inf, "not finite")])
def test_an_unusable_vector_is_named_by_row_and_id(value: float, kind: str) -> None:
    vectors = np.ones((5, 4), np.float16)
    vectors[3] = value
    with pytest.raises(InputError, match=rf"row 3 \(id d\) is {kind}; 1 of 5"):
        Vectors(vectors, list("abcde"))


@pytest.mark.parametrize(("shape", "dtype"), [((2, 4), np.float16), ((5,), np.float16), ((5, 4), np.int32)])
def test_arrays_that_are_no_pool_are_refused(shape: tuple[int, ...], dtype: type) -> None:
    with pytest.raises(InputError):
        Vectors(np.ones(shape, dtype))


def approximated(
    held: Vectors, settings: NeighborsSettings, sample: int = 200
) -> tuple[np.ndarray, np.ndarray, dict[int, float], int]:
    """Neighbours and distances by approximate search, their recall, and the search effort."""
    rows = np.arange(len(held))
    places = np.random.default_rng(1).choice(len(held), sample, replace=False)
    known = approximate.Sample(places, refine.search_all(held, places, settings.k)[1])
    candidates, effort = approximate.candidates(held, settings.k + 8, settings, rows, known)
    indices, distances, _ = refine.neighbors_of(held, candidates, settings.k)
    return indices, distances, known.recall(distances[places]), effort


def test_approximate_search_finds_nearly_all_and_says_so() -> None:
    pytest.importorskip("faiss")
    vectors = np.random.default_rng(4).standard_normal((4000, 24)).astype(np.float16)
    indices, distances, recall, _ = approximated(Vectors(vectors), NeighborsSettings(k=10))
    assert (indices != np.arange(4000)[:, None]).all()
    assert all(len(set(row)) == 10 for row in indices.tolist())
    assert (np.diff(distances, axis=1) >= 0).all()
    expected, _ = brute_force(vectors, 10)
    true_recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(indices.tolist(), expected.tolist(), strict=True)])
    assert recall[10] == pytest.approx(true_recall, abs=0.02)
    assert recall[10] >= 0.98


def test_the_search_effort_is_raised_until_enough_is_found() -> None:
    pytest.importorskip("faiss")
    held = Vectors(np.random.default_rng(8).standard_normal((5000, 64)).astype(np.float16))
    little, much = (
        approximated(held, NeighborsSettings(k=10, links=8, build_effort=16, search_effort=16, recall=share))
        for share in (0.1, 0.9)
    )
    assert little[3] == 16
    assert much[3] > 16
    assert little[2][10] < 0.9 <= much[2][10]


def test_neighbours_that_only_the_other_side_found_are_taken_in() -> None:
    vectors = np.random.default_rng(9).standard_normal((3000, 12)).astype(np.float16)
    vectors[::30] = vectors[0]
    expected, far = brute_force(vectors, 18)
    # Each sample misses some; where two miss each other, nothing can be done.
    missed = np.random.default_rng(0).random(expected.shape) < 0.2
    order = np.argsort(missed, axis=1, kind="stable")[:, :14]
    poor, poor_far = np.take_along_axis(expected, order, 1), np.take_along_axis(far, order, 1)
    indices, distances = mutual.mutual(poor.astype(np.int32), poor_far, 10)
    for x in range(0, 3000, 7):
        others = [j for j in range(3000) if x in poor[j]]
        pairs = set(zip(poor_far[x], poor[x], strict=True))
        pairs |= {(poor_far[j, list(poor[j]).index(x)], j) for j in others}
        assert list(zip(distances[x], indices[x], strict=True)) == sorted(pairs)[:10]
    assert (distances <= far[:, 9:10]).mean() > (poor_far[:, :10] <= far[:, 9:10]).mean() + 0.05
    few = mutual.mutual(poor.astype(np.int32), poor_far, 10, memory=1 << 18)
    np.testing.assert_array_equal(few[0], indices)
    np.testing.assert_array_equal(few[1], distances)


def test_one_thread_builds_the_same_graph_every_time() -> None:
    pytest.importorskip("faiss")
    held = Vectors(np.random.default_rng(7).standard_normal((3000, 24)).astype(np.float16))
    settings = NeighborsSettings(k=10, build_effort=16, search_effort=16)
    first, second = (approximate.candidates(held, 18, settings, np.arange(3000))[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_recall_of_a_bad_graph_is_low() -> None:
    held = Vectors(np.random.default_rng(5).standard_normal((1000, 24)).astype(np.float16))
    anyone = ((np.arange(1000)[:, None] + np.arange(1, 19)) % 1000).astype(np.int32)
    _, distances, _ = refine.neighbors_of(held, anyone, 10)
    known = approximate.Sample(np.arange(100), refine.search_all(held, np.arange(100), 10)[1])
    assert known.recall(distances[:100])[10] < 0.1


def test_inverted_lists_take_over_where_memory_is_small() -> None:
    pytest.importorskip("faiss")
    vectors = np.random.default_rng(6).standard_normal((12_000, 1536)).astype(np.float16)
    held, rows = Vectors(vectors), np.arange(12_000)
    settings = NeighborsSettings(k=5, method="approximate", memory_mb=64, search_effort=16)
    candidates, _ = approximate.candidates(held, 9, settings, rows)
    assert candidates.shape == (12_000, 9)
    assert (candidates != rows[:, None]).all()
    with pytest.raises(SettingsError, match=r"neighbors\.memory_mb: .*\b12000 vectors"):
        approximate.candidates(Vectors(np.tile(vectors, (1, 2))), 9, settings, rows)


def test_a_sample_that_all_others_found_takes_no_more_memory_than_others() -> None:
    n, k = 40_000, 4
    indices = np.zeros((n, k), np.int32)
    indices[:, 1:] = (np.arange(n)[:, None] + np.arange(1, k)) % n
    distances = np.sort(np.random.default_rng(0).random((n, k)), axis=1).astype(np.float32)
    tracemalloc.start()
    kept, far = mutual.mutual(indices, distances, k, memory=1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    incoming = np.flatnonzero((indices == 0).any(1))
    nearest = incoming[np.argsort(distances[incoming, 0], kind="stable")][:k]
    assert set(kept[0]) <= set(nearest) | set(indices[0])
    assert (far[0] <= np.sort(distances[nearest, 0])).all()
    assert peak < 32 << 20
