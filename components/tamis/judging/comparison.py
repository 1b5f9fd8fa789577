"""The arithmetic of a comparison: what a judge said in two orders becomes win, tie or lose, and how sure that is.

A judge favours places (often the first answer) and length. So every pair of answers is shown in both orders, and what
is left of both biases is measured beside the result.
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
_BIASED = 0.1  # from a half, beyond which a judge's liking for a place is warned of
_CELLS = 20_000_000  # of one block of resampled prompts: bounds the memory


def outcomes(shown_first: Sequence[Verdict], shown_second: Sequence[Verdict]) -> NDArray[np.int8]:
    """What the judge said of the model, prompt by prompt.

    Args:
        shown_first: (n,) verdicts where the model's answer was shown before its opponent's.
        shown_second: (n,) verdicts on the same prompts where it was shown after it.

    Returns:
        (n, 2): 1 where the model's answer was preferred, -1 where its opponent's was, 0 for a tie; a column per order.

    Raises:
        InputError: when the two do not pair up, or a verdict is unknown.
    """
    if len(shown_first) != len(shown_second):
        raise InputError(
            f"verdicts of one order for {len(shown_first)} prompts, of the other for {len(shown_second)}",
            action="leave out prompts that were judged in one order only, and count them",
        )
    if unknown := {*shown_first, *shown_second} - set(_SEEN):
        raise InputError(f"a verdict is {sorted(unknown)[0]!r}", allowed=", ".join(_SEEN))
    pairs = [(_SEEN[one], -_SEEN[other]) for one, other in zip(shown_first, shown_second, strict=True)]
    return np.array(pairs, dtype=np.int8).reshape(-1, 2)


def results(seen: NDArray[np.int8]) -> NDArray[np.int8]:
    """(n,) 1 win, 0 tie, -1 lose from (n, 2) outcomes of both orders.

    Opposite verdicts are a tie, and so are two ties; one tie leaves the other order's verdict. That is AlpaGasus' rule;
    the paper does not tell its own.
    """
    settled: NDArray[np.int8] = np.sign(seen.sum(axis=1, dtype=np.int8))
    return settled


@dataclass(frozen=True)
class Share:
    """A share of the prompts, 0 to 1 (a net share: -1 to 1), with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """How a model did against its opponent.

    Attributes:
        prompts: how many were judged in both orders.
        win, tie, lose: shares of them; they sum to 1.
        net: win minus lose; 0 is even. The winning score of AlpaGasus is 1 more.
        flips: share of the prompts on which the two orders gave opposite winners.
        decided: verdicts with a winner, of two for each prompt.
        first_preferred: share of them that went to the answer shown first; 0.5 is no bias. None when there are none.
        unequal: prompts with a winner, and answers of different lengths.
        longer_wins: share of them that the longer answer won; 0.5 is no bias. None when there are none.
        length_correlation: Pearson correlation of the result with the logarithm of the lengths' ratio; None when either
            does not vary.
        mean_lengths: mean length of the model's answers and of its opponent's, in the unit that was given.
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
    """Sum up a comparison.

    Args:
        seen: (n, 2) outcomes of both orders, as `outcomes` gives them.
        lengths: (n, 2) lengths of the model's answer and of its opponent's, in tokens or characters.
        confidence: of the intervals, which are percentiles of a bootstrap over the prompts. Of a share of none or of
            all, of which every resample is alike, they reach to the exact limit (Clopper and Pearson).
        resamples: draws of the bootstrap.
        seed: of the bootstrap.

    Raises:
        InputError: when there is no prompt, or the shapes differ.
    """
    if seen.shape != lengths.shape or seen.ndim != 2 or seen.shape[1] != 2 or not len(seen):
        raise InputError(
            f"outcomes of shape {seen.shape} with lengths of shape {lengths.shape}",
            allowed="two arrays of shape (n, 2), n at least 1",
        )
    result = results(seen)
    won, lost = (result == 1).astype(np.float64), (result == -1).astype(np.float64)
    draws = _resampled_means(np.stack([won, 1 - won - lost, lost, won - lost], axis=1), resamples, seed)
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
    values = np.array([won.mean(), np.mean(result == 0), lost.mean(), won.mean() - lost.mean()])
    unseen = 1 - tail ** (1 / len(seen))  # a share this large would stay unseen this rarely
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
    """Whether a share is far from a half, and by more than two standard errors of `n` draws."""
    return abs(share - 0.5) > max(_BIASED, 1 / sqrt(n))


def _resampled_means(values: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """(resamples, columns) means over the rows of (n, columns) `values`, n drawn with replacement each time."""
    generator, n = np.random.default_rng(seed), len(values)
    means = np.empty((resamples, values.shape[1]))
    block = max(1, _CELLS // n)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        # How often each row is drawn, instead of the rows: one product gives the sums of all columns.
        drawn = generator.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        means[start : start + size] = counts @ values / n
    return means


def _first_preferred(seen: NDArray[np.int8]) -> float | None:
    decided = int(np.count_nonzero(seen))
    first = int(np.count_nonzero(seen[:, 0] == 1) + np.count_nonzero(seen[:, 1] == -1))
    return first / decided if decided else None


def _length_correlation(result: NDArray[np.int8], lengths: NDArray[np.int64]) -> float | None:
    ratio = np.log((lengths[:, 0] + 1) / (lengths[:, 1] + 1))  # an empty answer has a length too
    if np.ptp(result) == 0 or np.ptp(ratio) == 0:
        return None
    return float(np.corrcoef(result, ratio)[0, 1])
