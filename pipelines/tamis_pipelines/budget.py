"""The budget of a run, divided among its raters and matches before it starts.

Each payer's share is in proportion to its estimated cost, and limits it like `max_cost`. Shares depend only on the
settings and the sources. The same settings give the same shares wherever and however often a run is started, so pods
need not communicate and no state is kept (docs/decisions/0022-the-budget-of-a-run.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pydantic import Field

from tamis.core.settings import Settings
from tamis.judging.settings import JudgingSettings, ServiceContestant
from tamis.llm.settings import BackendSettings
from tamis.rating.settings import AskedRater
from tamis_pipelines import costs
from tamis_pipelines.pool_size import counted

if TYPE_CHECKING:
    from tamis_pipelines.settings import RunSettings


class BudgetSettings(Settings):
    """What a whole run may cost."""

    max_cost: float = Field(
        gt=0,
        description="highest cost of all raters and all judging together, including answers of earlier runs, in the "
        "currency of their prices",
    )


@dataclass(frozen=True)
class Share:
    """A payer's part of the budget.

    Attributes:
        payer: "raters.NAME", or "judging.CELL".
        estimate: its cost at the rates, without any stored answers.
        own: its own `max_cost`, if it has one.
        money: what it may spend.
    """

    payer: str
    estimate: float
    own: float | None
    money: float = 0.0


def check_prices(settings: RunSettings) -> None:
    """Check that every service has a price if there is a budget, and that settings contain no shares of a budget.

    Raises:
        ValueError: naming the setting.
    """
    payers = {f"raters.{rater.name}": rater.budget_share for rater in _asked(settings)}
    payers |= {} if settings.judging is None else {"judging": settings.judging.budget_share}
    if given := [name for name, share in payers.items() if share is not None]:
        raise ValueError(
            f"{given[0]}.budget_share is for internal use; set `budget: {{max_cost: …}}` or max_cost instead"
        )
    if settings.budget is None:
        return
    services = {f"raters.{rater.name}.price": rater.price for rater in _asked(settings) if _is_paid(rater.backend)}
    if (judging := settings.judging) is not None:
        if _is_paid(judging.judge.backend):
            services["judging.price"] = judging.price
        opponents = {"judging.against": judging.against}
        opponents |= {f"judging.opponents.{name}": one for name, one in judging.opponents.items()}
        services |= {
            f"{name}.price": one.price for name, one in opponents.items() if isinstance(one, ServiceContestant)
        }
    if unknown := [name for name, price in services.items() if price is None]:
        raise ValueError(
            f"a budget needs the token price of each service; missing: {', '.join(unknown)}. A free service has the "
            "price {input: 0, output: 0}"
        )
    if not settings.rates.answer_tokens:
        raise ValueError("a budget needs rates.answer_tokens above 0, because it is divided by the estimated costs")


def shares_of(settings: RunSettings) -> list[Share]:
    """Return what each payer of a run may spend; nothing if the run has no budget.

    The shares add up to the budget, or to less if the payers' own limits are lower.

    Raises:
        SettingsError: when there are paid raters and the size of the pool is neither given nor known.
        InputError, StorageError: when the pool's files cannot be counted.
    """
    if settings.budget is None:
        return []
    payers = list(_payers(settings))
    return shared_out(settings.budget.max_cost, [payer for payer in payers if payer.estimate > 0])


def shared_out(money: float, payers: Sequence[Share]) -> list[Share]:
    """Divide `money` in proportion to the estimates; what exceeds a payer's own limit goes to the others."""
    limited: dict[str, float] = {}
    while True:
        open_ = [payer for payer in payers if payer.payer not in limited]
        left, whole = money - sum(limited.values()), sum(payer.estimate for payer in open_)
        part = {payer.payer: left * (payer.estimate / whole) for payer in open_}
        over = {payer.payer: payer.own for payer in open_ if payer.own is not None and payer.own < part[payer.payer]}
        if not over:
            return [replace(payer, money=(limited | part)[payer.payer]) for payer in payers]
        limited |= over


def highest_costs(settings: RunSettings) -> str:
    """Return what a run may spend on services, in words; empty if it asks no service."""
    currency = settings.rates.currency
    raters = {f"raters.{rater.name}": rater.max_cost for rater in _asked(settings) if _is_paid(rater.backend)}
    matches = [match.max_cost for match in _matches(settings) if _is_paid_match(match)]
    if not raters and not matches:
        return ""
    if settings.budget is not None:
        return f"at most {settings.budget.max_cost:,.2f} {currency} (budget)"
    limits = [f"at most {most:,.2f} {currency} for {name}" for name, most in raters.items() if most is not None]
    unlimited = [name for name, most in raters.items() if most is None]
    if matches and matches[0] is not None:
        whole = matches[0] * len(matches)
        limits.append(
            f"at most {whole:,.2f} {currency} for judging (max_cost {matches[0]:,.2f} for each of {len(matches)} cells)"
        )
    elif matches:
        unlimited.append("judging")
    return "; ".join([*limits, *([f"no limit for {', '.join(unlimited)}"] if unlimited else [])])


def by_payer(shares: Sequence[Share]) -> Mapping[str, float]:
    """Return the money by payer, as `RunSettings.arguments` takes it."""
    return {share.payer: share.money for share in shares}


def _asked(settings: RunSettings) -> list[AskedRater]:
    return [rater for rater in settings.raters if isinstance(rater, AskedRater)]


def _is_paid(backend: object) -> bool:
    return isinstance(backend, BackendSettings) and backend.PRICED


def _matches(settings: RunSettings) -> list[JudgingSettings]:
    """Return the judging of every trained cell."""
    judging = settings.judging
    return [judging.of(cell.finetuning.model) for cell in settings.cells if judging and cell.finetuning]


def _is_paid_match(match: JudgingSettings) -> bool:
    return _is_paid(match.judge.backend) or isinstance(match.against, ServiceContestant)


def _payers(settings: RunSettings) -> Iterator[Share]:
    """Yield every payer with its estimated cost."""
    rates, judging = settings.rates, settings.judging
    asked = [rater for rater in _asked(settings) if _is_paid(rater.backend)]
    matches = [cell for cell in settings.cells if judging is not None and cell.finetuning is not None]
    samples = counted(settings) if asked else 0
    for rater in asked:
        cost = rater.asked(samples) * costs.rating(rater, rater.backend, rates).price
        yield Share(f"raters.{rater.name}", cost, rater.max_cost)
    for cell in matches:
        assert judging is not None
        assert cell.finetuning is not None
        match = judging.of(cell.finetuning.model)
        each = 0.0
        if _is_paid(match.judge.backend):
            each += 2 * costs.verdict(match, match.judge.backend, rates).price
        if isinstance(match.against, ServiceContestant):  # each match counts its opponent's answers, even reused ones
            each += costs.answer(match.against, rates).price
        yield Share(f"judging.{cell.name}", costs.prompts_of(match, rates) * each, match.max_cost)
