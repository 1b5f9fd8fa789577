"""The prior for a rater: a transition matrix with few parameters.

T[i, j] = P(rated j | true i) (paper definition 3.1). A rater sees the true class i at b0 + b1 i on a line, with a
normal error of width s, and gives the class that contains this point; points beyond the ends are the lowest or the
highest class. Ratings far from the truth are rare, but never impossible. With few data a row of T stays near this
family; with many ratings it follows them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
_FLOOR = 0.004  # least probability of any rating
_CENTER, _WIDTH = np.array([0.0, 1.0, np.log(0.7)]), np.array([1.0, 0.15, 0.5])  # normal prior of (b0, b1, log s)
_START = np.array([0.0, 1.0, np.log(0.6)])
_STEPS = 6
_OFFSET = 2.0  # standard deviation of the prior of the logit of the own share


def start() -> NDArray[np.float64]:
    """(3,) initial parameters: b0 and b1 for no bias, and the logarithm of s."""
    return _START.copy()


def family(parameters: NDArray[np.float64], classes: int) -> Matrix:
    """The transition matrix (K, K) of `parameters` (3,): b0 at the middle class, b1, log s."""
    from scipy.special import ndtr

    middle = (classes - 1) / 2
    seen = parameters[0] + parameters[1] * (np.arange(classes) - middle) + middle
    edges = np.arange(classes - 1) + 0.5
    below = ndtr((edges - seen[:, None]) / np.exp(parameters[2]))
    full = np.hstack([np.zeros((classes, 1)), below, np.ones((classes, 1))])
    rows: Matrix = (1 - _FLOOR * classes) * np.diff(full, axis=1) + _FLOOR
    return rows


def log_prior(parameters: NDArray[np.float64]) -> float:
    """Logarithm of the prior density of `parameters` (3,), up to a constant."""
    return float(-0.5 * (((parameters - _CENTER) / _WIDTH) ** 2).sum())


def fit(counts: Matrix, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
    """The most probable parameters (3,) for `counts` (K, K), true classes in rows, starting from `parameters`."""
    found, _ = fit_flattened([counts], [np.zeros(len(counts))], None, [parameters])
    return found[0]


def fit_flattened(
    counts: Sequence[Matrix],
    margins: Sequence[NDArray[np.float64]],
    share: float | None,
    parameters: Sequence[NDArray[np.float64]],
) -> tuple[list[NDArray[np.float64]], float]:
    """The most probable parameters for counts whose rows are classes of neighbourhoods, not of the samples themselves.

    A share h of samples has a class of its own, and their ratings follow the margin q: row i is (1 - h) T_i + h q. All
    raters have the same h. Fitted by Gauss-Newton steps with halving, since the likelihood is smooth and there are few
    parameters.

    Args:
        counts: (K, K) counts of each rater.
        margins: (K,) margin q of each.
        share: initial h; None: h is fixed to 0.
        parameters: (3,) initial parameters of each rater.

    Returns:
        The parameters and h.
    """
    classes, raters = len(counts[0]), len(counts)
    free = share is not None
    place = np.concatenate([*parameters, [np.log(share / (1 - share))] if share is not None else []])
    center = np.concatenate([np.tile(_CENTER, raters), [0.0] if free else []])
    width = np.concatenate([np.tile(_WIDTH, raters), [_OFFSET] if free else []])

    def rows_of(at: NDArray[np.float64], r: int) -> Matrix:
        h = 1 / (1 + np.exp(-at[-1])) if free else 0.0
        rows: Matrix = (1 - h) * family(at[3 * r : 3 * r + 3], classes) + h * margins[r]
        return rows

    def loss(at: NDArray[np.float64]) -> float:
        fitted = sum(float((counts[r] * np.log(rows_of(at, r))).sum()) for r in range(raters))
        return -fitted + 0.5 * float((((at - center) / width) ** 2).sum())

    now = loss(place)
    for _ in range(_STEPS):
        base = [rows_of(place, r) for r in range(raters)]
        gradient, curvature = (place - center) / width**2, np.diag(1 / width**2)
        slopes = np.zeros((raters, len(place), classes * classes))  # of every rater's rows in every parameter
        for number in range(len(place)):
            step = place.copy()
            step[number] += 1e-4
            share_moves = free and number == len(place) - 1
            for r in range(raters) if share_moves else (number // 3,):
                slopes[r, number] = ((rows_of(step, r) - base[r]) / 1e-4).ravel()
        for r in range(raters):
            stack = slopes[r]
            ratio = (counts[r] / base[r]).ravel()
            gradient = gradient - stack @ ratio
            total = np.repeat(counts[r].sum(1), classes) / base[r].ravel()  # expected information
            curvature = curvature + (stack * total) @ stack.T
        move = -np.linalg.solve(curvature, gradient)
        for _ in range(8):
            trial = np.clip(place + move, center - 6 * width, center + 6 * width)
            after = loss(trial)
            if after < now:
                break
            move = move / 2
        else:
            break
        done = now - after < 1e-4 * (1 + abs(now) * 1e-3)
        place, now = trial, after
        if done:
            break
    found = float(np.clip(1 / (1 + np.exp(-place[-1])), 0.01, 0.97)) if free else 0.0
    return [place[3 * r : 3 * r + 3] for r in range(raters)], found


def rows_to_one(counts: Matrix) -> Matrix:
    """`counts` (…, K) with rows that sum to 1."""
    rows: Matrix = counts / counts.sum(-1, keepdims=True)
    return rows
