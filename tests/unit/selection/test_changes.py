"""How probable it is that a rating changes a subset: by hand, against choosing again, and as a bound."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.core.errors import InputError
from tamis.selection.candidates import Candidates
from tamis.selection.changes import Cut, Place, Subset, change_probability, next_to_rate, subset_of
from tamis.selection.choose import choose
from tamis.selection.strategies import ds2
from tamis.selection.strategies.base import Strategy
from tests.unit.selection.makers import SAMPLES, Sample, candidates_of, key

STRATEGIES = (ds2.STRATEGY, ds2.BY_MEAN)
OPTIONS: list[dict[str, Any]] = [{}, {"min_score": 2}, {"quotas": {"a": 2}}, {"quotas": {"a": 0.5}, "min_score": 1}]
CLASSES = 6


def subset(strategy: Strategy, candidates: Candidates, size: int, **options: Any) -> Subset:
    return subset_of(strategy, candidates, size, seed=0, barred={}, **options)


def probabilities(found: Subset, candidates: Candidates, posterior: np.ndarray, **options: Any) -> np.ndarray:
    result = np.zeros(len(candidates))
    for members, cut in found.groups:
        rows = np.flatnonzero(members & ~candidates.known("raw_scores"))
        result[rows] = change_probability(
            posterior[rows],
            found.picked[rows],
            candidates.column("diversity")[rows],
            found.ties[rows],
            cut,
            min_score=options.get("min_score"),
        )
    return result


def test_a_small_example_by_hand() -> None:
    """Two places: `top` has one for good, `last` (class 1, diversity 0.75) has the other, `next` (1, 0.5) waits."""
    samples = [
        Sample(key(1), score=2, diversity=0.5),
        Sample(key(2), score=1, diversity=0.75),
        Sample(key(3), score=1, diversity=0.5),
        Sample(key(4), raw_score=None, score=None, mean=None, diversity=0.625),
        Sample(key(5), raw_score=None, score=None, mean=None, diversity=0.875),
        Sample(key(6), raw_score=None, score=0, mean=0.0, diversity=0.125),
    ]
    candidates = candidates_of(samples)
    found = subset(ds2.STRATEGY, candidates, 2)
    assert found.picked.tolist() == [True, True, False, False, False, False]
    posterior = np.array([[0.2, 0.3, 0.5]] * 6)
    posterior[5] = [0.9, 0.1, 0.0]
    # 4 enters as a 2 only, 5 is more diverse than the last and enters as a 1 too, 6 would need to be a 2.
    assert probabilities(found, candidates, posterior).tolist() == pytest.approx([0, 0, 0, 0.5, 0.8, 0])


def test_one_that_is_picked_leaves_with_the_probability_of_the_classes_below_the_cut() -> None:
    samples = [
        Sample(key(1), raw_score=None, score=2, diversity=0.625),
        Sample(key(2), score=1, diversity=0.75),
        Sample(key(3), score=1, diversity=0.5),
    ]
    candidates = candidates_of(samples)
    posterior = np.array([[0.125, 0.25, 0.625]] * 3)
    # As a 1 it is less diverse than sample 2, but more than sample 3: with one place it leaves, with two it stays.
    for size, leaves in ((1, 0.375), (2, 0.125), (3, 0)):
        found = subset(ds2.STRATEGY, candidates, size)
        assert found.picked[0]
        assert probabilities(found, candidates, posterior)[0] == pytest.approx(leaves)


def test_equals_in_score_and_diversity_are_told_apart_by_their_numbers() -> None:
    cut = Cut(Place(1, 0.5, 7), None)
    before = change_probability(
        np.array([[0.5, 0.5]] * 2), np.zeros(2, bool), np.full(2, 0.5), np.array([6, 8], np.uint64), cut
    )
    assert before.tolist() == [0.5, 0]


def again(
    strategy: Strategy, candidates: Candidates, rows: Any, classes: Any, size: int, **options: Any
) -> np.ndarray | None:
    """Who is picked if the true classes of some rows are known; None where so many cannot be had."""
    scores, means = candidates.column("scores").copy(), candidates.column("means").copy()
    scores[rows], means[rows] = classes, classes
    try:
        rows = choose(strategy, replace(candidates, scores=scores, means=means), size, seed=0, **options).rows
    except InputError:
        return None
    return np.isin(np.arange(len(candidates)), rows)


@pytest.mark.parametrize("options", OPTIONS)
@given(samples=SAMPLES, data=st.data())
def test_probabilities_are_those_of_choosing_again(
    options: dict[str, Any], samples: list[Sample], data: st.DataObject
) -> None:
    strategy, candidates = data.draw(st.sampled_from(STRATEGIES)), candidates_of(samples)
    size = data.draw(st.integers(2, 10))
    try:
        found = subset(strategy, candidates, size, **options)
    except InputError:
        return
    posterior = np.random.default_rng(size).dirichlet(np.full(CLASSES, 0.5), len(samples))
    expected = np.zeros(len(samples))
    for row in np.flatnonzero(~candidates.known("raw_scores")):
        for score in range(CLASSES):
            picked = again(strategy, candidates, row, score, size, **options)
            if picked is None or picked[row] != found.picked[row]:
                expected[row] += posterior[row, score]
    assert probabilities(found, candidates, posterior, **options) == pytest.approx(expected)


@given(samples=SAMPLES, data=st.data())
def test_what_is_certain_never_changes(samples: list[Sample], data: st.DataObject) -> None:
    certain = [one._replace(mean=None if one.score is None else float(one.score)) for one in samples]
    candidates = candidates_of([one for one in certain if one.score is not None] or [Sample(key(1))])
    strategy = data.draw(st.sampled_from(STRATEGIES))
    found = subset(strategy, candidates, data.draw(st.integers(1, len(candidates))))
    assert not probabilities(found, candidates, np.eye(CLASSES)[candidates.column("scores")]).any()


def test_the_most_probable_come_first_and_those_that_change_nothing_never() -> None:
    probability = np.array([0.0, 0.25, 0.5, 0.125, 0.5, 0.75])
    ties = np.array([0, 1, 9, 3, 2, 5], np.uint64)
    rated = np.array([True, True, True, True, True, False])
    found = next_to_rate(probability, rated, ties, size=10, target=0.1, most=3)
    assert found.rows.tolist() == [4, 2, 1]
    assert found.now == pytest.approx(0.2125)
    assert found.after == pytest.approx(0.0875)
    assert found.enough == 3
    everything = next_to_rate(probability, rated, ties, size=10, target=0, most=99)
    assert everything.rows.tolist() == [4, 2, 1, 3]
    assert everything.enough is None
    assert everything.after == pytest.approx(0.075)


def test_without_a_number_as_few_as_meet_the_target_are_taken() -> None:
    probability, ties = np.array([0.5, 0.25, 0.25, 0.5]), np.arange(4).astype(np.uint64)
    can = np.ones(4, bool)
    for target, rows in ((0.15, []), (0.1, [0]), (0.05, [0, 3]), (0.03, [0, 3, 1]), (0, [0, 3, 1, 2])):
        found = next_to_rate(probability, can, ties, size=10, target=target)
        assert found.rows.tolist() == rows
        assert found.enough == len(rows)
        assert found.after <= target + 1e-9
    few = next_to_rate(probability, np.array([True, False, False, True]), ties, size=10, target=0.01)
    assert (few.rows.tolist(), few.enough, few.after) == ([0, 3], None, pytest.approx(0.05))


def test_the_share_is_never_above_all() -> None:
    found = next_to_rate(np.full(30, 0.9), np.ones(30, bool), np.arange(30).astype(np.uint64), size=2, target=0, most=1)
    assert (found.now, found.after) == (1, 1)
