"""What a stage is: the one description that the command line, the components, local runs and `tamis doctor` read.

A room of Tamis describes its stages in `description.py`, as `STAGES`, a tuple of `Stage`. Nothing here, and nothing
there, loads a package: `tamis --help` reads all of it.
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
# The image of each kind of pod, unless a run names another.
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
        name: of the option, and of the argument of `run`.
        many: whether there may be several.
        required: whether there must be one.
        help: what it is, where the name alone does not say so.
        kind: of the artifact; the name if not given.
    """

    name: str
    many: bool = False
    required: bool = True
    help: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Stage:
    """A stage, or another command of its room that makes an artifact.

    Attributes:
        command: its name on the command line.
        settings: the class of its settings, in the room's `settings.py`.
        makes: kind of the artifact.
        help: what it does, in a sentence or two.
        inputs: what it takes.
        example: a call that shows what it takes.
        place: folder of its artifacts among the results of a local run; "" for what is no result.
        several: whether a run has several of them, each with a folder of its name.
        pod: kind of its pod on a cluster, which says its image, too.
        packages: packages that it always imports, to the extras of Tamis that bring them.
        module: the room's module with `run(settings, *, inputs…, out)`.
        planned: whether the module has a `plan`, too, for `--dry-run`.
        sharded: whether it works by shards, and serves metrics.
        room: the package that it is in; filled in as it is found.
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
        """The image that it runs in."""
        return IMAGES[self.pod]

    @property
    def settings_model(self) -> Any:
        """The class of its settings, which is imported."""
        return getattr(importlib.import_module(f"tamis.{self.room}.settings"), self.settings)


@cache
def all_stages() -> dict[str, Stage]:
    """Every stage by its command, each behind those that make what it takes; those of a room in the room's order."""
    found = [stage for room in _rooms() for stage in described(room)]
    ordered: dict[str, Stage] = {}
    while found:
        # What others still make is waited for, but for one's own kind: of shards, and of earlier artifacts.
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
    """The stages of a room; none where it has no description."""
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
