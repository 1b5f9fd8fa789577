"""Sizes, bars, quotas and the errors when they cannot be met."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.core.errors import InputError
from tamis.selection.candidates import Candidates
from tamis.selection.choose import choose, numbers_of
from tests.unit.selection.makers import SAMPLES, Sample, candidates_of, chosen, key


def three_sources() -> list[Sample]:
    """60 samples of source a, 30 of b, 10 of c; scores 0..5 in turn."""
    sources = "a" * 60 + "b" * 30 + "c" * 10
    return [
        Sample(key(i), source=sources[i], score=i % 6, raw_score=(i + 1) % 6, diversity=i / 100) for i in range(100)
    ]


def sources_of(picked: list[bytes], samples: list[Sample]) -> Counter[str]:
    source = {s.key: s.source for s in samples}
    return Counter(source[one] for one in picked)


@pytest.mark.parametrize(("size", "number"), [(7, 7), (0.05, 5), (0.004, 1), (0.126, 13), (0.999, 100)])
def test_a_size_is_a_number_or_a_share_of_the_pool(size: float, number: int) -> None:
    assert len(chosen("random", three_sources(), size)) == number


@pytest.mark.parametrize("size", [0, -3])
def test_a_size_that_is_not_positive_is_refused(size: int) -> None:
    with pytest.raises(InputError, match=f"size.* {size}\\b"):
        chosen("random", three_sources(), size)


def test_full_takes_all_that_are_not_barred() -> None:
    samples = three_sources()
    barred = np.arange(100) % 10 == 0
    picked = chosen("full", samples, None, barred={"excluded": barred})
    assert set(picked) == {s.key for s, no in zip(samples, barred, strict=True) if not no}


def test_full_of_nothing_is_an_error() -> None:
    with pytest.raises(InputError, match=r"\b0 of 100\b.*\b100 excluded"):
        chosen("full", three_sources(), None, barred={"excluded": np.ones(100, bool)})


@given(samples=SAMPLES, data=st.data())
def test_barred_samples_are_never_picked_and_each_is_counted_once(samples: list[Sample], data: st.DataObject) -> None:
    masks = st.lists(st.booleans(), min_size=len(samples), max_size=len(samples))
    first, second = (np.array(data.draw(masks)) for _ in range(2))
    candidates = candidates_of(samples)
    unrated = candidates.column("scores") < 0
    count = int((~first & ~second & ~unrated).sum())
    if not count:
        return
    choice = choose("ds2", candidates, count, seed=0, barred={"excluded": first, "absent": second})
    assert choice.eligible == count
    assert not (first | second | unrated)[choice.rows].any()
    reasons = {
        "excluded": first.sum(),
        "absent": (second & ~first).sum(),
        "unrated": (unrated & ~first & ~second).sum(),
    }
    assert choice.not_eligible == {name: int(n) for name, n in reasons.items() if n}


def test_an_error_gives_every_reason_with_its_count() -> None:
    samples = [Sample(key(i), score=None if i < 4 else i % 6) for i in range(20)]
    barred = {"excluded": np.arange(20) >= 17}
    with pytest.raises(InputError) as caught:
        chosen("ds2", samples, 18, barred=barred, min_score=2)
    for part in ("18 samples", "9 of 20", "3 excluded, 4 unrated, 4 score below 2"):
        assert part in caught.value.problem
    assert caught.value.allowed == "at most 9"


@pytest.mark.parametrize(
    ("strategy", "field"), [("ds2", "score"), ("random", "score"), ("ds2-raw", "raw_score"), ("alpagasus", "raw_score")]
)
def test_a_lowest_score_holds_for_the_scores_that_the_strategy_uses(strategy: str, field: str) -> None:
    samples = three_sources()
    allowed = {s.key for s in samples if getattr(s, field) >= 4}
    assert set(chosen(strategy, samples, len(allowed), min_score=4)) == allowed


def test_a_lowest_score_bars_the_unrated_under_any_strategy() -> None:
    samples = [Sample(key(i), score=None if i % 2 else 3) for i in range(10)]
    assert set(chosen("random", samples, 5, min_score=0)) == {key(i) for i in range(0, 10, 2)}


@pytest.mark.parametrize("strategy", ["random", "length", "knn", "alpagasus", "ds2-raw", "ds2"])
def test_quotas_are_filled_exactly_each_as_if_its_source_were_alone(strategy: str) -> None:
    samples = three_sources()
    picked = chosen(strategy, samples, 40, quotas={"c": 7, "a": 0.5})
    assert sources_of(picked, samples) == {"c": 7, "a": 20, "b": 13}
    of_c = [s for s in samples if s.source == "c"]
    assert set(chosen(strategy, of_c, 7)) <= set(picked)


def test_with_quotas_the_ranks_still_follow_the_strategy() -> None:
    samples = three_sources()
    score = {s.key: (s.score, s.diversity) for s in samples}
    picked = chosen("ds2", samples, 40, quotas={"c": 7, "a": 20})
    assert [score[one] for one in picked] == sorted((score[one] for one in picked), reverse=True)


def test_with_quotas_there_is_a_threshold_per_group() -> None:
    choice = choose("ds2", candidates_of(three_sources()), 12, seed=0, quotas={"a": 10})
    assert [entry["sources"] for entry in choice.thresholds] == [["a"], None]
    assert choice.thresholds[0] == {"sources": ["a"], "score": 5.0, "picked": 10, "cut": 0}


def test_a_quota_beyond_its_source_is_an_error_with_the_source() -> None:
    with pytest.raises(InputError, match=r"\b11 samples .*source 'c'.*\b10 of 10\b"):
        chosen("random", three_sources(), 40, quotas={"c": 11})


def test_a_quota_counts_the_barred_of_its_own_source_only() -> None:
    with pytest.raises(InputError, match=r"source 'c'.*\b8 of 10\b.*\b2 excluded"):
        chosen("random", three_sources(), 40, quotas={"c": 9}, barred={"excluded": np.arange(100) % 5 == 0})


def test_quotas_of_all_sources_must_make_up_the_size() -> None:
    with pytest.raises(InputError, match=r"\b10 samples .*the sources without a quota.*\b0 of 0\b"):
        chosen("random", three_sources(), 40, quotas={"a": 10, "b": 10, "c": 10})


def test_quotas_beyond_the_size_are_refused() -> None:
    with pytest.raises(InputError, match=r"sources: .*\b50 .*\b40\b"):
        chosen("random", three_sources(), 40, quotas={"a": 30, "b": 0.5})


def test_a_quota_for_a_source_that_is_not_there_lists_the_sources() -> None:
    with pytest.raises(InputError, match="the pool has no source 'd'") as caught:
        chosen("random", three_sources(), 40, quotas={"d": 3})
    assert caught.value.allowed == "a, b, c"


@pytest.mark.parametrize(
    ("quotas", "total", "numbers"),
    [
        ({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, 10, {"a": 4, "b": 3, "c": 3}),
        ({"b": 0.1, "a": 0.2, "c": 0.7}, 10, {"b": 1, "a": 2, "c": 7}),
        ({"a": 0.26, "b": 0.26}, 10, {"a": 3, "b": 2}),
        ({"a": 2, "b": 0.5}, 9, {"a": 2, "b": 5}),
        ({"a": 0.001}, 10, {"a": 0}),
    ],
)
def test_shares_are_rounded_to_their_rounded_sum(quotas: dict[str, float], total: int, numbers: dict[str, int]) -> None:
    assert numbers_of(quotas, total) == numbers


@given(st.lists(st.integers(1, 50), min_size=2, max_size=8), st.integers(1, 10_000))
def test_shares_of_the_whole_always_come_to_the_whole(weights: list[int], total: int) -> None:
    quotas = {str(i): weight / sum(weights) for i, weight in enumerate(weights)}
    numbers = numbers_of(quotas, total)
    assert sum(numbers.values()) == total
    assert all(abs(numbers[name] - share * total) < 1 + 1e-6 for name, share in quotas.items())


def test_a_column_that_was_not_loaded_is_named() -> None:
    bare = Candidates(ids=np.array([key(1)], "S16"), sources=np.zeros(1, np.int32), source_names=("a",))
    with pytest.raises(InputError, match="no column 'lengths'"):
        choose("length", bare, 1, seed=0)


def test_arrays_of_wrong_shape_or_type_are_refused() -> None:
    candidates = candidates_of([Sample(key(1)), Sample(key(2))])
    with pytest.raises(InputError, match=r"lengths has shape \(3,\)"):
        replace(candidates, lengths=np.zeros(3, np.int64))
    with pytest.raises(InputError, match="scores has dtype uint8"):
        replace(candidates, scores=np.zeros(2, np.uint8))  # type: ignore[arg-type]
