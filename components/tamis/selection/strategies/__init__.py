"""The strategies by name. A new one is a file here, an entry in the list, and a name in `settings.StrategyName`."""

from __future__ import annotations

from tamis.core.errors import SettingsError
from tamis.selection.strategies import alpagasus, ds2, ds2_raw, full, knn, length, random
from tamis.selection.strategies.base import Strategy

STRATEGIES: dict[str, Strategy] = {
    module.STRATEGY.name: module.STRATEGY for module in (full, random, length, knn, alpagasus, ds2_raw, ds2)
}


def strategy_named(name: str) -> Strategy:
    """The strategy `name`.

    Raises:
        SettingsError: listing the known ones.
    """
    if name not in STRATEGIES:
        raise SettingsError(f"unknown strategy '{name}'", allowed=", ".join(STRATEGIES))
    return STRATEGIES[name]
