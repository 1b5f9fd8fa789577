"""How many cells of a run share their pods, so that its workflow stays below Kubeflow's limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any, NoReturn

from tamis.core.errors import SettingsError
from tamis_pipelines.groups import larger
from tamis_pipelines.packages import compile_one
from tamis_pipelines.pods import CompileSettings
from tamis_pipelines.settings import RunSettings
from tamis_pipelines.workflow.figures import MOST_ARGUMENT, MOST_BYTES
from tamis_pipelines.workflow.size import ROOM, Package, Size


@dataclass(frozen=True)
class Fitted:
    """A run whose workflow fits.

    Attributes:
        package: its compiled package.
        arguments: its parameters.
        constants: the settings of pods that are compiled in; none if they are parameters.
        size: the size of its workflow.
        compiled: what is compiled in.
        cells: how many cells it has.
        cells_per_pod: how many of them share the pods of their steps; never more than there are.
    """

    package: Path
    arguments: dict[str, Any]
    constants: Mapping[str, Any]
    size: Size
    compiled: CompileSettings
    cells: int
    cells_per_pod: int

    def __str__(self) -> str:
        shared = f"; {_shared(self.cells, self.cells_per_pod)}" if self.cells_per_pod > 1 else ""
        return f"{_kb(self.size.bytes)} of {_kb(MOST_BYTES)}, {self.size.pods} pods in all{shared}"


def fitted(
    settings: RunSettings,
    compiled: CompileSettings,
    folder: Path,
    *,
    shares: Mapping[str, float] | None = None,
    constant: bool = True,
) -> Fitted:
    """Compile the pipeline of a run so that its workflow fits.

    Args:
        settings: the run's.
        compiled: what is compiled in. If its `cells_per_pod` is 0, as few cells share pods as possible.
        folder: where the package goes.
        shares: each payer's share of the budget.
        constant: whether the settings of pods are compiled in; otherwise they are parameters of the run.

    Raises:
        SettingsError: when the run does not fit, with the largest number of cells that do; or when cells would share
            pods, and a retried pod would repeat finished cells.
    """
    outcomes = compiled.outcomes or ""
    constants = settings.kubeflow.arguments() | {"outcomes": outcomes} if constant else None
    package = compile_one(settings.pipeline, folder, compiled, constants)
    known, given = Package.read(package), settings.cluster_arguments(outcomes, shares)
    run = _Run(known, {name: value for name, value in given.items() if name not in (constants or ())})
    per_pod = _per_pod(run, compiled)
    if per_pod > 1:
        _check_kept(run, per_pod, compiled)
        compiled = compiled.model_copy(update={"cells_per_pod": per_pod})  # for the time that a pod may take
        package = compile_one(settings.pipeline, folder, compiled, constants)
        run = replace(run, package=Package.read(package))
    return Fitted(package, run.arguments(per_pod), constants or {}, run.size(per_pod), compiled, run.cells, per_pod)


@dataclass(frozen=True)
class _Run:
    """A run of a compiled package; `single` are its parameters with a group for each cell."""

    package: Package
    single: dict[str, Any]

    @property
    def grouped(self) -> bool:
        """Whether its cells are in groups; otherwise they are subsets, which one pod selects."""
        return "cells" in self.single

    @property
    def cells(self) -> int:
        return len(self.single["cells" if self.grouped else "subsets"])

    def arguments(self, per_pod: int, cells: int | None = None) -> dict[str, Any]:
        """The run's parameters with `per_pod` cells in a group; of its first `cells` cells only, if that is given."""
        if not self.grouped:
            return self.single | {"subsets": self.single["subsets"][:cells]}
        return self.single | {"cells": larger(self.single["cells"][:cells], per_pod)}

    def size(self, per_pod: int, cells: int | None = None) -> Size:
        return self.package.size(self.arguments(per_pod, cells))


def _per_pod(run: _Run, compiled: CompileSettings) -> int:
    """The cells that share pods: as `compiled` says, or as few as fit.

    Raises:
        SettingsError: when the run does not fit.
    """
    asked = min(compiled.cells_per_pod, run.cells) if run.grouped else 1
    chosen = asked or _fewest(run)
    if not chosen or not run.size(chosen).fits:
        _refuse(run, asked, compiled)
    return chosen


def _fewest(run: _Run) -> int:
    """The smallest number of cells in a group with which the run fits; 0 if it never does."""
    groups = _most(run.cells, lambda number: run.size(ceil(run.cells / number)).fits)
    return ceil(run.cells / groups) if groups else 0


def _most(upper: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to `upper` that fits, where all smaller ones fit too; 0 if 1 does not."""
    low, high = 0, upper
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _refuse(run: _Run, asked: int, compiled: CompileSettings) -> NoReturn:
    """Say why a run does not fit, and what does."""
    what = "cells" if run.grouped else "subsets"
    per_pod = asked or run.cells
    size = run.size(per_pod)
    largest = _most(run.cells, lambda cells: run.size(min(per_pod, cells), cells).fits)
    allowed = f"at most {largest} {what} in one run"
    action = (
        f"divide the {what} among several runs and leave everything else equal: pool, ratings and curation then come "
        "from the cache. Each run has its own report"
    )
    if not largest:
        allowed = f"smaller settings: the steps before the {what} are too large even with one of them"
        action = "use fewer raters or shards"
    fixed = run.grouped and compiled.cells_per_pod
    if fixed and (fewest := _fewest(run)):
        allowed = f"at most {largest} cells with this cells_per_pod; all {run.cells} cells with {fewest}"
        action = "set kubeflow.compiled.cells_per_pod to 0: Tamis then chooses the smallest number that fits"
    raise SettingsError(
        (f"with kubeflow.compiled.cells_per_pod={per_pod}, " if fixed else "")
        + f"the workflow of {run.cells} {what} would have {_kb(size.bytes)} and the largest input of a step "
        f"{_kb(size.argument)}; the limits are {_kb(MOST_BYTES)} and {_kb(MOST_ARGUMENT)}, of which Tamis uses "
        f"{ROOM:.0%}",
        allowed=allowed,
        action=action,
    )


def _check_kept(run: _Run, per_pod: int, compiled: CompileSettings) -> None:
    """Refuse cells that share pods if a retried pod would repeat finished cells.

    Raises:
        SettingsError: when nothing keeps finished cells.
    """
    if compiled.finished or compiled.work_volume:
        return
    alone = _most(run.cells, lambda cells: run.size(1, cells).fits)
    otherwise = f"use at most {alone} cells, which have pods of their own"
    if alone == run.cells:
        otherwise = "set kubeflow.compiled.cells_per_pod=0, because these cells can have pods of their own"
    raise SettingsError(
        f"{_shared(run.cells, per_pod)}, and nothing keeps finished cells, so a retried pod would repeat them",
        action="set kubeflow.compiled.finished=s3://bucket/finished, or kubeflow.compiled.work_volume=true if your "
        f"cluster has a volume that pods can share; or {otherwise}",
    )


def _shared(cells: int, per_pod: int) -> str:
    """Which cells share pods, in words."""
    if per_pod >= cells:
        return f"all {cells} cells share pods"
    size = f"up to {per_pod}" if cells % per_pod else str(per_pod)
    return f"{cells} cells in {ceil(cells / per_pod)} groups of {size} that share pods"


def _kb(size: int) -> str:
    return f"{size / 1000:,.0f} kB"
