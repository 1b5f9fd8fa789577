"""The strategies by name. A new one is a file here, an entry in the list, and a name in `settings.StrategyName`."""

from __future__ import annotations

from tamis.core.errors import SettingsError
from tamis.selection.settings import RankBy, Variant
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
# By real-valued scores, where the published order is by score classes.
BY_MEAN: dict[str, Strategy] = {"ds2": ds2.BY_MEAN}


def strategy_named(name: str, variant: Variant = "published", rank_by: RankBy = "class") -> Strategy:
    """The strategy `name`.

    Raises:
        SettingsError: listing the known ones, or those that have such a variant or ranking.
    """
    if name not in STRATEGIES:
        raise SettingsError(f"unknown strategy '{name}'", allowed=", ".join(STRATEGIES))
    if rank_by == "mean":
        if name not in BY_MEAN or variant != "published":
            raise SettingsError(
                f"rank_by: seen 'mean' for the strategy {name}, {variant}",
                allowed=f"{', '.join(BY_MEAN)}, published",
                action="leave rank_by out",
            )
        return BY_MEAN[name]
    if variant == "published":
        return STRATEGIES[name]
    if name not in DS2_PAPER:
        raise SettingsError(
            f"variant: seen '{variant}' for the strategy {name}, which was run as published",
            allowed=", ".join(DS2_PAPER),
            action="leave variant out",
        )
    return DS2_PAPER[name]
