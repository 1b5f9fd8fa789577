"""What a run would do, what exists already, and what the rest takes, by the settings' rates and on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from tamis.core.artifacts import manifest_of
from tamis.core.saved import is_saved
from tamis.pool.sources import files_at
from tamis_pipelines.budget import Share, shares_of
from tamis_pipelines.plan_lines import Line, Planner
from tamis_pipelines.pool_size import counted, is_counted
from tamis_pipelines.rates import RatesSettings, UsedRates
from tamis_pipelines.results import Results
from tamis_pipelines.reuse import Reuse
from tamis_pipelines.speeds import Speeds

if TYPE_CHECKING:
    from tamis_pipelines.experiment import Cell
    from tamis_pipelines.settings import RunSettings


@dataclass(frozen=True)
class Plan:
    """All steps of a run.

    Attributes:
        samples: size of the pool.
        lines: the kinds of steps.
        cells: each with the GPU hours of its training, done or not.
        rates: the rates in the settings.
        used: names of the rates that the figures depend on.
        removed: results of an earlier run in the same place, which a local run would remove.
        assumed: what the plan assumes because only a run can find it out; empty if nothing.
        budget: highest cost of raters and judging together.
        shares: the payers' shares of the budget.
    """

    samples: int
    lines: list[Line]
    cells: list[tuple[Cell, float]]
    rates: RatesSettings
    used: list[str]
    removed: list[str]
    assumed: str = ""
    budget: float | None = None
    shares: Sequence[Share] = ()

    @property
    def gpu_hours(self) -> float:
        """GPU hours of what is left to do."""
        return sum(line.gpu_hours for line in self.lines)

    @property
    def money(self) -> float:
        """Cost of what is left to do, in the currency of the rates."""
        return sum(line.money for line in self.lines)

    @property
    def all_gpu_hours(self) -> float:
        """GPU hours of all steps, if nothing existed yet."""
        return sum(line.all_gpu_hours for line in self.lines)

    @property
    def all_money(self) -> float:
        """Cost of all steps, if nothing existed yet."""
        return sum(line.all_money for line in self.lines)


def plan(settings: RunSettings, *, measure: bool = False) -> Plan:
    """Return what a run of `settings` on this machine would do. Writes and downloads nothing, and calls no service.

    Args:
        settings: settings of the run.
        measure: load each local model whose speed is not known from earlier steps, and measure it for some seconds.

    Raises:
        SettingsError: when the pool's size is neither given nor known.
        InputError: when a file of the pool or a list of ids cannot be read, or the pool's files have no rows.
        StorageError: when the pool's files do not exist, and the settings do not give the pool's size.
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
    removed = Results(settings.results.absolute(), reuse.home).removed(settings)
    most = settings.budget.max_cost if settings.budget else None
    return Plan(samples, lines, planner.cells, settings.rates, names, removed, reuse.assumed, most, shares_of(settings))


def _pool_size(settings: RunSettings, reuse: Reuse) -> int:
    """Return the size of the existing pool; otherwise the size in the settings, or the rows of the sources.

    If the sources cannot be counted, an earlier run's pool is used, although its settings or files were different.
    """
    for pool in (reuse.pool, reuse.of("pool")):
        if pool.manifest is not None:
            return pool.manifest.rows
    if settings.rates.samples is not None:
        return settings.rates.samples
    made = manifest_of(settings.results / "pool")
    if made is not None and not (pool.outlook and all(is_counted(source) for source in settings.pool.sources)):
        for source in settings.pool.sources:  # raise the error that a run would raise
            if source.path is not None and is_counted(source) and not is_saved(source.path):
                files_at(source.path)
        return made.rows
    return counted(settings)
