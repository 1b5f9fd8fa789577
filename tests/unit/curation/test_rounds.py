"""Curation in paper and reference mode."""

from __future__ import annotations

import numpy as np
import pytest

from tamis.curation import hoc, rounds
from tamis.curation.consensus import Consensus, consensus
from tamis.curation.neighborhoods import Neighborhoods
from tests.conftest import shared_data
from tests.unit.curation.pools import P, Pool, T, make_pool, nearest


@pytest.fixture(scope="module")
def pool() -> Pool:
    return make_pool(4000, 64, seed=31)


def t_error(pool: Pool, T: np.ndarray) -> float:
    return float(np.abs(np.array(T) - pool.realized()).mean())


def exact_counts() -> Consensus:
    return Consensus(P @ T, (T.T * P) @ T, np.einsum("i,ia,ib,ic->abc", P, T, T, T), 1.0)


def test_t_is_found_from_exact_consensus_counts() -> None:
    fitted, p, loss = hoc.solve(exact_counts(), np.random.default_rng(0))
    np.testing.assert_allclose(fitted, T, atol=0.04)
    np.testing.assert_allclose(p, P, atol=0.03)
    assert loss < 0.003


def test_only_classes_always_or_never_right_have_other_rates() -> None:
    right = np.array([0.99, 0.007, 1.2, 0.0, 0.5, 1.0])
    observed = np.full(6, 1 / 6)
    rates = rounds._noise_rates(np.diag(right), observed, observed)
    np.testing.assert_allclose(rates, [0.01, 0.993, 0.05, 0.95, 0.5, 0.05])
    absent = rounds._noise_rates(np.eye(6), np.array([0, 1, 0, 0, 0, 0.0]), np.array([0, 1, 0, 0, 0, 0.0]))
    np.testing.assert_allclose(absent, 0.05)


def test_the_gradient_is_the_slope_of_the_loss() -> None:
    rng = np.random.default_rng(1)
    logits = rng.standard_normal(42)
    noisy = Consensus(
        *(c + 0.01 * rng.random(c.shape) for c in (exact_counts().c1, exact_counts().c2, exact_counts().c3)), 1.0
    )
    _, slope = hoc._loss(logits, noisy, 6)
    for i in range(42):
        step = np.zeros(42)
        step[i] = 1e-6
        rise = (hoc._loss(logits + step, noisy, 6)[0] - hoc._loss(logits - step, noisy, 6)[0]) / 2e-6
        assert slope[i] == pytest.approx(rise, abs=1e-6)


def test_the_best_step_is_no_worse_than_the_last() -> None:
    best = hoc.solve(exact_counts(), np.random.default_rng(0), steps=40)
    last = hoc.solve(exact_counts(), np.random.default_rng(0), steps=40, keep_best=False)
    assert best[2] <= last[2]


@pytest.mark.parametrize("doubled", [False, True])
def test_neighbours_in_a_draw_are_those_of_a_search_among_the_drawn(pool: Pool, doubled: bool) -> None:
    view = Neighborhoods(pool.scores.astype(np.int8), pool.indices, pool.distances, None)
    draws = rounds._Draws(view, doubled)
    counts = draws.draw(np.random.default_rng(2))
    assert counts.max() == 1 + doubled
    assert counts.sum() == int(0.9 * 4000 * (1 + doubled))
    rows = np.flatnonzero(counts)[:200]
    found, far = draws.nearest(counts, rows, 6)
    drawn = np.repeat(np.arange(4000), counts)
    for x, mine, distances in zip(rows, found, far, strict=True):
        others = list(drawn)
        others.remove(x)  # one of its copies is the sample itself
        apart = 1 - pool.vectors[others] @ pool.vectors[x]
        apart[np.array(others) == x] = 0
        np.testing.assert_allclose(distances, np.sort(apart)[:6], atol=2e-6)
        assert (mine == x).sum() == counts[x] - 1


def test_averaged_counts_approach_the_closed_form(pool: Pool) -> None:
    view = Neighborhoods(pool.scores.astype(np.int8), pool.indices, pool.distances, None)
    with rounds.Progress("test", 60) as progress:
        counted = rounds._count(rounds._Draws(view, False), 6, 60, np.random.default_rng(0), progress)
    closed = consensus(view, 6, share=0.9)
    np.testing.assert_allclose(counted.c3, closed.c3, atol=1.5e-3)


def test_paper_mode_finds_most_errors_and_reference_mode_is_fooled_by_copies(pool: Pool) -> None:
    paper = rounds.curate(pool.scores, pool.indices, pool.distances)
    reference = rounds.curate(pool.scores, pool.indices, pool.distances, doubled=True)
    assert paper.diagnosis["mode"] == "paper"
    assert reference.diagnosis["mode"] == "reference"
    assert t_error(pool, paper.diagnosis["T"]) < 0.03
    assert pool.f1(paper.flagged) > 0.83
    assert pool.right(paper.score) > 0.82
    assert 0.09 < t_error(pool, reference.diagnosis["T"]) < 0.14
    assert 0.25 < pool.f1(reference.flagged) < 0.45
    assert pool.right(reference.score) < 0.72


