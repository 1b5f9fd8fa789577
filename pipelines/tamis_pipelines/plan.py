"""What a run would do, what of it is there, and what the rest takes: at stated rates, and on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from tamis.core.artifacts import manifest_of
from tamis.core.errors import InputError, SettingsError
from tamis.core.storage import is_remote
from tamis.pool.saved import is_saved
from tamis.pool.settings import PoolSettings, Source
from tamis.pool.sources import count_rows, files_at, recipe_of
from tamis_pipelines.plan_lines import Line, Planner
from tamis_pipelines.rates import RatesSettings, UsedRates
from tamis_pipelines.results import Results
from tamis_pipelines.reuse import Reuse
from tamis_pipelines.speeds import Speeds

if TYPE_CHECKING:
    from tamis_pipelines.experiment import Cell
    from tamis_pipelines.settings import RunSettings


@dataclass(frozen=True)
class Plan:
    """All steps of a run."""

    samples: int
    lines: list[Line]
    cells: list[tuple[Cell, float]]
    """Each with the GPU hours of its training, done or not."""
    rates: RatesSettings
    used: list[str]
    """The rates that these figures rest on."""
    goes: list[str]
    """Results of an earlier run in the same place, which a local run would take away."""
    assumed: str = ""
    """What only a run can find out, in words."""

    @property
    def gpu_hours(self) -> float:
        """Of what is left to do."""
        return sum(line.gpu_hours for line in self.lines)

    @property
    def money(self) -> float:
        """Of what is left to do, in the currency of the rates."""
        return sum(line.money for line in self.lines)

    @property
    def all_gpu_hours(self) -> float:
        """Of all steps, if nothing was there."""
        return sum(line.all_gpu_hours for line in self.lines)

    @property
    def all_money(self) -> float:
        """Of all steps, if nothing was there."""
        return sum(line.all_money for line in self.lines)


def plan(settings: RunSettings, *, measure: bool = False) -> Plan:
    """What a run of `settings` on this machine would do. Writes nothing, asks no service and downloads nothing.

    Args:
        settings: of the run.
        measure: load each model that runs here and whose speed no earlier step tells, and measure it for some seconds.

    Raises:
        SettingsError: when the pool's size is neither given nor known.
        InputError: when a file of the pool, or of ids, cannot be read, or the pool's have no rows.
        StorageError: when there is none, and the settings do not say how many samples the pool will have.
    """
    reuse = Reuse(settings)
    samples, used = _pool_size(settings, reuse), UsedRates(settings.rates)
    speeds = Speeds(reuse.home)
    if measure:
        from tamis_pipelines.measuring import measure_all

        measure_all(settings, reuse, speeds)
    planner = Planner(settings, samples, cast(RatesSettings, used), reuse, speeds)
    lines = list(planner.lines())
    names = [name for name in RatesSettings.model_fields if name in used.names | {"samples", "currency"}]
    goes = Results(settings.results.absolute(), reuse.home).gone(settings)
    return Plan(samples, lines, planner.cells, settings.rates, names, goes, reuse.assumed)


def _pool_size(settings: RunSettings, reuse: Reuse) -> int:
    """Of the pool that is there, else as the settings say, or of the sources' rows.

    The pool of an earlier run stands in where other settings, or files, make another one that nothing tells of yet.
    """
    pool = reuse.of("pool")
    if pool.manifest is not None:
        return pool.manifest.rows
    if settings.rates.samples is not None:
        return settings.rates.samples
    made = manifest_of(settings.results / "pool")
    if made is not None and not (pool.outlook and all(_is_counted(source) for source in settings.pool.sources)):
        for source in settings.pool.sources:  # what a run would stop at
            if source.path is not None and _is_counted(source) and not is_saved(source.path):
                files_at(source.path)
        return made.rows
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


def _is_counted(source: Source) -> bool:
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
