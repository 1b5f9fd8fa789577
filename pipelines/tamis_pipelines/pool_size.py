"""How many samples a pool will have, estimated from its sources alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tamis.core.errors import InputError, SettingsError
from tamis.core.storage import is_remote
from tamis.pool.settings import PoolSettings, Source
from tamis.pool.sources import count_rows, recipe_of

if TYPE_CHECKING:
    from tamis_pipelines.settings import RunSettings

LARGE = 1 << 28  # larger files, in bytes, are not read before a run


def counted(settings: RunSettings) -> int:
    """Return the largest possible number of samples: `rates.samples`, otherwise the rows of all sources.

    Raises:
        SettingsError: when it is neither given nor known.
        InputError: when a file cannot be read, or the sources have no rows.
        StorageError: when there is no file.
    """
    if settings.rates.samples is not None:
        return settings.rates.samples
    counts = {source.name: _rows(source, settings.pool) for source in settings.pool.sources}
    if unknown := [name for name, count in counts.items() if count is None]:
        raise SettingsError(
            f"the size of these sources is not known before the pool is made: {', '.join(unknown)}",
            action="give the number of samples in the pool, for example --set rates.samples=50000",
        )
    if not (total := sum(count for count in counts.values() if count is not None)):
        raise InputError(
            f"the pool is empty: the sources {', '.join(counts)} have no rows",
            action="check the sources, or give the number of samples in the pool, for example "
            "--set rates.samples=50000",
        )
    return total


def is_counted(source: Source) -> bool:
    """Return whether the rows of a source can be counted on this machine."""
    return source.path is not None and not is_remote(source.path)


def _rows(source: Source, settings: PoolSettings) -> int | None:
    """Return the largest number of samples that a source gives, if it is known without a network."""
    whole = None
    if source.recipe is not None:
        recipe = recipe_of(source.recipe)
        # A recipe's number of samples includes its own limit, so it does not apply if the user sets another limit.
        whole = None if {"limit"} <= recipe.source.keys() & source.model_fields_set else recipe.samples
    if source.path is not None and not is_remote(source.path):
        whole = count_rows(source.path, settings)
    counts = [count for count in (whole, source.limit) if count is not None]
    return min(counts) if counts else None
