"""What a run would do, what of it is there, and what the rest takes: at stated rates, and on this machine."""

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
    budget: float | None = None
    """Most money that raters and judging may spend together."""
    shares: Sequence[Share] = ()
    """Of the budget."""

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
    most = settings.budget.max_cost if settings.budget else None
    return Plan(samples, lines, planner.cells, settings.rates, names, goes, reuse.assumed, most, shares_of(settings))


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
    if made is not None and not (pool.outlook and all(is_counted(source) for source in settings.pool.sources)):
        for source in settings.pool.sources:  # what a run would stop at
            if source.path is not None and is_counted(source) and not is_saved(source.path):
                files_at(source.path)
        return made.rows
    return counted(settings)
