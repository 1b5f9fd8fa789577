"""Transition matrix as in the paper's code: gradient descent on the consensus counts (paper section 3.2)."""

from __future__ import annotations

import numpy as np

from tamis.curation.consensus import Consensus
from tamis.curation.transition import Matrix

STEPS, RATE = 1501, 0.1
_WARM_UP = 5  # steps before the best fit is looked for
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8  # of Adam


def solve(
    counts: Consensus, rng: np.random.Generator, *, steps: int = STEPS, keep_best: bool = True
) -> tuple[Matrix, Matrix, float]:
    """T and p that minimise |c1 - ^c1| + |c2 - ^c2| + |c3 - ^c3| (Euclidean norms, not squared), by Adam on logits.

    Args:
        counts: consensus frequencies ^c1, ^c2, ^c3.
        rng: draws the starting prior.
        steps: Adam steps, at a rate of 0.1.
        keep_best: return the step with the smallest loss; otherwise the last one, as the reference code does in effect.

    Returns:
        T (K, K), p (K,) and their loss.
    """
    classes = len(counts.c1)
    logits = np.concatenate([(5 * np.eye(classes) - 1).ravel(), 1 / classes + 0.1 * rng.random(classes)])
    first, second = np.zeros_like(logits), np.zeros_like(logits)
    best, found = np.inf, logits
    for step in range(1, steps + 1):
        loss, slope = _loss(logits, counts, classes)
        if not keep_best or (step > _WARM_UP and loss < best):
            best, found = loss, logits
        first = _BETA1 * first + (1 - _BETA1) * slope
        second = _BETA2 * second + (1 - _BETA2) * slope**2
        rate = RATE / (1 - _BETA1**step)
        logits = logits - rate * first / (np.sqrt(second / (1 - _BETA2**step)) + _EPSILON)
    T, p = _decoded(found, classes)
    return T, p, float(best)


def _decoded(logits: Matrix, classes: int) -> tuple[Matrix, Matrix]:
    rows = _softmax(logits[: classes**2].reshape(classes, classes))
    return rows, _softmax(logits[None, classes**2 :])[0]


def _softmax(rows: Matrix) -> Matrix:
    powers = np.exp(rows - rows.max(1, keepdims=True))
    shares: Matrix = powers / powers.sum(1, keepdims=True)
    return shares


def _loss(logits: Matrix, counts: Consensus, classes: int) -> tuple[float, Matrix]:
    """The loss and its gradient with respect to the logits."""
    T, p = _decoded(logits, classes)
    pairs = (T[:, :, None] * T[:, None, :]).reshape(classes, -1)  # row i: T_ia T_ib
    weighted = T * p[:, None]
    off1, off2, off3 = (
        p @ T - counts.c1,
        weighted.T @ T - counts.c2,
        weighted.T @ pairs - counts.c3.reshape(classes, -1),
    )
    norms = [float(np.linalg.norm(off)) for off in (off1, off2, off3)]
    g1, g2, g3 = (off / max(norm, 1e-12) for off, norm in zip((off1, off2, off3), norms, strict=True))
    cube = g3.reshape(classes, classes, classes)
    turned = cube + cube.transpose(1, 0, 2) + cube.transpose(2, 0, 1)
    slope_T = p[:, None] * (g1 + T @ (g2 + g2.T) + pairs @ turned.reshape(classes, -1).T)
    slope_p = T @ g1 + ((T @ g2) * T).sum(1) + ((pairs @ g3.T) * T).sum(1)
    rows = T * (slope_T - (slope_T * T).sum(1, keepdims=True))
    return sum(norms), np.concatenate([rows.ravel(), p * (slope_p - slope_p @ p)])
