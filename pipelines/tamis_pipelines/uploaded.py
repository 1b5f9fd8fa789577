"""Compares an uploaded package with the one that a run needs: what is compiled in cannot be changed by the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tamis.core.errors import SettingsError
from tamis.core.finished import PLACE
from tamis_pipelines.pods import OPTIONAL_STEPS, SCORE_PODS, WORK
from tamis_pipelines.workflow.size import Package

# The parameters that a package has only if something is compiled in, with the field that says so.
_OPTIONAL = {"judging": "judging", "trainer": "trainer", "workers": "sharded"}
_OPTIONAL |= {name: name for name in OPTIONAL_STEPS} | dict.fromkeys(SCORE_PODS, "scores")


class UnknownPackageError(ValueError):
    """What the server returns is no package of this pipeline."""


@dataclass(frozen=True)
class _Facts:
    """What is compiled into a package.

    Attributes:
        optional: names of its parameters that not every package has.
        finished: the places that keep finished cells.
        work_volume: whether pods mount a claim for unfinished work.
        seconds: how long a pod may take, by step; steps without a limit are left out.
        steps: all steps.
    """

    optional: frozenset[str]
    finished: frozenset[str]
    work_volume: bool
    seconds: Mapping[str, int]
    steps: frozenset[str]

    @classmethod
    def of(cls, package: Package) -> _Facts:
        executors, pods = package.ir["deploymentSpec"]["executors"], package.platform
        places = {
            variable["value"]
            for executor in executors.values()
            for variable in executor["container"].get("env", ())
            if variable["name"] == PLACE
        }
        mounts = {mount.get("mountPath") for pod in pods.values() for mount in pod.get("pvcMount", ())}
        seconds = {
            name: int(pod["activeDeadlineSeconds"]) for name, pod in pods.items() if "activeDeadlineSeconds" in pod
        }
        parameters = package.ir["root"]["inputDefinitions"]["parameters"]
        return cls(
            frozenset(parameters) & frozenset(_OPTIONAL),
            frozenset(places),
            WORK in mounts,
            seconds,
            frozenset(executors),
        )


def check_uploaded(spec: Any, package: Path, *, what: str, upload: str) -> None:
    """Compare an uploaded package with that of a run.

    Args:
        spec: the uploaded version's `pipeline_spec`, as the server returns it.
        package: the package that is compiled from the run's settings.
        what: name of the uploaded version, for errors.
        upload: the command that uploads a package for this run.

    Raises:
        UnknownPackageError: when `spec` cannot be compared.
        SettingsError: when the package has other optional steps than the run needs, keeps finished cells elsewhere or
            not at all, or gives a pod less time.
    """
    needed = _Facts.of(Package.read(package))
    try:
        known = _Facts.of(
            Package(
                spec["pipeline_spec"], spec["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
            )
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnknownPackageError("the server does not return its steps and pods") from error
    if not known.steps & needed.steps:
        raise UnknownPackageError("it has none of the steps of this pipeline")
    if found := list(_differences(known, needed)):
        raise SettingsError(
            f"{what} was not compiled for this run:\n  " + "\n  ".join(found),
            action=f"upload a package for this run, and use that version: {upload}",
        )


def _differences(known: _Facts, needed: _Facts) -> Iterator[str]:
    for name in sorted(needed.optional - known.optional):
        yield f"compiled.{_OPTIONAL[name]}: the run needs the parameter '{name}', which the package does not have"
    for name in sorted(known.optional - needed.optional):
        yield f"compiled.{_OPTIONAL[name]}: the package has the parameter '{name}', which the run does not use"
    if known.finished != needed.finished:
        of_known, of_needed = (", ".join(sorted(facts.finished)) or "none" for facts in (known, needed))
        yield f"compiled.finished: the package has {of_known}, the run {of_needed}"
    if known.work_volume != needed.work_volume:
        yield f"compiled.work_volume: the package has {known.work_volume}, the run {needed.work_volume}".lower()
    short: dict[tuple[int, int | None], list[str]] = {}
    for step in sorted(known.seconds.keys() & needed.steps):
        limit, least = known.seconds[step], needed.seconds.get(step)
        if least is None or limit < least:
            short.setdefault((limit, least), []).append(step.removeprefix("exec-"))
    for (limit, least), steps in short.items():
        wanted = "no limit" if least is None else f"{least:,} s"
        yield (
            f"compiled.cells_per_pod or timeouts: the package ends pods of {', '.join(steps)} after {limit:,} s; "
            f"the run needs {wanted}"
        )
