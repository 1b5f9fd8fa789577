"""Choosing a subset: eligibility, quotas of sources, the strategy's pick, and a record of all three."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.core.errors import InputError
from tamis.core.ids import tie_breaks
from tamis.selection.candidates import Candidates, Column
from tamis.selection.ranking import highest, ranked
from tamis.selection.strategies import strategy_named
from tamis.selection.strategies.base import Strategy

MISSED = 10  # samples listed that were just missed
_UNKNOWN: dict[Column, str] = {
    "raw_scores": "unrated",
    "scores": "unrated",
    "means": "unrated",
    "distances": "not in the graph",
    "model_scores": "without a score",
    "embedded": "not in the embeddings",
}


@dataclass(frozen=True)
class Choice:
    """A subset and how it was chosen.

    Attributes:
        rows: (m,) rows of the candidates, the first picked first.
        eligible: number of samples that could have been picked.
        not_eligible: number of samples that could not be picked, by reason; each sample is counted once.
        missed: (at most `MISSED`,) rows of the highest-ranked eligible samples that were not picked, the best first.
            Some may rank above picked samples: a quota, or a strategy that compares candidates with picked samples, can
            skip them.
        thresholds: one entry for each group that was picked from separately (the pool, or a source with a quota): its
            `sources` (None: all without a quota), the lowest picked `score`, and how many eligible samples with that
            score were `picked` and how many were not (`cut`). Empty for strategies without a score.
    """

    rows: NDArray[np.int64]
    missed: NDArray[np.int64]
    eligible: int
    not_eligible: dict[str, int]
    thresholds: list[dict[str, Any]]


def score_column(strategy: Strategy) -> Column:
    """The score classes that belong to a strategy: those that it ranks by, otherwise the curated ones."""
    return "raw_scores" if strategy.score == "raw_scores" else "scores"


def choose(
    strategy: str | Strategy,
    candidates: Candidates,
    size: int | float | None,
    *,
    seed: int,
    barred: Mapping[str, NDArray[np.bool_]] | None = None,
    min_score: int | None = None,
    quotas: Mapping[str, int | float] | None = None,
) -> Choice:
    """Choose exactly `size` of the n candidates.

    The result depends on the known facts about each sample, not on the order of the rows.

    Args:
        strategy: the strategy, or its name as in `strategies.STRATEGIES`.
        candidates: all samples, with the columns that the strategy needs.
        size: a number, or a share of n below 1, rounded; None takes all eligible samples.
        seed: seed of random choices and of the order of samples that rank equally.
        barred: masks (n,) of samples that must not be picked, by reason; a sample counts under the first that applies.
        min_score: the lowest score class that may be picked; classes as in `score_column`.
        quotas: for some sources, how many samples come from each: a number, or a share of the size below 1. The other
            sources supply the rest.

    Raises:
        InputError: when too few samples can be picked, a quota names an unknown source, quotas exceed the size, or the
            size is not positive.
        SettingsError: when the strategy is unknown.
    """
    chooser = strategy_named(strategy) if isinstance(strategy, str) else strategy
    if size is not None and not size > 0:
        raise InputError(f"size is {size}", allowed="a number of samples, or a share of the pool below 1")
    masks = masks_of(chooser, candidates, barred or {}, min_score)
    reasons = np.full(len(candidates), len(masks), np.int8)  # the first that applies; len(masks): eligible
    for number, mask in reversed(list(enumerate(masks.values()))):
        reasons[mask] = number
    eligible = reasons == len(masks)
    total = number_of(size, len(candidates)) if size is not None else max(1, int(eligible.sum()))

    ties = tie_breaks(candidates.ids, seed, salt=chooser.name)
    picked, thresholds = [], []
    for sources, members, wanted in groups_of(candidates, quotas or {}, total):
        rows = np.flatnonzero(eligible & members)
        offered = candidates.take(rows)
        taken = chooser.pick(offered, ties[rows], min(wanted, len(rows)))
        if len(taken) < wanted:
            place = f"source '{sources[0]}'" if sources else "the sources without a quota" if quotas else "the pool"
            why = _counts(reasons[members], list(masks))
            asked = f"the strategy {chooser.name} cannot pick {wanted:,} sample{'s' * (wanted != 1)} from {place}"
            raise _too_few(asked, len(taken), len(rows), why)
        picked.append(rows[taken])
        if chooser.score is not None and wanted:
            thresholds.append({"sources": sources} | _threshold(offered.column(chooser.score), taken))
    rows = np.concatenate(picked)
    left = eligible.copy()
    left[rows] = False
    missed = np.flatnonzero(left)
    keys = [candidates.column(name) for name in chooser.order]
    missed = missed[highest([key[missed] for key in keys], ties[missed], min(MISSED, len(missed)))]
    return Choice(
        rows[ranked([key[rows] for key in keys], ties[rows])],
        missed[ranked([key[missed] for key in keys], ties[missed])],
        int(eligible.sum()),
        _counts(reasons, list(masks)),
        thresholds,
    )


def masks_of(
    chooser: Strategy, candidates: Candidates, barred: Mapping[str, NDArray[np.bool_]], min_score: int | None
) -> dict[str, NDArray[np.bool_]]:
    """Masks (n,) of the samples that must not be picked, by reason; for the arguments see `choose`."""
    masks = dict(barred)
    unknown: list[Column] = [*chooser.order, *chooser.needs]
    if min_score is not None:
        unknown.append(score_column(chooser))
    for name in unknown:
        reason = _UNKNOWN.get(name, f"without {name}")
        masks[reason] = ~candidates.known(name) | masks.get(reason, False)
    if min_score is not None:
        masks[f"score below {min_score}"] = candidates.column(score_column(chooser)) < min_score
    return masks


def _counts(reasons: NDArray[np.int8], names: list[str]) -> dict[str, int]:
    counts = np.bincount(reasons, minlength=len(names) + 1)
    return {name: int(count) for name, count in zip(names, counts, strict=False) if count}


def number_of(amount: int | float, whole: int) -> int:
    """An amount as a number of samples; a share of `whole` is rounded, to at least 1."""
    return int(amount) if amount >= 1 else max(1, int(amount * whole + 0.5))


def groups_of(
    candidates: Candidates, quotas: Mapping[str, int | float], total: int
) -> list[tuple[list[str] | None, NDArray[np.bool_], int]]:
    """The groups that are picked from separately: names of sources (None: all others), a mask (n,), how many to pick.

    Raises:
        InputError: when a quota names an unknown source, or quotas exceed the total.
    """
    names = candidates.source_names
    missing = [name for name in quotas if name not in names]
    if missing:
        raise InputError(
            f"sources: the pool has no source '{missing[0]}'",
            allowed=", ".join(sorted(names)),
            action="correct the name",
        )
    numbers = numbers_of(quotas, total)
    left = total - sum(numbers.values())
    if left < 0:
        raise InputError(
            f"sources: the quotas add up to {sum(numbers.values()):,} samples, but the subset has {total:,}",
            allowed="quotas that add up to at most the size",
            action="lower a quota, or raise the size",
        )
    codes = [names.index(name) for name in quotas]
    groups: list[tuple[list[str] | None, NDArray[np.bool_], int]] = [
        ([name], candidates.sources == code, numbers[name]) for name, code in zip(quotas, codes, strict=True)
    ]
    if left:
        groups.append((None, ~np.isin(candidates.sources, codes), left))
    return groups


def numbers_of(quotas: Mapping[str, int | float], total: int) -> dict[str, int]:
    """Quotas as numbers of samples. Shares are rounded by largest remainder, so that their sum is the rounded sum."""
    numbers = {name: int(quota) for name, quota in quotas.items() if quota >= 1}
    # Rounded to nine digits, so that floating-point errors do not decide between equal remainders.
    exact = {name: round(quota * total, 9) for name, quota in quotas.items() if quota < 1}
    floors = {name: int(value) for name, value in exact.items()}
    spare = int(round(sum(exact.values()), 9) + 0.5) - sum(floors.values())
    by_remainder = sorted(exact, key=lambda name: (round(floors[name] - exact[name], 9), name))
    return numbers | {name: floors[name] + (name in by_remainder[:spare]) for name in exact}


def _threshold(scores: NDArray[Any], taken: NDArray[np.int64]) -> dict[str, Any]:
    lowest = scores[taken].min()
    picked = int(np.count_nonzero(scores[taken] == lowest))
    return {"score": float(lowest), "picked": picked, "cut": int(np.count_nonzero(scores == lowest)) - picked}


def _too_few(asked: str, found: int, eligible: int, reasons: dict[str, int]) -> InputError:
    why = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
    short = f", and the strategy accepts {found:,} of them" if found < eligible else ""
    whole = eligible + sum(reasons.values())
    return InputError(
        f"{asked}: {eligible:,} of {whole:,} are eligible{short}{f'; ineligible: {why}' if why else ''}",
        allowed=f"at most {found:,}",
        action="request fewer samples, rate more samples, or relax exclude, min_score or sources",
    )
