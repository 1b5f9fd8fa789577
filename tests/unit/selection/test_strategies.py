"""Every strategy against a plain reading of its paper, and what must hold for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tamis.core.errors import InputError, SettingsError
from tamis.selection.choose import choose
from tamis.selection.settings import StrategyName
from tamis.selection.strategies import STRATEGIES, strategy_named
from tests.unit.selection.makers import SAMPLES, VECTORS, Sample, candidates_of, chosen, key, seeded

Naive = Callable[[list[Sample], dict[bytes, int], int], list[Sample]]
NAMES = list(STRATEGIES)


def naive_random(samples: list[Sample], seeds: dict[bytes, int], size: int) -> list[Sample]:
    return sorted(samples, key=lambda s: seeds[s.key])[:size]


def naive_length(samples: list[Sample], seeds: dict[bytes, int], size: int) -> list[Sample]:
    return sorted(samples, key=lambda s: (-s.length, seeds[s.key]))[:size]


def naive_knn(samples: list[Sample], seeds: dict[bytes, int], size: int) -> list[Sample]:
    known = [s for s in samples if s.distance is not None]
    return sorted(known, key=lambda s: (-(s.distance or 0), seeds[s.key]))[:size]


def naive_alpagasus(samples: list[Sample], seeds: dict[bytes, int], size: int) -> list[Sample]:
    taken: list[Sample] = []
    for score in (5, 4, 3, 2, 1, 0):
        members = sorted((s for s in samples if s.raw_score == score), key=lambda s: seeds[s.key])
        taken += members[: size - len(taken)]
    return taken


def dual_sort(score_of: Callable[[Sample], int | None]) -> Naive:
    """Section 4.3: take whole score classes from the highest down; cut the one that does not fit by diversity."""

    def pick(samples: list[Sample], seeds: dict[bytes, int], size: int) -> list[Sample]:
        taken: list[Sample] = []
        for score in (5, 4, 3, 2, 1, 0):
            members = [s for s in samples if score_of(s) == score]
            rarest = sorted(members, key=lambda s: (-s.diversity, seeds[s.key]))
            left = size - len(taken)
            taken += rarest if len(members) <= left else rarest[:left]
        return taken

    return pick


def naive_model_scores(samples: list[Sample], seeds: dict[bytes, int], size: int) -> list[Sample]:
    known = [s for s in samples if s.model_score is not None]
    return sorted(known, key=lambda s: (-(s.model_score or 0), seeds[s.key]))[:size]


def naive_deita(samples: list[Sample], seeds: dict[bytes, int], size: int) -> list[Sample]:
    """Section 3.3: best first; one whose nearest picked one has a cosine above 0.9 is passed over."""
    picked: list[Sample] = []
    for s in naive_model_scores([s for s in samples if s.vector is not None], seeds, len(samples)):
        if all(float(VECTORS[s.vector] @ VECTORS[p.vector]) <= 0.9 for p in picked) and len(picked) < size:
            picked.append(s)
    return picked


NAIVE: dict[str, Naive] = {
    "perplexity": naive_model_scores,
    "less": naive_model_scores,
    "deita": naive_deita,
    "full": naive_random,
    "random": naive_random,
    "length": naive_length,
    "knn": naive_knn,
    "alpagasus": naive_alpagasus,
    "ds2-raw": dual_sort(lambda s: s.raw_score),
    "ds2": dual_sort(lambda s: s.score),
}


def eligible(strategy: str, samples: list[Sample]) -> list[Sample]:
    return NAIVE[strategy](samples, seeded(strategy, samples), len(samples))


def test_settings_registry_and_references_name_the_same_strategies() -> None:
    assert set(get_args(StrategyName)) == set(STRATEGIES) == set(NAIVE)


def test_an_unknown_strategy_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="unknown strategy 'best'") as caught:
        strategy_named("best")
    assert all(name in caught.value.allowed for name in STRATEGIES)


@pytest.mark.parametrize("strategy", NAMES)
@settings(max_examples=40)
@given(samples=SAMPLES, share=st.floats(0.01, 1), seed=st.integers(0, 5))
def test_the_choice_is_the_naive_one_in_its_order(
    strategy: str, samples: list[Sample], share: float, seed: int
) -> None:
    seeds = seeded(strategy, samples, seed)
    possible = len(eligible(strategy, samples))
    if possible == 0:
        with pytest.raises(InputError):
            chosen(strategy, samples, 1, seed=seed)
        return
    size = max(1, int(share * possible))
    expected = [s.key for s in NAIVE[strategy](samples, seeds, size)]
    assert chosen(strategy, samples, size, seed=seed) == expected


@settings(max_examples=100)
@given(samples=SAMPLES, share=st.floats(0.01, 1))
def test_ds2_by_mean_takes_the_highest_means_of_the_samples_that_have_a_score(
    samples: list[Sample], share: float
) -> None:
    seeds = seeded("ds2", samples)
    known = [s for s in samples if s.score is not None and s.mean is not None]
    expected = [s.key for s in sorted(known, key=lambda s: (-(s.mean or 0), -s.diversity, seeds[s.key]))]
    assume(expected)
    size = max(1, int(share * len(expected)))
    assert chosen(strategy_named("ds2", rank_by="mean"), samples, size) == expected[:size]


def test_the_lowest_score_is_one_of_classes_whatever_ranks() -> None:
    samples = [Sample(key(0), score=3, mean=4.5), Sample(key(1), score=4, mean=3.5), Sample(key(2), score=4, mean=4.0)]
    by_mean = strategy_named("ds2", rank_by="mean")
    assert chosen(by_mean, samples, 2) == [key(0), key(2)]
    assert chosen(by_mean, samples, 2, min_score=4) == [key(2), key(1)]


def test_only_ds2_as_published_ranks_by_mean() -> None:
    for name, variant in (("ds2-raw", "published"), ("alpagasus", "ds2-paper"), ("random", "published")):
        with pytest.raises(SettingsError, match=f"rank_by.* {name}\\b") as caught:
            strategy_named(name, variant, "mean")  # type: ignore[arg-type]
        assert caught.value.allowed == "ds2, variant published"


@pytest.mark.parametrize("strategy", NAMES)
@settings(max_examples=40)
@given(samples=SAMPLES, random=st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(strategy: str, samples: list[Sample], random: np.random.Random) -> None:
    possible = len(eligible(strategy, samples))
    shuffled = random.sample(samples, len(samples))
    for size in {1, possible // 2, possible} & set(range(1, possible + 1)):
        assert chosen(strategy, samples, size) == chosen(strategy, shuffled, size)


@pytest.mark.parametrize("strategy", NAMES)
@settings(max_examples=40)
@given(samples=SAMPLES)
def test_a_larger_subset_begins_with_the_smaller_one(strategy: str, samples: list[Sample]) -> None:
    whole = [s.key for s in eligible(strategy, samples)]
    for size in range(1, len(whole) + 1):
        assert chosen(strategy, samples, size) == whole[:size]


@pytest.mark.parametrize("strategy", NAMES)
@settings(max_examples=40)
@given(samples=SAMPLES)
def test_one_more_than_there_are_is_an_error_that_says_how_many(strategy: str, samples: list[Sample]) -> None:
    possible = len(eligible(strategy, samples))
    if strategy == "deita":  # it accepts fewer than are eligible
        with pytest.raises(InputError) as caught:
            chosen(strategy, samples, possible + 1)
        assert caught.value.allowed == f"at most {possible}"
        return
    with pytest.raises(InputError, match=rf"\b{possible} of {len(samples)}\b"):
        chosen(strategy, samples, len(samples) + 1)
    if 0 < possible < len(samples):
        why = "unrated|not in the graph|without a score"
        with pytest.raises(InputError, match=f"{len(samples) - possible} ({why})"):
            chosen(strategy, samples, possible + 1)


@pytest.mark.parametrize(
    ("strategy", "field"),
    [("alpagasus", "raw_score"), ("ds2-raw", "raw_score"), ("ds2", "score"), ("knn", "distance"),
     ("perplexity", "model_score"), ("less", "model_score")],
)  # fmt: skip
def test_samples_without_a_score_are_never_picked(strategy: str, field: str) -> None:
    samples = [Sample(key(i), **{field: None if i % 3 else 0}) for i in range(1, 31)]  # type: ignore[arg-type]
    assert set(chosen(strategy, samples, 10)) == {s.key for s in samples if getattr(s, field) is not None}


@pytest.mark.parametrize("strategy", ["random", "alpagasus", "ds2", "ds2-raw", "length", "knn", "less"])
def test_among_equal_samples_the_seed_decides_and_each_is_as_likely(strategy: str) -> None:
    samples = [Sample(key(i)) for i in range(1, 21)]
    counts = dict.fromkeys([s.key for s in samples], 0)
    for seed in range(400):
        for picked in chosen(strategy, samples, 5, seed=seed):
            counts[picked] += 1
    # Each is picked with probability 1/4: 100 times, standard deviation 8.7.
    assert all(60 < count < 140 for count in counts.values())


def test_two_strategies_with_one_seed_draw_independently() -> None:
    samples = [Sample(key(i)) for i in range(1, 4001)]
    shared = set(chosen("random", samples, 2000)) & set(chosen("alpagasus", samples, 2000))
    assert 900 < len(shared) < 1100


def test_the_boundary_class_is_cut_by_diversity_over_all_its_members() -> None:
    # The rarest member of the cut class is the last row: the reference looked at the first half only.
    samples = [Sample(key(1), score=5, diversity=0.0)]
    samples += [Sample(key(2 + i), score=4, diversity=i / 100) for i in range(20)]
    assert chosen("ds2", samples, 3) == [key(1), key(21), key(20)]


def test_the_lowest_score_taken_and_what_was_cut_there_are_told() -> None:
    samples = [Sample(key(i), score=5 if i < 3 else 4 if i < 8 else 1) for i in range(10)]
    choice = choose("ds2", candidates_of(samples), 5, seed=0)
    assert choice.thresholds == [{"sources": None, "score": 4.0, "picked": 2, "cut": 3}]
    assert choose("random", candidates_of(samples), 5, seed=0).thresholds == []


def variant(strategy: str, samples: list[Sample], size: int) -> list[Sample]:
    """As run in the DS2 paper's experiments."""
    choice = choose(strategy_named(strategy, "ds2-paper"), candidates_of(samples), size, seed=0)
    return [samples[row] for row in choice.rows]


