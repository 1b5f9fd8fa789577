"""The strategies by name. A new one is a file here, or in another package an entry point of "tamis.strategies"."""

from __future__ import annotations

from tamis.core.errors import SettingsError
from tamis.core.registry import Registry
from tamis.selection.strategies.base import RankBy, Strategy, Variant

STRATEGIES: Registry[Strategy] = Registry(
    __name__, "STRATEGY", "tamis.strategies", Strategy, name_of=lambda strategy: strategy.name
)


def varied() -> list[str]:
    """Names of the strategies that have a variant "ds2-paper"."""
    return [name for name, strategy in STRATEGIES.items() if strategy.ds2_paper]


def with_means() -> list[str]:
    """Names of the strategies that can rank by posterior means."""
    return [name for name, strategy in STRATEGIES.items() if strategy.by_mean]


def strategy_named(name: str, variant: Variant = "published", rank_by: RankBy = "class") -> Strategy:
    """The strategy `name`.

    Raises:
        SettingsError: listing the known ones, or those that have such a variant or ranking.
    """
    if name not in STRATEGIES:
        raise SettingsError(f"unknown strategy '{name}'", allowed=", ".join(STRATEGIES))
    strategy = STRATEGIES[name]
    if rank_by == "mean":
        if strategy.by_mean is None or variant != "published":
            raise SettingsError(
                f"rank_by: seen 'mean' for the strategy {name}, {variant}",
                allowed=f"{', '.join(with_means())}, published",
                action="leave rank_by out",
            )
        return strategy.by_mean
    if variant == "published":
        return strategy
    if strategy.ds2_paper is None:
        raise SettingsError(
            f"variant: seen '{variant}' for the strategy {name}, which was run as published",
            allowed=", ".join(varied()),
            action="leave variant out",
        )
    return strategy.ds2_paper
