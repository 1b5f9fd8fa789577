"""The strategies by name. To add one, put a file here, or declare an entry point "tamis.strategies" in a package."""

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
        SettingsError: when the strategy is unknown, or does not have this variant or ranking.
    """
    if name not in STRATEGIES:
        raise SettingsError(f"unknown strategy '{name}'", allowed=", ".join(STRATEGIES))
    strategy = STRATEGIES[name]
    if rank_by == "mean":
        if strategy.by_mean is None or variant != "published":
            raise SettingsError(
                f"rank_by is 'mean' for the strategy {name}, variant {variant}",
                allowed=f"{', '.join(with_means())}, variant published",
                action="omit rank_by",
            )
        return strategy.by_mean
    if variant == "published":
        return strategy
    if strategy.ds2_paper is None:
        raise SettingsError(
            f"variant is '{variant}', but the DS2 paper ran the strategy {name} as published",
            allowed=f"with {', '.join(varied())}",
            action="omit variant",
        )
    return strategy.ds2_paper