def test_only_strategies_that_were_run_otherwise_have_the_variant() -> None:
    with pytest.raises(SettingsError, match=r"variant .*'ds2-paper'.* ds2\b"):
        strategy_named("ds2", "ds2-paper")


def test_alpagasus_as_run_fills_up_from_the_first_rows_of_the_pool() -> None:
    # Four fives at the end, ten fours before them: numbers below 10 are taken as rows, which are of the lowest class.
    samples = [Sample(key(i + 1), raw_score=0 if i < 30 else 4 if i < 40 else 5) for i in range(44)]
    picked = variant("alpagasus", samples, 9)
    assert [s.raw_score for s in picked] == [5] * 4 + [0] * 5
    assert {s.key for s in picked[4:]} < {s.key for s in samples[:10]}
    assert {s.raw_score for s in variant("alpagasus", samples, 14)} == {4, 5}, "whole classes are taken as they are"


def test_alpagasus_as_run_never_takes_a_sample_twice() -> None:
    # The cut class has two members, so rows 0 and 1 may fill up; row 0 is taken already, as a five.
    samples = [Sample(key(1), raw_score=5), Sample(key(2), raw_score=4), Sample(key(3), raw_score=4)]
    assert {s.key for s in variant("alpagasus", samples, 2)} == {key(1), key(2)}


@settings(max_examples=60)
@given(samples=SAMPLES, size=st.integers(1, 12))
def test_deita_as_run_keeps_what_is_close_to_the_farthest_picked_ones(samples: list[Sample], size: int) -> None:
    seeds = seeded("deita", samples)
    order = [s for s in samples if s.raw_score is not None and s.vector is not None]
    order.sort(key=lambda s: (-(s.raw_score or 0), seeds[s.key]))
    picked: list[Sample] = []
    for s in order:
        farthest = sorted((1 - float(VECTORS[s.vector] @ VECTORS[p.vector]) for p in picked), reverse=True)[:10]
        if len(picked) < size and (not farthest or np.mean(farthest) < 0.5 - 1e-6):
            picked.append(s)
    if len(picked) == size:
        assert variant("deita", samples, size) == picked
    else:
        with pytest.raises(InputError):
            variant("deita", samples, size)
