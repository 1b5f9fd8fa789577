"""The parts of curation against plain versions, on small data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tamis.core.scales import Scale
from tamis.curation import transition
from tamis.curation.arrays import Arrays
from tamis.curation.bins import Bins, patterns_of
from tamis.curation.classes import reachable_mean, reachable_of, to_classes, within_reach
from tamis.curation.consensus import consensus, pair_weights
from tamis.curation.diagnosis import kept_agreement
from tamis.curation.diversity import diversity_scores
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
    assert "had to be reordered" in text
    assert "does not distinguish the true score 1 " in text
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


def test_neighbours_are_counted_by_bin_and_rating() -> None:
    pool = make_pool(200, 16, seed=4, k=10)
    scores = np.where(np.arange(200) % 5 == 0, -1, pool.scores).astype(np.int8)
    view = Neighborhoods(scores, pool.indices, pool.distances, None)
    bins, rows = Bins(view, view.rows, 7), np.array([3, 0, 150, 5])
    symbols = (scores + 1).astype(np.int32)
    expected = np.zeros((4, bins.count * 7))
    samples, distances = view.lists(rows, 7)
    for x, near in enumerate(samples):
        for j, y in enumerate(near):
            if y >= 0:
                b = bins.of(rows[[x]], near[None, [j]], distances[[x]][:, [j]])[0, 0]
                expected[x, b * 7 + symbols[y]] += 1
    found = patterns_of(view, symbols, rows, 7, bins, 7)
    np.testing.assert_array_equal(found.toarray(), expected)
    assert expected.sum() > 15


def test_bins_of_a_pool_without_usable_neighbours_are_there() -> None:
    scores = np.array([2, -1, -1], np.int8)
    view = Neighborhoods(scores, np.array([[1, 2], [0, 2], [0, 1]]), np.full((3, 2), 0.5, np.float32), None)
    bins = Bins(view, view.rows, 2)
    found = patterns_of(view, np.zeros(3, np.int32), np.arange(3), 2, bins, 1).sum(1)
    assert found.ravel().tolist() == [[0, 1, 1]]


def test_a_part_of_the_arrays_stands_alone() -> None:
    """The others become one sample without a rating, farther than all others."""
    arrays = Arrays(
        ratings=np.array([[0], [1], [2], [3]], np.int8),
        indices=np.array([[1, 2, 3], [2, 0, 3], [0, 1, 3], [2, 1, 0]]),
        distances=np.array([[0.1, 0.2, 0.3]] * 4, np.float32),
        embeddings=np.arange(8).reshape(4, 2).astype(np.float16),
        covariates=np.arange(4.0)[:, None],
        grades=np.array([-1, 5, -1, 4], np.int8),
        grade_weights=np.array([np.nan, 2, np.nan, 3]),
    )
    found = arrays.alone(np.array([3, 0, 2]))
    assert len(found) == 4
    assert found.ratings.tolist() == [[3], [0], [2], [-1]]
    assert found.indices[:3].tolist() == [[2, 1, 3], [2, 0, 3], [1, 0, 3]]
    np.testing.assert_allclose(found.distances[:3], [[0.1, 0.3, 2], [0.2, 0.3, 2], [0.1, 0.3, 2]], rtol=1e-6)
    assert (found.distances[3] == 2).all()
    assert found.embeddings is not None
    assert found.embeddings.tolist() == [[6, 7], [0, 1], [4, 5], [0, 0]]
    assert found.embeddings.dtype == np.float16
    np.testing.assert_array_equal(found.covariates, [[3], [0], [2], [np.nan]])
    np.testing.assert_array_equal(found.grades, [4, -1, -1, -1])
    np.testing.assert_array_equal(found.grade_weights, [3, np.nan, np.nan, np.nan])


def test_a_class_that_the_scale_cannot_reach_is_no_doubt() -> None:
    prior = np.array([0.5, 0.5, 0, 0])
    told = [identifiability(np.eye(4), prior, 1000, False, [2, 3], given).warnings for given in ([], [2], [2, 3])]
    assert [len(warnings) for warnings in told] == [1, 1, 0]
    assert "rated 3:" in told[1][0]


def test_which_classes_a_scale_reaches() -> None:
    nothing = np.full(3, -1, np.int8)
    five = Scale(lowest=1, highest=5).in_steps_of(1).ratings()
    assert five == (1, 3, 6, 8, 10)
    assert reachable_of(five, nothing, lowest=4, highest=9).tolist() == [True, False, True, False, True, True]
    given = np.array([1, -1], np.int8)  # whatever the scale says: it was given
    assert reachable_of(five, given, lowest=4, highest=9).tolist() == [True, True, True, False, True, True]
    assert reachable_of(None, nothing, lowest=4, highest=9).all()
    assert reachable_of(Scale(lowest=1, highest=5).ratings(), nothing, lowest=4, highest=9).all()  # fractions


def test_the_mean_of_raters_reaches_what_lies_between_theirs() -> None:
    ends, middle = np.array([True, False, False, True]), np.array([False, True, False, False])
    assert reachable_mean([ends]).tolist() == ends.tolist()
    assert reachable_mean([ends, ends]).tolist() == [True, False, True, True]  # (0 + 3) / 2, rounded half up
    assert reachable_mean([ends, middle]).tolist() == [True, True, True, True]


def test_no_probability_is_left_for_a_rating_that_cannot_be_given() -> None:
    T = np.array([[0.5, 0.5, 0, 0], [0, 1, 0, 0], [0, 0.2, 0.4, 0.4], [0, 0, 0, 1]])
    reach = np.array([True, False, True, True])
    expected = [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0.5, 0.5], [0, 0, 0, 1]]
    np.testing.assert_allclose(within_reach(T, reach), expected)
    assert within_reach(T, np.ones(4, bool)) is T
