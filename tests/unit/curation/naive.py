"""Plain, slow versions of what curation computes, to compare with."""

from __future__ import annotations

import math

import numpy as np


def consensus_by_draws(scores: np.ndarray, indices: np.ndarray, drawn: int, classes: int) -> tuple[np.ndarray, float]:
    """Expected consensus counts by listing every draw of `drawn` samples; for tiny pools.

    Only patterns whose two neighbours are in the graph's lists are counted; the second value is their share.
    """
    from itertools import combinations

    n = len(scores)
    c3, seen, total = np.zeros((classes,) * 3), 0, 0
    for draw in combinations(range(n), drawn):
        members = set(draw)
        for x in draw:
            total += 1
            kept = [j for j in indices[x] if j in members]
            if len(kept) >= 2:
                c3[scores[x], scores[kept[0]], scores[kept[1]]] += 1
                seen += 1
    return c3 / seen, seen / total


def em_step(patterns: np.ndarray, weights: np.ndarray, T: np.ndarray, p: np.ndarray) -> tuple:
    """One EM step of the mixture of multinomials, by loops: likelihood before it, T and p after it."""
    K = len(p)
    new_T, new_p, likelihood = np.zeros((K, K)), np.zeros(K), 0.0
    for pattern, weight in zip(patterns, weights, strict=True):
        joint = [p[i] * math.prod(T[i, c] ** pattern[c] for c in range(K)) for i in range(K)]
        total = sum(joint)
        likelihood += weight * math.log(total)
        for i in range(K):
            posterior = weight * joint[i] / total
            new_p[i] += posterior
            for c in range(K):
                new_T[i, c] += posterior * pattern[c]
    return likelihood, new_T / new_T.sum(1, keepdims=True), new_p


def em_climb(patterns: np.ndarray, weights: np.ndarray, T: np.ndarray, steps: int) -> tuple:
    """`steps` EM steps from T and a uniform prior."""
    p = np.full(len(T), 1 / len(T))
    for _ in range(steps):
        likelihood, T, p = em_step(patterns, weights, T, p)
    return likelihood, T, p


def surroundings(
    neighbors: list[tuple[int, list[int]]],
    predicted: float,
    near: list[np.ndarray],
    prior: np.ndarray,
    common: dict[tuple[int, ...], float],
    sharing: np.ndarray,
    weight: float,
    centers: np.ndarray,
    width: float,
    regression_weight: float,
) -> np.ndarray:
    """P(z | surroundings), written as the formula; neighbours are (bin, ratings of every rater, -1 for none)."""
    values = []
    for z in range(len(prior)):
        value = prior[z]
        for b, given in neighbors:
            alike = math.prod(N[z, c] for N, c in zip(near, given, strict=True) if c >= 0)
            value *= (sharing[b] * alike + (1 - sharing[b]) * common[tuple(given)]) ** weight
        value *= math.exp(-((predicted - centers[z]) ** 2) / (2 * width**2)) ** regression_weight
        values.append(value)
    return np.array(values) / sum(values)


def posterior(
    z: np.ndarray, given: list[int], grade: np.ndarray, G: np.ndarray, S: np.ndarray, T: list[np.ndarray]
) -> np.ndarray:
    """P(t | ratings, surroundings, grade), by a sum over all latent classes; a rating of -1 is none."""
    K = len(z)
    values = np.zeros(K)
    for c in range(K):
        for t in range(K):
            for u in range(K):
                ratings = math.prod(T[r][u, y] for r, y in enumerate(given) if y >= 0)
                values[t] += z[c] * G[c, t] * S[t, u] * ratings * grade[t]
    return values / values.sum()
