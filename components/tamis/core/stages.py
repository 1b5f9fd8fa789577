"""Descriptions of stages, for the command line, the components, local runs and `tamis doctor`.

A package describes its stages in `description.py`, as `STAGES`, a tuple of `Stage`. Neither this module nor those
import other packages, because `tamis --help` reads all of them.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal, TypeAlias

import tamis

PodKind: TypeAlias = Literal["base", "embedding", "rating", "training", "evaluation"]
# The image of each kind of pod, unless a run's settings name another.
IMAGES: dict[PodKind, str] = {
    "base": "cpu",
    "embedding": "cpu",
    "rating": "rating",
    "training": "training",
    "evaluation": "evaluation",
}


@dataclass(frozen=True)
class StageInput:
    """An input artifact of a stage, given as `--name PATH`.

    Attributes:
        name: name of the option, and of the argument of `run`.
        many: whether several may be given.
        required: whether at least one must be given.
        help: description, if the name is not clear enough.
        kind: kind of the artifact; the name if empty.
    """

    name: str
    many: bool = False
    required: bool = True
    help: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Stage:
    """A stage, or another command of a stage's package that makes an artifact.

    Attributes:
        command: its name on the command line.
        settings: name of its settings class, in the package's `settings.py`.
        makes: kind of the artifact.
        help: what it does, in one or two sentences.
        inputs: its input artifacts.
        example: an example call.
        place: folder of its artifacts among the results of a local run; "" if they are not results.
        several: whether a run has several of them, each in a folder of its own.
        pod: kind of its pod on a cluster, which determines the image.
        packages: packages that it always imports, with the extras of Tamis that install them.
        module: the package's module with `run(settings, *, inputs…, out)`.
        planned: whether the module also has `plan`, for `--dry-run`.
        sharded: whether it works on shards and serves metrics.
        room: the package that it is in; set when it is found.
    """

    command: str
    settings: str
    makes: str
    help: str
    inputs: tuple[StageInput, ...] = ()
    example: str = ""
    place: str = ""
    several: bool = False
    pod: PodKind = "base"
    packages: Mapping[str, str] = field(default_factory=dict)
    module: str = "stage"
    planned: bool = False
    sharded: bool = False
    room: str = ""

    @property
    def image(self) -> str:
        """Name of the image in which it runs."""
        return IMAGES[self.pod]

    @property
    def settings_model(self) -> Any:
        """Its settings class, which is imported."""
        return getattr(importlib.import_module(f"tamis.{self.room}.settings"), self.settings)


@cache
def all_stages() -> dict[str, Stage]:
    """Every stage by its command, each after the stages that make its inputs; the order of a package is kept."""
    found = [stage for room in _rooms() for stage in described(room)]
    ordered: dict[str, Stage] = {}
    while found:
        # A stage comes after those that make its inputs, except inputs of its own kind: shards and earlier artifacts.
        to_come, rooms = {stage.makes for stage in found}, [stage.room for stage in found]
        ready = [
            stage
            for place, stage in enumerate(found)
            if not _kinds_taken(stage) & (to_come - {stage.makes}) and stage.room not in rooms[:place]
        ]
        ordered |= {stage.command: stage for stage in ready or found}
        found = [stage for stage in found if stage.command not in ordered]
    return ordered


def _rooms() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(tamis.__path__) if module.ispkg]


def described(room: str) -> list[Stage]:
    """The stages of a package; none if it has no description."""
    name = f"tamis.{room}.description"
    try:
        stages = importlib.import_module(name).STAGES
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return []
    return [replace(stage, room=room) for stage in stages]


def _kinds_taken(stage: Stage) -> set[str]:
    return {given.kind or given.name for given in stage.inputs}
