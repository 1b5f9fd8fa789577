"""The joint model, what surroundings say, and what is expected of a rater: against plain versions and known truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import dirichlet

from tamis.curation import joint, rater_model, surroundings
from tamis.curation.bins import symbols_of
from tamis.curation.joint import Point
from tamis.curation.neighborhoods import Neighborhoods
from tamis.curation.surroundings import Surroundings
from tests.unit.curation import naive
from tests.unit.curation.pools import MILD, SKEWED, P, T, draw_ratings, make_pool, smooth_pool

SHIFTS, SLOPES, WIDTHS = st.floats(-2, 2), st.floats(0.5, 1.5), st.floats(-2, 1.5)


@given(SHIFTS, SLOPES, WIDTHS, st.integers(2, 10))
def test_a_rater_of_the_family_is_a_transition_matrix_without_zeros(
    shift: float, slope: float, width: float, classes: int
) -> None:
    found = rater_model.family(np.array([shift, slope, width]), classes)
    np.testing.assert_allclose(found.sum(1), 1)
    assert found.min() >= 0.004 - 1e-12
    kinder = rater_model.family(np.array([shift + 0.5, slope, width]), classes)
    steps = np.arange(classes)
    assert (kinder @ steps >= found @ steps - 1e-12).all()


def test_a_rater_without_bias_errs_to_both_sides_alike_and_the_more_the_wider_it_sees() -> None:
    sharp, blurred = (rater_model.family(np.array([0.0, 1.0, np.log(s)]), 6) for s in (0.4, 1.2))
    for matrix in (sharp, blurred):
        np.testing.assert_allclose(matrix, matrix[::-1, ::-1])
    assert (np.diag(sharp) > np.diag(blurred) + 0.1).all()


@given(st.floats(-1, 1), st.floats(0.7, 1.3), st.floats(-1, 0.5))
def test_the_parameters_of_a_rater_are_found_from_its_counts(shift: float, slope: float, width: float) -> None:
    truth = np.array([shift, slope, width])
    counts = 2000 * rater_model.family(truth, 6)
    found = rater_model.start()
    for _ in range(3):
        found = rater_model.fit(counts, found)
    np.testing.assert_allclose(found, truth, atol=0.05)


def test_few_counts_leave_a_rater_near_what_is_expected() -> None:
    found = rater_model.fit(np.zeros((6, 6)), rater_model.start())
    np.testing.assert_allclose(found, [0, 1, np.log(0.7)], atol=0.02)
    assert rater_model.log_prior(found) > rater_model.log_prior(rater_model.start())


@pytest.mark.parametrize("share", [0.15, 0.4, 0.7])
def test_the_share_of_samples_with_a_class_of_their_own_is_told_from_the_raters_forms(share: float) -> None:
    truth = [np.array([0.2, 1.0, -0.6]), np.array([-0.4, 0.9, -0.2]), np.array([0.5, 1.1, -0.8])]
    matrices = [rater_model.family(parameters, 6) for parameters in truth]
    margins = [P @ matrix for matrix in matrices]
    counts = [5000 * P[:, None] * ((1 - share) * m + share * q) for m, q in zip(matrices, margins, strict=True)]
    found, told = [rater_model.start()] * 3, 0.3
    for _ in range(5):
        found, told = rater_model.fit_flattened(counts, margins, told, found)
    assert told == pytest.approx(share, abs=0.05)
    for parameters, expected in zip(found, truth, strict=True):
        np.testing.assert_allclose(parameters, expected, atol=0.15)


def test_the_divergence_of_dirichlet_rows_is_that_of_draws_from_them() -> None:
    rng = np.random.default_rng(0)
    counts, prior = rng.uniform(1, 20, (3, 4)), rng.uniform(0.5, 8, (3, 4))
    total, error = 0.0, 0.0
    for row, before in zip(counts, prior, strict=True):
        draws = rng.dirichlet(row, 20_000).T
        differences = dirichlet.logpdf(draws, row) - dirichlet.logpdf(draws, before)
        total += differences.mean()
        error += differences.var() / 20_000
    assert joint._divergence(counts, prior) == pytest.approx(total, abs=5 * np.sqrt(error))
    assert joint._divergence(counts, counts) == pytest.approx(0, abs=1e-9)


def test_a_grade_tells_the_true_class_but_for_few_slips() -> None:
    found = joint.likelihood_of(np.array([2, -1, 0], np.int8), 4)
    np.testing.assert_allclose(found[0], [0.005 / 3, 0.005 / 3, 0.995, 0.005 / 3])
    np.testing.assert_allclose(found[1], 1)
    assert found[2].argmax() == 0
    np.testing.assert_allclose(joint.likelihood_of(np.array([0, -1], np.int8), 1), 1)


def a_point(rng: np.random.Generator, raters: int, classes: int = 3) -> Point:
    G, S = rng.dirichlet(np.ones(classes), classes), rng.dirichlet(np.ones(classes), classes)
    matrices = tuple(rng.dirichlet(np.ones(classes), classes) for _ in range(raters))
    return Point(0.3, True, 0.2, 0.0, matrices, matrices, G, S, 1.0)


@pytest.mark.parametrize("raters", [1, 3])
def test_the_posterior_is_a_sum_over_all_latent_classes(raters: int) -> None:
    rng = np.random.default_rng(raters)
    first, second = replace(a_point(rng, raters), weight=0.7), replace(a_point(rng, raters), weight=0.3)
    none = replace(a_point(rng, raters), weight=0.0)
    z, ratings = rng.dirichlet(np.ones(3), 40), rng.integers(-1, 3, (40, raters)).astype(np.int8)
    grades = np.where(np.arange(40) < 10, rng.integers(0, 3, 40), -1).astype(np.int8)
    seen = joint.likelihood_of(grades, 3)
    found = joint.posterior([first, second, none], z, ratings, grades)
    for x in range(40):
        one, other = (
            naive.posterior(z[x], ratings[x].tolist(), seen[x], point.G, point.S, list(point.T))
            for point in (first, second)
        )
        np.testing.assert_allclose(found[x], 0.7 * one + 0.3 * other, atol=1e-12)


@pytest.mark.parametrize("raters", [1, 2])
def test_the_evidence_rises_step_by_step(raters: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    true = rng.choice(6, 400, p=P)
    z = 0.8 * np.eye(6)[true] + 0.2 * P
    ratings = np.stack([draw_ratings(true, matrix, rng) for matrix in (T, SKEWED)[:raters]], 1).astype(np.int8)
    grades = np.where(np.arange(400) < 50, true, -1).astype(np.int8)
    # Below ten steps the form that is expected of raters stays as it is, and so the evidence is one function.
    found: dict[float, list[float]] = {}
    for steps in range(1, 10):
        monkeypatch.setattr(joint, "_STEPS", steps)
        for point in joint.fit(z, ratings, grades, P, (0.3,)):
            found.setdefault(point.shared, []).append(point.evidence)
    for values in found.values():
        assert len(values) == 9
        assert (np.diff(values) > -1e-6).all()
        assert values[-1] > values[0] + 1


def test_three_raters_whose_errors_are_independent_tell_their_matrices_and_the_own_share() -> None:
    rng, n = np.random.default_rng(5), 3000
    seen = rng.choice(6, n, p=P)
    z = 0.9 * np.eye(6)[seen] + 0.1 * P
    place = draw_ratings(seen, 0.9 * np.eye(6) + 0.1 * P, rng)
    true = np.where(rng.random(n) < 0.4, rng.choice(6, n, p=P), place)
    matrices = (T, SKEWED, MILD)
    ratings = np.stack([draw_ratings(true, matrix, rng) for matrix in matrices], 1).astype(np.int8)
    ratings[:300, 2] = -1
    points = joint.fit(z, ratings, np.full(n, -1, np.int8), P)
    assert sum(point.weight for point in points) == pytest.approx(1)
    assert [p.weight for p in points] == sorted((p.weight for p in points), reverse=True)
    best = points[0]
    for found, matrix in zip(best.T, matrices, strict=True):
        np.testing.assert_allclose(found.sum(1), 1)
        assert (P @ np.abs(found - matrix)).mean() < 0.04
    assert np.diag(best.G) @ P == pytest.approx(0.6 + 0.4 * (P**2).sum(), abs=0.06)
    right = joint.posterior(points, z, ratings).argmax(1) == true
    assert right.mean() > (np.round(ratings[:, :2].mean(1)) == true).mean() + 0.15


def test_a_fit_goes_on_from_where_it_was() -> None:
    rng = np.random.default_rng(6)
    true = rng.choice(6, 600, p=P)
    z, ratings = 0.8 * np.eye(6)[true] + 0.2 * P, draw_ratings(true, T, rng).astype(np.int8)[:, None]
    nothing = np.full(600, -1, np.int8)
    first = joint.fit(z, ratings, nothing, P)
    kept = [point for point in first if point.weight > 0]
    again = joint.fit(z, ratings, nothing, P, starts=kept)
    assert len(again) == len(kept) < len(first)
    assert {p.own_share for p in again} == {p.own_share for p in kept}
    np.testing.assert_allclose(again[0].T[0], first[0].T[0], atol=0.01)
    assert again[0].evidence >= first[0].evidence - 0.5


def test_what_surroundings_say_is_the_formula_of_the_model() -> None:
    pool, rng = make_pool(300, 16, seed=1, k=8), np.random.default_rng(0)
    ratings = np.stack([pool.scores, draw_ratings(pool.true, MILD, rng)], 1).astype(np.int8)
    ratings[:40] = -1
    ratings[100:160, 1] = -1
    symbols, codes = symbols_of(ratings)
    np.testing.assert_array_equal(symbols[codes], ratings)
    view = Neighborhoods(ratings.max(1), pool.indices, pool.distances, None)
    bins = surroundings.Bins(view, view.rows, 5)
    common, predicted = rng.dirichlet(np.ones(len(symbols))), rng.standard_normal(300)
    model = Surroundings(
        prior=P, near=(T, SKEWED), together=independent((T, SKEWED), symbols), own=MILD, symbols=symbols,
        common=common, margins=(P, P), margin=P,
        sharing=rng.random(bins.count), weight=0.6, centers=np.linspace(-1, 1, 6), width=0.7, regression_weight=1.3,
        k=5, bins=bins, own_share=0.3, families=(),
    )  # fmt: skip
    rows = np.arange(300)
    found, alone = (model.of(view, codes, rows, given) for given in (predicted, None))
    samples, distances = view.lists(rows, 5)
    places = bins.of(rows, samples, distances)
    shares = {tuple(symbol.tolist()): float(q) for symbol, q in zip(symbols, common, strict=True)}
    for x in range(0, 300, 7):
        near = [(places[x, j], ratings[samples[x, j]].tolist()) for j in range(5) if samples[x, j] >= 0]
        fixed = (near, predicted[x], [T, SKEWED], P, shares, model.sharing, 0.6, model.centers, 0.7)
        np.testing.assert_allclose(found[x], naive.surroundings(*fixed, 1.3), atol=1e-9)
        np.testing.assert_allclose(alone[x], naive.surroundings(*fixed, 0), atol=1e-9)


def independent(near: Sequence[np.ndarray], symbols: np.ndarray) -> np.ndarray:
    """(S, K) probability of each symbol given z, for raters that err independently."""
    found = np.ones((len(symbols), len(P)))
    for matrix, one in zip(near, symbols.T, strict=True):
        found *= np.where(one >= 0, matrix[:, one], 1).T
    return found


def fitted(ratings: np.ndarray, indices: np.ndarray, distances: np.ndarray) -> tuple[Neighborhoods, Surroundings]:
    given = ratings.reshape(len(ratings), -1).astype(np.int8)
    view = Neighborhoods(np.round(given.mean(1)).astype(np.int8), indices, distances, None)
    observed = surroundings.Observations(view, given, None, prior=P, k=32)
    return view, surroundings.fit(observed, view.rows, view.rows)


@pytest.mark.parametrize("copied", [0.0, 0.8])
def test_surroundings_know_whether_raters_err_independently(copied: float) -> None:
    """The share of neighbours that two raters rate differently, beside that of raters that err independently."""
    pool, rng = make_pool(3000, 64, seed=5), np.random.default_rng(1)
    other = np.where(rng.random(3000) < copied, pool.scores, draw_ratings(pool.true, T, rng))
    ratings = np.stack([pool.scores, other], 1)
    ratings[:200, 1] = -1
    _, model = fitted(ratings, pool.indices, pool.distances)
    both = (model.symbols >= 0).all(1)
    np.testing.assert_allclose(model.together[both].sum(0), 1, atol=0.02)  # some symbols do not occur
    np.testing.assert_allclose(model.together[~both].sum(0), 1, atol=0.02)
    differ = both & (model.symbols[:, 0] != model.symbols[:, 1])
    expected = independent(model.near, model.symbols)
    share = model.together[differ].sum(0) @ P / (expected[differ].sum(0) @ P)
    assert 0.9 < share < 1.1 if not copied else share < 0.85


def test_surroundings_tell_how_far_neighbours_share_a_class() -> None:
    """Clusters have about 20 members: near ones of 32 neighbours are of the same cluster, far ones are not."""
    pool = make_pool(1500, 64, seed=2)
    view, model = fitted(pool.scores, pool.indices, pool.distances)
    samples, distances = view.lists(view.rows)
    said = model.sharing[model.bins.of(view.rows, samples, distances)]
    alike = pool.true[samples] == pool.true[:, None]
    assert np.corrcoef(said.mean(0), alike.mean(0))[0, 1] > 0.95
    assert said[:, :5].mean() > said[:, -5:].mean() + 0.3
    assert model.gain > 5 * model.gain_error > 0
    z = model.of(view, symbols_of(pool.scores[:, None])[1], view.rows, None)
    assert (z.argmax(1) == pool.true).mean() > 0.85


def test_surroundings_that_say_nothing_gain_nothing() -> None:
    pool = make_pool(1000, 32, seed=3)
    for seed in range(3):
        ratings = np.random.default_rng(seed).choice(6, 1000, p=P)
        _, model = fitted(ratings, pool.indices, pool.distances)
        assert model.gain < 2.33 * model.gain_error


def test_neighbours_that_depend_on_each_other_count_less() -> None:
    # Scores change smoothly over a surface: neighbours agree because they lie on one side, not because of one truth.
    smooth, clusters = smooth_pool(1500, 2, 0), make_pool(1500, 64, seed=2)
    weights = [fitted(pool.scores, pool.indices, pool.distances)[1].weight for pool in (smooth, clusters)]
    assert weights[0] < 0.5 < weights[1]
