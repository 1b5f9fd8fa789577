"""The parts of curation against plain versions, on small data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tamis.curation import mixture, transition
from tamis.curation.classes import to_classes
from tamis.curation.consensus import consensus, pair_weights
from tamis.curation.diagnosis import kept_agreement
from tamis.curation.diversity import diversity_scores
from tamis.curation.mixture import Bins
from tamis.curation.naming import identifiability, name_classes
from tamis.curation.neighborhoods import Neighborhoods, copy_groups
from tamis.curation.sharing import agreement_by_rank, pair_counts, sharing_by_rank
from tests.unit.curation import naive
from tests.unit.curation.pools import P, T, make_pool, nearest


def small_view(n: int = 9, classes: int = 3, k: int = 8, seed: int = 0) -> Neighborhoods:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    indices, distances = nearest(vectors.astype(np.float32), k)
    scores = rng.integers(0, classes, n).astype(np.int8)
    return Neighborhoods(scores, indices, distances, None)


def test_ratings_compress_as_in_the_paper() -> None:
    ratings = np.array([1, 4, 5, 6, 7, 8, 9, 10, np.nan, 4.5, 6.4])
    assert to_classes(ratings).tolist() == [0, 0, 1, 2, 3, 4, 5, 5, -1, 1, 2]
    assert to_classes(np.arange(1, 11), lowest=1, highest=10).tolist() == list(range(10))


@pytest.mark.parametrize("drawn", [3, 4, 6, 8, 9])
def test_consensus_is_the_expectation_over_all_draws(drawn: int) -> None:
    view = small_view()
    expected, _ = naive.consensus_by_draws(view.scores, view._indices, drawn, 3)
    found = consensus(view, 3, share=drawn / 9)
    np.testing.assert_allclose(found.c3, expected, atol=1e-12)
    np.testing.assert_allclose(found.c2, expected.sum(2), atol=1e-12)
    np.testing.assert_allclose(found.c1, expected.sum((1, 2)), atol=1e-12)
    assert found.covered == pytest.approx(1)


@pytest.mark.parametrize("drawn", [4, 6])
def test_a_short_list_covers_a_share_of_the_draws_and_says_which(drawn: int) -> None:
    view = small_view(k=4)
    expected, covered = naive.consensus_by_draws(view.scores, view._indices, drawn, 3)
    found = consensus(view, 3, share=drawn / 9)
    np.testing.assert_allclose(found.c3, expected, atol=1e-12)
    assert found.covered == pytest.approx(covered)
    assert covered < 1


def test_consensus_of_all_samples_counts_two_nearest_neighbours() -> None:
    view = small_view(n=60, k=10)
    counts = np.zeros((3, 3, 3))
    for x in range(60):
        first, second = view._indices[x, :2]
        counts[view.scores[x], view.scores[first], view.scores[second]] += 1 / 60
    np.testing.assert_allclose(consensus(view, 3).c3, counts, atol=1e-12)


def test_pair_weights_are_a_ratio_of_binomials() -> None:
    expected = [0, *(math.comb(19 - j, 7) / math.comb(19, 9) for j in range(2, 13))]
    np.testing.assert_allclose(pair_weights(12, 20, 10), expected, rtol=1e-10)


def test_em_of_one_start_is_the_em_by_loops() -> None:
    rng = np.random.default_rng(3)
    patterns = rng.integers(0, 4, (40, 3))
    patterns[:, 0] += 1
    weights = rng.random(40)
    weights /= weights.sum()
    start = transition._starts(3, 0, 0)[0]
    likelihood, fitted, prior, steps = transition._climb(patterns.astype(float), weights, start, 25)
    expected = naive.em_climb(patterns, weights, start, steps)
    assert likelihood == pytest.approx(expected[0], rel=1e-8)
    np.testing.assert_allclose(fitted, expected[1], atol=1e-6)
    np.testing.assert_allclose(prior, expected[2], atol=1e-6)


def test_em_recovers_t_from_exact_consensus_counts() -> None:
    c3 = np.einsum("i,ia,ib,ic->abc", P, T, T, T)
    found = transition.from_triples(c3)
    np.testing.assert_allclose(found.T, T, atol=2e-2)
    np.testing.assert_allclose(found.p, P, atol=2e-2)
    np.testing.assert_allclose(found.T.sum(1), 1)


def test_likelihood_never_falls_in_em() -> None:
    rng = np.random.default_rng(0)
    patterns, weights = rng.integers(0, 5, (60, 4)).astype(float), np.full(60, 1 / 60)
    values = [transition._climb(patterns, weights, np.eye(4) * 0.6 + 0.1, steps)[0] for steps in range(1, 30)]
    assert (np.diff(values) > -1e-9).all()


def test_from_neighbors_counts_patterns_of_own_and_nearest_ratings() -> None:
    view = small_view(n=30, k=6)
    patterns = []
    for x in range(30):
        pattern = np.zeros(3)
        for c in [view.scores[x], *view.scores[view._indices[x, :4]]]:
            pattern[c] += 1
        patterns.append(pattern)
    expected = transition.em(np.array(patterns), np.ones(30))
    found = transition.from_neighbors(view, 3, 4)
    np.testing.assert_allclose(found.T, expected.T, atol=1e-6)
    assert found.log_likelihood == pytest.approx(expected.log_likelihood)


@given(st.permutations(range(5)), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_naming_undoes_any_order_of_latent_classes(order: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = 0.6 * np.eye(5) + 0.4 * rng.dirichlet(np.ones(5), 5)
    p = rng.dirichlet(np.full(5, 5.0))
    found = name_classes(matrix[order], p[order])
    np.testing.assert_allclose(matrix[order][found], matrix)


def test_doubts_about_t_are_said_in_plain_words() -> None:
    odd = np.array([[0.8, 0.2, 0, 0], [0.6, 0.4, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    found = identifiability(odd, np.array([0.5, 0.49, 0.01, 0.0]), 1000, renamed=True, absent=[3])
    text = "\n".join(found.warnings)
    assert "no sample is rated 3" in text
    assert "put in order" in text
    assert "a true score of 1 is rated as another one at least as often" in text
    assert "fewer than 50 samples seem to have the true score 2" in text
    assert not identifiability(T, P, 10_000, renamed=False, absent=[]).warnings


def test_sharing_by_rank_is_found_from_pair_counts() -> None:
    q, shares = P @ T, np.array([1.0, 0.7, 0.2, 0.0])
    same, other = (T.T * P) @ T, np.outer(q, q)
    counts = np.round(1e9 * (shares[:, None, None] * same + (1 - shares)[:, None, None] * other)).astype(np.int64)
    np.testing.assert_allclose(sharing_by_rank(counts, T, P, q), shares, atol=1e-6)
    np.testing.assert_allclose(agreement_by_rank(counts), np.trace(counts, axis1=1, axis2=2) / 1e9, rtol=1e-6)


def test_pair_counts_are_counted_by_rank() -> None:
    view = small_view(n=40, k=5)
    counts = np.zeros((5, 3, 3), int)
    for x in range(40):
        for rank, y in enumerate(view._indices[x]):
            counts[rank, view.scores[x], view.scores[y]] += 1
    np.testing.assert_array_equal(pair_counts(view, 3), counts)


@given(
    hnp.arrays(np.float64, (7, 12), elements=st.floats(0, 2)),
    st.integers(1, 12),
)
def test_diversity_is_the_formula_of_the_paper(distances: np.ndarray, count: int) -> None:
    distances.sort(axis=1)
    mean = distances[:, :count].mean(1)
    np.testing.assert_allclose(diversity_scores(distances, count), 2 / (1 + np.exp(-mean)) - 1, rtol=1e-6, atol=1e-7)
    four = (2 * distances[:, :4].sum(1)) / 10
    expected = np.round(2 / (1 + np.exp(-four)) - 1, 4)
    np.testing.assert_allclose(diversity_scores(distances, variant="reference"), expected, atol=1.01e-4)


def test_copies_form_groups_through_chains() -> None:
    # 0 - 3 - 5 are linked in a chain, 1 and 2 are copies, 4 is alone.
    indices = np.array([[3, 1], [2, 0], [1, 0], [5, 0], [0, 1], [3, 0]])
    distances = np.array([[0, 0.5], [0, 0.5], [0, 0.5], [0, 0], [0.4, 0.5], [0, 0.3]])
    assert copy_groups(indices, distances, 1e-6).tolist() == [0, 1, 1, 0, 4, 0]
    assert copy_groups(indices[:, 1:], distances[:, 1:] + 0.1, 1e-6) is None


def test_lists_leave_out_copies_and_samples_without_a_rating() -> None:
    scores = np.array([0, 1, -1, 2, 1, 0], np.int8)
    indices = np.array([[3, 5, 2, 1], [2, 4, 0, 3], [1, 4, 0, 3], [0, 5, 4, 1], [1, 2, 3, 0], [3, 0, 1, 4]])
    distances = np.array([[0, 0.1, 0.2, 0.3]] * 6, np.float32)
    groups = np.array([0, 1, 1, 0, 4, 5])
    view = Neighborhoods(scores, indices, distances, groups)
    assert view.rows.tolist() == [0, 1, 4, 5]  # 3 is a copy of 0; 2 has no rating
    samples, far = view.lists(np.arange(6))
    assert samples.tolist() == [
        [5, 1, -1, -1],
        [4, 0, -1, -1],
        [4, 0, -1, -1],
        [5, 4, 1, -1],
        [1, 0, -1, -1],
        [0, 1, 4, -1],
    ]
    np.testing.assert_allclose(far[3], [0.1, 0.2, 0.3, np.inf], rtol=1e-6)
    assert view.scores_of(samples)[0].tolist() == [0, 1, -1, -1]


def test_a_copy_with_a_rating_stands_for_one_without() -> None:
    scores = np.array([-1, 1, 0], np.int8)
    view = Neighborhoods(scores, np.array([[1, 2], [0, 2], [0, 1]]), np.zeros((3, 2)), np.array([0, 0, 2]))
    assert view.rows.tolist() == [1, 2]
    assert view.lists(np.array([2]))[0].tolist() == [[1, -1]]


def test_evidence_is_the_formula_of_the_model() -> None:
    pool = make_pool(400, 16, seed=1, k=8)
    scores = pool.scores.astype(np.int8)
    scores[:40] = -1
    view = Neighborhoods(scores, pool.indices, pool.distances, None)
    bins = Bins(view, view.rows, view.k)
    rng = np.random.default_rng(0)
    model = mixture.Mixture(T, T[::-1], P, P @ T, rng.random(bins.count), 0.6, 5, bins)
    rows = np.arange(400)
    ((block, evidence, informed),) = list(model.evidence(view, rows))
    np.testing.assert_array_equal(block, rows)
    joint = evidence + np.log(P)[:, None]
    found = np.exp(joint - mixture.log_sum(joint)).T
    samples, distances = view.lists(rows, 5)
    codes = bins.of(rows, samples, distances)
    for x in range(0, 400, 7):
        pairs = [(codes[x, j], scores[samples[x, j]]) for j in range(5) if samples[x, j] >= 0]
        expected = naive.posterior(scores[x], pairs, T, T[::-1], P, P @ T, model.sharing, 0.6)
        np.testing.assert_allclose(found[x], expected, atol=1e-9)
        assert informed[x] == bool(pairs)


def test_fitting_raises_the_likelihood_step_by_step() -> None:
    pool = make_pool(1500, 32, seed=2)
    view = Neighborhoods(pool.scores.astype(np.int8), pool.indices, pool.distances, None)
    start = mixture.start_from(view, Bins(view, view.rows, view.k), T, P, 20)
    # Below ten steps the weight of neighbours stays as it is, and so the likelihood is one function throughout.
    values = [mixture.fit(view, view.rows, start, iterations=steps).log_likelihood for steps in range(1, 10)]
    assert (np.diff(values) > -1e-4).all()
    assert values[-1] > values[0] + 0.1


@given(hnp.arrays(np.float64, (4, 4), elements=st.floats(0.01, 50)))
def test_t_is_the_likeliest_with_a_dominant_diagonal(counts: np.ndarray) -> None:
    found = mixture.transition_of(counts)
    np.testing.assert_allclose(found.sum(1), 1)
    assert (np.diag(found) >= found.max(1) - 1e-12).all()
    likelihood = (counts * np.log(found)).sum(1)
    rng = np.random.default_rng(0)
    for _ in range(50):
        other = 0.9 * found + 0.1 * rng.dirichlet(np.ones(4), 4)
        allowed = np.diag(other) >= other.max(1)
        assert (((counts * np.log(other)).sum(1) <= likelihood + 1e-9) | ~allowed).all()
    free = counts / counts.sum(1, keepdims=True)
    dominant = np.diag(free) >= free.max(1)
    np.testing.assert_allclose(found[dominant], free[dominant])


def test_agreement_that_falls_with_rank_is_noticed() -> None:
    assert kept_agreement(np.array([0.5, 0.48, 0.45, 0.42, 0.4]), 0.2, 10_000) == pytest.approx(2 / 3)
    assert kept_agreement(np.array([0.5, 0.5, 0.5, 0.5, 0.49]), 0.2, 10_000) is None
    assert kept_agreement(np.array([0.5, 0.4]), 0.2, 10_000) is None


def test_pairs_are_binned_by_distance_and_by_density() -> None:
    pool = make_pool(500, 16, seed=3, k=10)
    view = Neighborhoods(pool.scores.astype(np.int8), pool.indices, pool.distances, None)
    bins = Bins(view, view.rows, view.k)
    rows = np.arange(500)
    codes = bins.of(rows, *view.lists(rows))
    scale = pool.distances[:, :5].mean(1) + 1e-6
    relative = pool.distances / np.sqrt(scale[:, None] * scale[pool.indices])
    borders = np.quantile(relative, np.arange(1, 12) / 12)
    expected = (relative[..., None] >= borders).sum(-1)
    assert (codes // 6 == expected).mean() > 0.999
    assert np.bincount((codes // 6).ravel(), minlength=12).min() > 350
    assert codes.max() < bins.count
