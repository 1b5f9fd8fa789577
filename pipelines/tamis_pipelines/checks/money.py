"""Checks that a run's budget covers the estimated cost."""

from __future__ import annotations

from collections.abc import Iterator

from tamis.core.errors import TamisError
from tamis_pipelines.budget import shares_of
from tamis_pipelines.checks.check import Check
from tamis_pipelines.settings import RunSettings

_WHERE = "budget.max_cost"


def money(settings: RunSettings) -> Iterator[Check]:
    """Compare the budget, if there is one, with the estimated cost of raters and judging."""
    if settings.budget is None:
        return
    try:
        estimate = sum(share.estimate for share in shares_of(settings))
    except TamisError as error:
        yield Check.refused(_WHERE, error)
        return
    most, currency = settings.budget.max_cost, settings.rates.currency
    seen = f"{most:,.2f} {currency}; raters and judging will cost about {estimate:,.2f} {currency}"
    if estimate <= most:
        yield Check(_WHERE, "ok", seen)
    else:
        action = "raise the budget, use fewer samples or prompts, or correct `rates`; `tamis plan` shows the shares"
        yield Check(_WHERE, "note", f"{seen}, which is {estimate - most:,.2f} more", action)
