"""Whether the budget of a run is enough by the estimate."""

from __future__ import annotations

from collections.abc import Iterator

from tamis.core.errors import TamisError
from tamis_pipelines.budget import shares_of
from tamis_pipelines.checks.check import Check
from tamis_pipelines.settings import RunSettings

_WHERE = "budget.max_cost"


def money(settings: RunSettings) -> Iterator[Check]:
    """The budget, if there is one, against what raters and judging cost at the rates."""
    if settings.budget is None:
        return
    try:
        estimate = sum(share.estimate for share in shares_of(settings))
    except TamisError as error:
        yield Check.refused(_WHERE, error)
        return
    most, currency = settings.budget.max_cost, settings.rates.currency
    seen = f"{most:,.2f} {currency}; raters and judging are estimated to cost {estimate:,.2f}"
    if estimate <= most:
        yield Check(_WHERE, "ok", seen)
    else:
        action = "raise it, ask about fewer samples or prompts, or correct `rates`; `tamis plan` shows the shares"
        yield Check(_WHERE, "note", f"{seen}, {estimate - most:,.2f} more", action)
