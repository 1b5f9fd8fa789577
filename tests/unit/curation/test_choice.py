"""Which score a sample gets, given probabilities."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tamis.curation.choice import chosen

K, N = 5, 12


@st.composite
def posteriors(draw: st.DrawFn) -> np.ndarray:
    """(N, K) probabilities; with ties, zeros, and samples of which nothing is known."""
    parts = draw(hnp.arrays(np.int64, (N, K), elements=st.integers(0, 6)))
    parts[parts.sum(1) == 0] = 1
    found = parts / parts.sum(1, keepdims=True)
    found[draw(hnp.arrays(np.bool_, N))] = np.nan
    return found


RAW = hnp.arrays(np.int8, N, elements=st.integers(-1, K - 1))


def expected_distance(posterior: np.ndarray, score: int) -> float:
    return sum(float(posterior[k]) * abs(k - score) for k in range(K))


@given(posteriors(), RAW, st.floats(0, 1))
def test_a_changed_score_is_more_probable_and_no_further_from_the_truth(
    posterior: np.ndarray, raw: np.ndarray, threshold: float
) -> None:
    score = chosen(posterior, raw, threshold=threshold)
    for p, old, new in zip(posterior, raw, score, strict=True):
        if new != old:
            assert old != -1
            assert p[new] > p[old]
            assert p[new] >= threshold
            assert expected_distance(p, new) <= expected_distance(p, old) + 1e-8


@given(posteriors(), RAW)
def test_no_allowed_class_is_more_probable_than_the_chosen_one(posterior: np.ndarray, raw: np.ndarray) -> None:
    for p, old, new in zip(posterior, raw, chosen(posterior, raw), strict=True):
        if old == -1 or np.isnan(p[0]):
            assert new == old
            continue
        limit = expected_distance(p, old)
        allowed = [k for k in range(K) if p[k] >= p[old] and expected_distance(p, k) <= limit - 1e-8]
        assert p[new] >= max((p[k] for k in allowed), default=0)


@given(posteriors(), st.floats(0, 1))
def test_a_rating_stands_against_classes_that_are_only_as_probable(posterior: np.ndarray, threshold: float) -> None:
    raw = np.nan_to_num(posterior, nan=1.0).argmax(1).astype(np.int8)
    np.testing.assert_array_equal(chosen(posterior, raw, threshold=threshold, fill=True), raw)


@given(posteriors(), st.floats(0, 1))
def test_unrated_samples_get_their_most_probable_class_where_asked_and_sure(
    posterior: np.ndarray, threshold: float
) -> None:
    raw = np.full(N, -1, np.int8)
    assert (chosen(posterior, raw, threshold=threshold) == -1).all()
    for p, score in zip(posterior, chosen(posterior, raw, threshold=threshold, fill=True), strict=True):
        if np.isnan(p[0]) or p.max() < threshold:
            assert score == -1
        else:
            assert p[score] == p.max()


def test_the_most_probable_class_is_passed_over_where_it_would_raise_the_expected_error() -> None:
    # 0 is most probable, but further from the truth on average than the rating 2; 3 is neither.
    posterior = np.array([[0.4, 0.0, 0.3, 0.3, 0.0], [0.1, 0.0, 0.2, 0.7, 0.0]])
    assert chosen(posterior, np.array([2, 2], np.int8)).tolist() == [2, 3]


def test_a_threshold_keeps_ratings_whose_better_class_is_not_sure_enough() -> None:
    posterior = np.array([[0.2, 0.55, 0.25, 0, 0]])
    raw = np.array([2], np.int8)
    assert chosen(posterior, raw, threshold=0.5).tolist() == [1]
    assert chosen(posterior, raw, threshold=0.6).tolist() == [2]


@given(posteriors(), posteriors(), RAW)
def test_a_second_account_of_the_data_has_a_veto(posterior: np.ndarray, second: np.ndarray, raw: np.ndarray) -> None:
    score = chosen(posterior, raw, others=[second])
    for p, q, old, new in zip(posterior, second, raw, score, strict=True):
        if new != old:
            assert p[new] > p[old]
            assert q[new] >= q[old] - 1e-8
            assert expected_distance(q, new) <= expected_distance(q, old) + 1e-8
    np.testing.assert_array_equal(chosen(posterior, raw, others=[posterior]), chosen(posterior, raw))
