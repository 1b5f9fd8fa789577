"""The arithmetic of a comparison, by hand and by its symmetries."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tamis.core.errors import InputError
from tamis.judging.comparison import Share, Verdict, compare, outcomes, results

TABLES = st.integers(1, 60).flatmap(
    lambda n: st.tuples(
        arrays.arrays(np.int8, (n, 2), elements=st.integers(-1, 1)),
        arrays.arrays(np.int64, (n, 2), elements=st.integers(0, 500)),
    )
)


@pytest.mark.parametrize(
    ("shown_first", "shown_second", "expected"),
    [
        ("first", "second", 1),  # preferred in both places
        ("first", "tie", 1),
        ("tie", "second", 1),
        ("tie", "tie", 0),
        ("first", "first", 0),  # the judge likes the place, not the answer
        ("second", "second", 0),
        ("second", "tie", -1),
        ("tie", "first", -1),
        ("second", "first", -1),
    ],
)
def test_two_orders_make_one_result(shown_first: Verdict, shown_second: Verdict, expected: int) -> None:
    assert results(outcomes([shown_first], [shown_second])).tolist() == [expected]


def test_a_comparison_counted_by_hand() -> None:
    shown_first: list[Verdict] = ["first", "first", "first", "tie", "second", "tie", "second", "first"]
    shown_second: list[Verdict] = ["second", "tie", "first", "tie", "first", "first", "second", "second"]
    lengths = np.array([[9, 3], [4, 8], [5, 5], [1, 2], [9, 4], [2, 7], [6, 1], [8, 8]])
    found = compare(outcomes(shown_first, shown_second), lengths, resamples=100)
    # Prompts 1, 2, 8 are won, 5 and 6 lost, 3, 4 and 7 ties; 3 and 7 by opposite winners.
    assert (found.win.value, found.tie.value, found.lose.value, found.net.value) == (3 / 8, 3 / 8, 2 / 8, 1 / 8)
    assert found.flips == 2 / 8
    # Twelve verdicts have a winner; shown first are: 1, 2, 3, 8 of the first order, 3, 5, 6 of the second.
    assert (found.decided, found.first_preferred) == (12, 7 / 12)
    # Won by the longer answer: 1 and 6; by the shorter: 2 and 5; 8 has equal lengths.
    assert (found.unequal, found.longer_wins) == (4, 2 / 4)
    assert found.mean_lengths == (44 / 8, 38 / 8)
    ratio = np.log((lengths[:, 0] + 1) / (lengths[:, 1] + 1))
    assert found.length_correlation == pytest.approx(np.corrcoef([1, 1, 0, 0, -1, -1, 0, 1], ratio)[0, 1])


@pytest.mark.parametrize(("n", "shown"), [(1, False), (5, False), (6, True), (50, True)])
def test_prompts_that_all_ended_alike_show_as_much_as_their_number(n: int, shown: bool) -> None:
    lengths = np.full((n, 2), 10)
    won, tied, lost = (compare(np.full((n, 2), sign, np.int8), lengths) for sign in (1, 0, -1))
    assert (won.net.low > 0) == shown
    assert (lost.net.high < 0) == shown
    assert (won.net.value, won.net.high, won.win.high, lost.net.value) == (1, 1, 1, -1)
    # Of n prompts none is lost this rarely, if this share is: the limit of Clopper and Pearson.
    assert (1 - won.lose.high) ** n == pytest.approx(0.025)
    assert won.win.low == pytest.approx(1 - won.lose.high)
    assert tied.net.low < 0 < tied.net.high


@given(TABLES)
def test_swapping_the_models_mirrors_the_result(table: tuple[np.ndarray, np.ndarray]) -> None:
    seen, lengths = table
    one = compare(seen, lengths, resamples=200)
    # The other model was shown first where this one was shown second.
    other = compare(-seen[:, ::-1], lengths[:, ::-1], resamples=200)

    def close(share: Share, value: float, low: float, high: float) -> None:
        np.testing.assert_allclose([share.value, share.low, share.high], [value, low, high], atol=1e-12)

    close(other.win, one.lose.value, one.lose.low, one.lose.high)
    close(other.lose, one.win.value, one.win.low, one.win.high)
    close(other.tie, one.tie.value, one.tie.low, one.tie.high)
    close(other.net, -one.net.value, -one.net.high, -one.net.low)
    assert (other.flips, other.first_preferred, other.longer_wins) == (one.flips, one.first_preferred, one.longer_wins)
    assert other.mean_lengths == one.mean_lengths[::-1]
    assert (other.length_correlation is None) == (one.length_correlation is None)
    if one.length_correlation is not None:
        assert other.length_correlation == pytest.approx(one.length_correlation, abs=1e-9)


@given(TABLES)
def test_shares_sum_to_one_and_lie_in_their_intervals(table: tuple[np.ndarray, np.ndarray]) -> None:
    found = compare(*table, resamples=400)
    assert found.win.value + found.tie.value + found.lose.value == pytest.approx(1)
    for share in (found.win, found.tie, found.lose):
        assert 0 <= share.low <= share.value + 1e-12
        assert share.value - 1e-12 <= share.high <= 1
    assert found.net.value == pytest.approx(found.win.value - found.lose.value)


@given(TABLES, st.randoms(use_true_random=False))
def test_the_order_of_the_prompts_changes_no_share(table: tuple[np.ndarray, np.ndarray], chance: object) -> None:
    seen, lengths = table
    places = np.random.default_rng(0).permutation(len(seen))
    one, other = compare(seen, lengths, resamples=10), compare(seen[places], lengths[places], resamples=10)
    assert [other.win.value, other.tie.value, other.flips] == pytest.approx([one.win.value, one.tie.value, one.flips])
    assert (other.first_preferred, other.longer_wins) == (one.first_preferred, one.longer_wins)


def test_a_judge_that_always_likes_the_first_place_gives_ties_and_is_found_out() -> None:
    found = compare(outcomes(["first"] * 50, ["first"] * 50), np.ones((50, 2), np.int64))
    assert (found.tie.value, found.flips, found.first_preferred) == (1, 1, 1)
    assert (found.longer_wins, found.length_correlation) == (None, None)


def test_a_judge_that_always_likes_the_longer_answer_is_found_out() -> None:
    lengths = np.random.default_rng(0).integers(1, 500, (200, 2))
    longer = np.sign(lengths[:, :1] - lengths[:, 1:]).astype(np.int8)
    found = compare(np.repeat(longer, 2, axis=1), lengths)
    assert (found.longer_wins, found.flips) == (1, 0)
    assert found.length_correlation is not None
    assert found.length_correlation > 0.7


def test_the_intervals_hold_the_truth_as_often_as_they_say() -> None:
    generator, truth, held = np.random.default_rng(1), 0.46, 0
    for trial in range(200):
        result = generator.choice([1, 0, -1], size=300, p=[truth, 0.14, 0.40]).astype(np.int8)
        found = compare(np.stack([result, result], axis=1), np.ones((300, 2), np.int64), resamples=500, seed=trial)
        held += found.win.low <= truth <= found.win.high
    assert 180 <= held <= 199  # 95 % of 200, within three standard deviations


def test_blocks_of_the_bootstrap_do_not_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from tamis.judging import comparison

    seen = np.array(list(product([1, 0, -1], repeat=2)), np.int8)
    lengths = np.ones_like(seen, dtype=np.int64)
    whole = compare(seen, lengths, resamples=1000)
    monkeypatch.setattr(comparison, "_CELLS", 100)
    assert compare(seen, lengths, resamples=1000) == whole
    assert compare(seen, lengths, resamples=1000, seed=7) != whole


def test_more_confidence_means_wider_intervals() -> None:
    seen, lengths = outcomes(["first", "tie", "second"] * 20, ["second", "tie", "second"] * 20), np.ones((60, 2), int)
    narrow, wide = (compare(seen, lengths, confidence=confidence) for confidence in (0.5, 0.99))
    assert wide.win.low < narrow.win.low < narrow.win.value < narrow.win.high < wide.win.high


@pytest.mark.parametrize(
    ("seen", "lengths"),
    [(np.zeros((0, 2)), np.zeros((0, 2))), (np.zeros((3, 2)), np.zeros((4, 2))), (np.zeros(3), np.zeros(3))],
)
def test_what_is_no_comparison_is_refused(seen: np.ndarray, lengths: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"\(n, 2\)"):
        compare(seen.astype(np.int8), lengths.astype(np.int64))


def test_verdicts_that_do_not_pair_up_or_are_unknown_are_refused() -> None:
    with pytest.raises(InputError, match=r"\b2\b.*\b1\b"):
        outcomes(["first", "tie"], ["tie"])
    with pytest.raises(InputError, match="'third'"):
        outcomes(["third"], ["tie"])  # type: ignore[list-item]
