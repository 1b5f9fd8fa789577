"""The statistics of a comparison: verdicts in two orders become win, tie or lose, with confidence intervals.

Judges favour positions (often the first answer) and length. Every pair of answers is therefore shown in both orders,
and both biases are measured and reported with the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tamis.core.errors import InputError

Verdict = Literal["first", "second", "tie"]
_SEEN = {"first": 1, "tie": 0, "second": -1}
_RESAMPLES = 10_000
_BIASED = 0.1  # distance from one half beyond which a position bias causes a warning
_CELLS = 20_000_000  # numbers in one block of resampled prompts; bounds the memory


def outcomes(shown_first: Sequence[Verdict], shown_second: Sequence[Verdict]) -> NDArray[np.int8]:
    """Verdicts on the model, prompt by prompt.

    Args:
        shown_first: (n,) verdicts with the model's answer shown before its opponent's.
        shown_second: (n,) verdicts on the same prompts with the model's answer shown second.

    Returns:
        (n, 2) int8, a column per order: 1 if the model's answer was preferred, -1 if its opponent's was, 0 for a tie.

    Raises:
        InputError: when the lengths differ, or a verdict is unknown.
    """
    if len(shown_first) != len(shown_second):
        raise InputError(
            f"{len(shown_first)} prompts have verdicts in one order, and {len(shown_second)} in the other",
            action="leave out prompts that were judged in only one order, and count them",
        )
    if unknown := {*shown_first, *shown_second} - set(_SEEN):
        raise InputError(f"unknown verdict {sorted(unknown)[0]!r}", allowed=", ".join(_SEEN))
    pairs = [(_SEEN[one], -_SEEN[other]) for one, other in zip(shown_first, shown_second, strict=True)]
    return np.array(pairs, dtype=np.int8).reshape(-1, 2)


def results(seen: NDArray[np.int8]) -> NDArray[np.int8]:
    """(n,) int8: 1 win, 0 tie, -1 lose, from (n, 2) outcomes of both orders.

    Opposite verdicts are a tie, and so are two ties; with one tie, the other order's verdict counts. This is the rule
    of AlpaGasus; the paper does not state its own.
    """
    settled: NDArray[np.int8] = np.sign(seen.sum(axis=1, dtype=np.int8))
    return settled


@dataclass(frozen=True)
class Share:
    """A share of the prompts, 0 to 1 (a net share: -1 to 1), with its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """The result of a model against its opponent.

    Attributes:
        prompts: number of prompts judged in both orders.
        win, tie, lose: shares of these prompts; they sum to 1.
        net: win minus lose; 0 is even. The winning score of AlpaGasus is 1 higher.
        flips: share of prompts for which the two orders gave opposite winners.
        decided: number of verdicts with a winner; each prompt has two verdicts.
        first_preferred: share of these for the answer shown first; 0.5 is no bias. None if there are none.
        unequal: number of prompts with a winner and answers of different lengths.
        longer_wins: share of these that the longer answer won; 0.5 is no bias. None if there are none.
        length_correlation: Pearson correlation of the result with the logarithm of the ratio of lengths; None if either
            is constant.
        mean_lengths: mean length of the model's answers and of its opponent's, in the unit of the input.
    """

    prompts: int
    win: Share
    tie: Share
    lose: Share
    net: Share
    flips: float
    decided: int
    first_preferred: float | None
    unequal: int
    longer_wins: float | None
    length_correlation: float | None
    mean_lengths: tuple[float, float]


def compare(
    seen: NDArray[np.int8],
    lengths: NDArray[np.int64],
    *,
    confidence: float = 0.95,
    resamples: int = _RESAMPLES,
    seed: int = 42,
) -> Comparison:
    """Summarize a comparison.

    Args:
        seen: (n, 2) outcomes of both orders, as returned by `outcomes`.
        lengths: (n, 2) lengths of the model's answer and of its opponent's, in tokens or characters.
        confidence: level of the intervals, which are percentiles of a bootstrap over the prompts. For shares of 0 or 1,
            whose resamples are all equal, they reach to the exact limit (Clopper and Pearson).
        resamples: number of bootstrap samples.
        seed: seed of the bootstrap.

    Raises:
        InputError: when there are no prompts, or the shapes differ.
    """
    if seen.shape != lengths.shape or seen.ndim != 2 or seen.shape[1] != 2 or not len(seen):
        raise InputError(
            f"outcomes have the shape {seen.shape}, lengths have {lengths.shape}",
            allowed="two arrays of shape (n, 2), n at least 1",
        )
    result = results(seen)
    won, lost = (result == 1).astype(np.float64), (result == -1).astype(np.float64)
    draws = _resampled_means(np.stack([won, 1 - won - lost, lost, won - lost], axis=1), resamples, seed)
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
    values = np.array([won.mean(), np.mean(result == 0), lost.mean(), won.mean() - lost.mean()])
    unseen = 1 - tail ** (1 / len(seen))  # a share of this size would stay unseen with the probability of one tail
    shares = values[:3]
    high[:3] = np.where(shares == 0, unseen, high[:3])
    low[:3] = np.where(shares == 1, 1 - unseen, low[:3])
    if shares.max() == 1:
        spread = unseen if shares[1] == 1 else 2 * unseen
        low[3], high[3] = max(-1, values[3] - spread), min(1, values[3] + spread)
    win, tie, lose, net = (Share(float(value), float(low[i]), float(high[i])) for i, value in enumerate(values))
    longer = np.sign(lengths[:, 0] - lengths[:, 1])
    unequal = (result != 0) & (longer != 0)
    return Comparison(
        prompts=len(seen),
        win=win,
        tie=tie,
        lose=lose,
        net=net,
        flips=float(np.mean(seen[:, 0] * seen[:, 1] == -1)),
        decided=int(np.count_nonzero(seen)),
        first_preferred=_first_preferred(seen),
        unequal=int(unequal.sum()),
        longer_wins=float(np.mean((result == longer)[unequal])) if unequal.any() else None,
        length_correlation=_length_correlation(result, lengths),
        mean_lengths=(float(lengths[:, 0].mean()), float(lengths[:, 1].mean())),
    )


def stands_out(share: float, n: int) -> bool:
    """Whether a share is far from one half, and by more than two standard errors of `n` draws."""
    return abs(share - 0.5) > max(_BIASED, 1 / sqrt(n))


def _resampled_means(values: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """(resamples, columns) means over the rows of (n, columns) `values`, n drawn with replacement each time."""
    generator, n = np.random.default_rng(seed), len(values)
    means = np.empty((resamples, values.shape[1]))
    block = max(1, _CELLS // n)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        # Count how often each row is drawn: one product then gives the sums of all columns.
        drawn = generator.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        means[start : start + size] = counts @ values / n
    return means


def _first_preferred(seen: NDArray[np.int8]) -> float | None:
    decided = int(np.count_nonzero(seen))
    first = int(np.count_nonzero(seen[:, 0] == 1) + np.count_nonzero(seen[:, 1] == -1))
    return first / decided if decided else None


def _length_correlation(result: NDArray[np.int8], lengths: NDArray[np.int64]) -> float | None:
    ratio = np.log((lengths[:, 0] + 1) / (lengths[:, 1] + 1))  # avoids log(0) for empty answers
    if np.ptp(result) == 0 or np.ptp(ratio) == 0:
        return None
    return float(np.corrcoef(result, ratio)[0, 1])
