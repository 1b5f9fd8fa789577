"""How many samples a pool will have, by its sources alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tamis.core.errors import InputError, SettingsError
from tamis.core.storage import is_remote
from tamis.pool.settings import PoolSettings, Source
from tamis.pool.sources import count_rows, recipe_of

if TYPE_CHECKING:
    from tamis_pipelines.settings import RunSettings

LARGE = 1 << 28  # bytes of files that are not read before a run


def counted(settings: RunSettings) -> int:
    """Samples at most: as the settings say (`rates.samples`), else the rows of all sources.

    Raises:
        SettingsError: when it is neither said nor known.
        InputError: when a file cannot be read, or the sources have no rows.
        StorageError: when there is none.
    """
    if settings.rates.samples is not None:
        return settings.rates.samples
    counts = {source.name: _rows(source, settings.pool) for source in settings.pool.sources}
    if unknown := [name for name, count in counts.items() if count is None]:
        raise SettingsError(
            f"how many samples the sources {', '.join(unknown)} have is not known before the pool is assembled",
            action="say how many the pool will have: --set rates.samples=50000",
        )
    if not (total := sum(count for count in counts.values() if count is not None)):
        raise InputError(
            f"the pool is empty: the sources {', '.join(counts)} have no rows",
            action="check the sources; or say how many samples the pool will have: --set rates.samples=50000",
        )
    return total


def is_counted(source: Source) -> bool:
    """Whether the rows of a source can be counted on this machine."""
    return source.path is not None and not is_remote(source.path)


def _rows(source: Source, settings: PoolSettings) -> int | None:
    """Samples that a source gives at most, where that is known without a network."""
    whole = None
    if source.recipe is not None:
        recipe = recipe_of(source.recipe)
        # A recipe's own limit, which its number of samples follows, gives way to the user's.
        whole = None if {"limit"} <= recipe.source.keys() & source.model_fields_set else recipe.samples
    if source.path is not None and not is_remote(source.path):
        whole = count_rows(source.path, settings)
    counts = [count for count in (whole, source.limit) if count is not None]
    return min(counts) if counts else None