def test_draws_are_a_matter_of_the_seed(pool: Pool) -> None:
    first, again, other = (
        rounds.curate(pool.scores, pool.indices, pool.distances, consensus_rounds=5, vote_rounds=7, seed=seed)
        for seed in (1, 1, 2)
    )
    assert first.diagnosis == again.diagnosis
    np.testing.assert_array_equal(first.confidence, again.confidence)
    assert (first.confidence != other.confidence).any()


def test_a_flagged_score_below_the_threshold_stays(pool: Pool) -> None:
    result = rounds.curate(pool.scores, pool.indices, pool.distances, confidence=0.7, vote_rounds=15)
    unsure = result.flagged & (result.confidence < 0.7)
    assert unsure.any()
    np.testing.assert_array_equal(result.score[unsure], pool.scores[unsure])
    sure = result.flagged & (result.confidence >= 0.7)
    np.testing.assert_array_equal(result.score[sure], result.suggested[sure])
    assert (result.suggested[result.flagged] != pool.scores[result.flagged]).all()


def test_samples_without_a_rating_take_no_part(pool: Pool) -> None:
    scores = np.where(np.arange(4000) % 4 == 0, -1, pool.scores)
    result = rounds.curate(scores, pool.indices, pool.distances, consensus_rounds=10, vote_rounds=10)
    missing = scores == -1
    assert (result.score[missing] == -1).all()
    assert not result.flagged[missing].any()
    assert np.isnan(result.confidence[missing]).all()
    assert result.diagnosis["counts"]["unrated"] == 1000


def test_lists_too_short_for_the_votes_are_said(pool: Pool) -> None:
    result = rounds.curate(pool.scores, pool.indices[:, :8], pool.distances[:, :8], consensus_rounds=3, vote_rounds=3)
    assert any("find more neighbours" in warning for warning in result.diagnosis["warnings"])


def test_too_few_draws_for_the_threshold_are_said(pool: Pool) -> None:
    few = rounds.curate(pool.scores, pool.indices, pool.distances, consensus_rounds=3, vote_rounds=4)
    assert any("100% of the ratings cannot be corrected" in warning for warning in few.diagnosis["warnings"])
    assert not (few.score != few.raw).any()
    enough = rounds.curate(pool.scores, pool.indices, pool.distances, consensus_rounds=3, vote_rounds=20)
    assert not any("cannot be corrected" in warning for warning in enough.diagnosis["warnings"])


@pytest.mark.parametrize("scores", [np.full(300, 2), np.arange(300) % 2 * 5])
def test_classes_that_nobody_gave_do_no_harm(scores: np.ndarray) -> None:
    pool = make_pool(300, 16, seed=5, k=12)
    result = rounds.curate(scores, pool.indices, pool.distances, consensus_rounds=3, vote_rounds=5)
    assert set(np.unique(result.score)) <= set(np.unique(scores)) | set(range(6))
    np.testing.assert_allclose(np.sum(result.diagnosis["T"], axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("name", ["2k", "10k"])
def test_paper_mode_does_what_the_reference_does_without_its_doubling(name: str) -> None:
    data = np.load(shared_data("curation", f"ref_syn{name}_nodup_s0.npz"))
    vectors = data["emb"] / np.linalg.norm(data["emb"], axis=1, keepdims=True)
    pool = Pool(vectors, data["true"], data["noisy"], *nearest(vectors, 32))
    paper = rounds.curate(pool.scores, pool.indices, pool.distances)
    near = {"2k": 0.03, "10k": 0.005}[name]
    assert np.abs(np.array(paper.diagnosis["T"]) - data["T"]).mean() < near
    assert (paper.flagged == data["flag"]).mean() > {"2k": 0.92, "10k": 0.97}[name]
    assert (paper.score == data["curated"]).mean() > {"2k": 0.95, "10k": 0.97}[name]
    noise = {"2k": 0.03, "10k": 0.015}[name]
    assert pool.f1(paper.flagged) == pytest.approx(pool.f1(data["flag"]), abs=noise)
    assert pool.right(paper.score) == pytest.approx(pool.right(data["curated"]), abs=noise)
    reference = rounds.curate(pool.scores, pool.indices, pool.distances, doubled=True)
    assert t_error(pool, reference.diagnosis["T"]) == pytest.approx(0.115, abs=0.01)
    assert pool.f1(reference.flagged) == pytest.approx(0.35, abs=0.03)
