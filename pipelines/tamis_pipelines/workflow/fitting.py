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
from tamis_pipelines.workflow.size import Package, Size


@dataclass(frozen=True)
class Fitted:
    """A run whose workflow fits.

    Attributes:
        package: its compiled package.
        arguments: its parameters.
        constants: the settings of pods that are compiled in; none if they are parameters.
        size: the size of its workflow.
        cells: how many cells it has.
        cells_per_pod: how many of them share the pods of their steps.
    """

    package: Path
    arguments: dict[str, Any]
    constants: Mapping[str, Any]
    size: Size
    cells: int
    cells_per_pod: int

    def __str__(self) -> str:
        shared = f"; {self.cells_per_pod} of {self.cells} cells share each pod" if self.cells_per_pod > 1 else ""
        return f"{self.size.bytes / 1000:,.0f} kB of {MOST_BYTES / 1000:,.0f} kB, {self.size.pods} pods{shared}"


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
        compiled: what is compiled in. Its `cells_per_pod` is kept if it is not 0; otherwise as few cells share pods as
            possible.
        folder: where the package goes.
        shares: each payer's share of the budget.
        constant: whether the settings of pods are compiled in; otherwise they are parameters of the run.

    Raises:
        SettingsError: when it cannot fit, with the largest number of cells that can, or when cells must share pods and
            a pod that is tried again would make finished ones again.
    """
    outcomes = compiled.outcomes or ""
    constants = settings.kubeflow.arguments() | {"outcomes": outcomes} if constant else None
    package = compile_one(settings.pipeline, folder, compiled, constants)
    known, given = Package.read(package), settings.cluster_arguments(outcomes, shares)
    run = _Run(known, {name: value for name, value in given.items() if name not in (constants or ())})
    per_pod = _per_pod(run, compiled)
    if per_pod > 1:
        _check_kept(compiled, run.cells, per_pod)
        compiled = compiled.model_copy(update={"cells_per_pod": per_pod})  # for the time that a pod may take
        package = compile_one(settings.pipeline, folder, compiled, constants)
        run = replace(run, package=Package.read(package))
    return Fitted(package, run.arguments(per_pod), constants or {}, run.size(per_pod), run.cells, per_pod)


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
        """The run's parameters with so many cells in a group; of its first `cells` cells alone, if that is given."""
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
    asked = compiled.cells_per_pod if run.grouped else 1
    if asked:
        if run.size(asked).fits:
            return asked
        _refuse(run, asked, compiled)
    groups = _most(run.cells, lambda number: run.size(ceil(run.cells / number)).fits)
    if not groups:
        _refuse(run, run.cells, compiled)
    return ceil(run.cells / groups)


def _most(upper: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to `upper` that fits, where all smaller ones fit too; 0 if 1 does not."""
    low, high = 0, upper
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _refuse(run: _Run, per_pod: int, compiled: CompileSettings) -> NoReturn:
    """Say why a run does not fit, and how many of its cells would."""
    what = "cells" if run.grouped else "subsets"
    size = run.size(per_pod)
    largest = _most(run.cells, lambda cells: run.size(min(per_pod, cells), cells).fits)
    fixed = run.grouped and compiled.cells_per_pod
    raise SettingsError(
        f"the workflow of {run.cells} {what} would have {size.bytes:,} bytes and a step's input {size.argument:,}; "
        f"Kubeflow takes {MOST_BYTES:,} and {MOST_ARGUMENT:,}"
        + (f", and kubeflow.compiled.cells_per_pod is {per_pod}" if fixed else ""),
        allowed=f"at most {largest} {what} of these settings in one run"
        if largest
        else f"smaller settings: not even one of the {what} fits, because of the steps before them",
        action=_remedy(what, largest, fixed=bool(fixed)),
    )


def _remedy(what: str, largest: int, *, fixed: bool) -> str:
    """What to do about a run of which only `largest` cells or subsets fit."""
    if fixed:
        return "set kubeflow.compiled.cells_per_pod to 0, so that it is chosen"
    if largest:
        return f"divide the {what} among several runs with the same other settings: they share all steps before them"
    return "use fewer raters or shards"


def _check_kept(compiled: CompileSettings, cells: int, per_pod: int) -> None:
    """Refuse cells that share pods if a pod that is tried again would make finished ones again.

    Raises:
        SettingsError: when nothing keeps finished cells.
    """
    if not (compiled.finished or compiled.work_volume):
        raise SettingsError(
            f"{per_pod} of the {cells} cells would share each pod, and nothing keeps finished cells, so a pod that is "
            "retried would make them again",
            allowed="kubeflow.compiled.finished, a folder in object storage; or kubeflow.compiled.work_volume",
            action="set one of them",
        )
