"""The frame of components that work for several cells of an experiment, or several raters, in one pod.

The artifact of such a step is a folder with a numbered folder for each of them, in their order: an artifact of its own,
or the `failure.json` of a failed cell.
"""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kfp import dsl

from tamis import kubeflow
from tamis.core.artifacts import MANIFEST, Manifest
from tamis.core.errors import StoppedError, UnexpectedError
from tamis.core.failures import failure_in
from tamis.core.processes import passed_on, stopped_by
from tamis.core.settings import StageSettings

log = logging.getLogger("tamis.step")
ATTEMPT = "attempt"  # how often a cell's step has failed in earlier runs; no setting, but part of Kubeflow's cache key
_SUMMED = ("rows", "seconds", "failed")  # metrics of a step that are the sums of its cells'
_Stage = Callable[..., Manifest]


def parts(path: str) -> list[str]:
    """The places of the artifacts, or failures, that a step has left at `path`: one for each cell, in their order.

    `path` alone, if the step has worked for a single cell.
    """
    folder = Path(path)
    if (folder / MANIFEST).is_file() or failure_in(folder) is not None:
        return [path]
    numbered = sorted((one for one in folder.glob("*") if one.name.isdecimal()), key=lambda one: int(one.name))
    return [str(one) for one in numbered] or [path]


def parts_of(artifacts: Sequence[Any] | None) -> list[str]:
    """The same for a component's input of several artifacts, which may be missing."""
    return [place for artifact in artifacts or () for place in parts(artifact.path)]


def execute_cells(
    run: _Stage,
    model: type[StageSettings],
    settings: dict[str, Any],
    cells: list[dict[str, Any]] | None,
    *,
    out: dsl.Artifact,
    metrics: dsl.Metrics,
    of_each: Mapping[str, str | None] | None = None,
    apart: bool = False,
    **inputs: Any,
) -> None:
    """Run a stage for each cell, as `kubeflow.execute_cell` does for one. A failed cell does not end the others.

    A cell whose artifact is finished, in TAMIS_HOME or in the place of finished cells, is not made again.

    Args:
        run: the stage.
        model: its settings.
        settings: what the cells have in common; all settings, if `cells` is None.
        cells: each cell's own settings; None: a single cell, whose artifact is `out` itself.
        out: the step's artifact.
        metrics: its metrics; of several cells only sums.
        of_each: inputs of which every cell has one of its own, after the first of which it is named: the path of the
            earlier step's artifact, or None if the stage has no such input here.
        apart: whether several cells get a process each, because the stage does not free all memory at its end.
        inputs: paths of the other inputs.

    Raises:
        SystemExit: when the pod ends here, as `kubeflow.execute_cell` says.
    """
    own = dict(of_each or {})
    if cells is None:
        source = next(iter(own.values()), None)
        return kubeflow.execute_cell(run, model, settings, source=source, out=out, metrics=metrics, **own, **inputs)
    given = {name: parts(path) if path else [None] * len(cells) for name, path in own.items()}
    made = []
    for number, cell in enumerate(cells):
        mine = {name: places[number] for name, places in given.items()}
        known = {name: value for name, value in (settings | cell).items() if name != ATTEMPT}
        arguments = {"source": next(iter(mine.values()), None), **mine, **inputs}
        place, name = f"{out.uri}/{number:04d}", out.name
        if apart and len(cells) > 1:
            made.append(_in_a_process(out, _one_cell, run, model, known, name, place, arguments))
        else:
            made.append(_one_cell(run, model, known, name, place, arguments))
    _describe(out, metrics, made)
    return None


def execute_each(
    run: _Stage,
    model: type[StageSettings],
    each: list[dict[str, Any]],
    *,
    out: dsl.Artifact,
    metrics: dsl.Metrics,
    **inputs: Any,
) -> None:
    """Run a stage once for each settings in `each`, as `kubeflow.execute` does for one.

    Raises:
        SystemExit: when one of them fails.
    """
    made = []
    for number, settings in enumerate(each):
        part, told = _part(out.name, f"{out.uri}/{number:04d}")
        kubeflow.execute(run, model, settings, out=part, metrics=told, **inputs)
        made.append(told.metadata)
    _describe(out, metrics, made)


def _part(name: str, uri: str) -> tuple[dsl.Artifact, dsl.Metrics]:
    """The artifact and the metrics of one cell."""
    return dsl.Artifact(name=name, uri=uri, metadata={}), dsl.Metrics(name="metrics", uri=f"{uri}.metrics", metadata={})


def _one_cell(
    run: _Stage, model: type[StageSettings], settings: dict[str, Any], name: str, uri: str, arguments: dict[str, Any]
) -> dict[str, Any]:
    """Make one cell's artifact at `uri`; returns its metrics."""
    part, told = _part(name, uri)
    kubeflow.execute_cell(run, model, settings, out=part, metrics=told, **arguments)
    return dict(told.metadata)


def _in_a_process(out: dsl.Artifact, work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """What `work` returns, from a process of its own. `out` is the step's artifact.

    Raises:
        SystemExit: when the process has ended otherwise; with its exit code.
    """
    context = multiprocessing.get_context("spawn")  # a forked process cannot use GPUs
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(there, work, *arguments))
    process.start()
    there.close()
    with passed_on(process.terminate) as came:  # it stores what it can; without this it would be killed with the pod
        try:
            told: dict[str, Any] | None = here.recv()
        except EOFError:
            told = None
        process.join()
    if told is None:
        if (code := process.exitcode or 1) > 0:  # the process has left its reason
            raise SystemExit(code)
        with kubeflow.ending(out):
            if came:
                raise StoppedError(stopped_by(came[0]), action="start it again: finished cells are kept")
            raise UnexpectedError(
                f"the process of a cell was ended by signal {-code}, as happens when memory runs out",
                action="give these pods more memory, or find out what ended it",
            )
    if came:
        with kubeflow.ending(out):
            raise StoppedError(stopped_by(came[0]), action="start it again: finished cells are kept")
    return told


def _send(there: Any, work: Callable[..., dict[str, Any]], *arguments: Any) -> None:
    there.send(work(*arguments))


def _describe(out: dsl.Artifact, metrics: dsl.Metrics, made: Sequence[Mapping[str, Any]]) -> None:
    """Say on `out` and `metrics` what a step with the cells' metrics `made` has made."""
    sums = {name: sum(one.get(name, 0) for one in made) for name in _SUMMED}
    out.metadata.update({"cells": len(made), "rows": sums["rows"], "failed": sums["failed"]})
    told = made[0] if len(made) == 1 else {name: value for name, value in sums.items() if value or name != "failed"}
    for name, value in told.items():
        metrics.log_metric(name, value)
