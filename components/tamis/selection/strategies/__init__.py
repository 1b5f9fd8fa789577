"""The strategies by name. A new one is a file here, an entry in the list, and a name in `settings.StrategyName`."""

from __future__ import annotations

from tamis.core.errors import SettingsError
from tamis.selection.settings import Variant
from tamis.selection.strategies import alpagasus, deita, ds2, ds2_raw, full, knn, length, less, perplexity, random
from tamis.selection.strategies.base import Strategy

STRATEGIES: dict[str, Strategy] = {
    module.STRATEGY.name: module.STRATEGY
    for module in (full, random, length, perplexity, knn, less, alpagasus, deita, ds2_raw, ds2)
}
# As run in the DS2 paper's experiments, where that was not what had been published.
DS2_PAPER: dict[str, Strategy] = {
    "alpagasus": alpagasus.DS2_PAPER,
    "deita": deita.DS2_PAPER,
    "less": less.STRATEGY,  # it is the scores that differ: see `reading.read_scores`
}


def strategy_named(name: str, variant: Variant = "published") -> Strategy:
    """The strategy `name`.

    Raises:
        SettingsError: listing the known ones, or those that have such a variant.
    """
    if name not in STRATEGIES:
        raise SettingsError(f"unknown strategy '{name}'", allowed=", ".join(STRATEGIES))
    if variant == "published":
        return STRATEGIES[name]
    if name not in DS2_PAPER:
        raise SettingsError(
            f"variant: seen '{variant}' for the strategy {name}, which was run as published",
            allowed=", ".join(DS2_PAPER),
            action="leave variant out",
        )
    return DS2_PAPER[name]
