"""Finds the finished steps of a run. Only reads; no service is called."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

from tamis.core.artifacts import Manifest, manifest_in
from tamis.core.errors import ArtifactError, TamisError
from tamis.core.outlook import LookedAtError, Outlook, only_looking
from tamis.core.storage import only_local
from tamis.pool.hub import as_last_seen

if TYPE_CHECKING:
    from tamis.core.stages import PodKind
    from tamis_pipelines.settings import RunSettings

_OFFLINE = "HF_HUB_OFFLINE"
_READ_ALREADY = ("huggingface_hub.constants", "datasets.config")  # modules that read it once, when imported
State = Literal["there", "to do", "not known"]


@dataclass(frozen=True)
class Found:
    """What is known about one step before a run.

    Attributes:
        state: "there" if it is finished, so that a run reuses it.
        outlook: its key and the place of its result; None if they depend on unfinished steps.
        why: why the state is not known.
    """

    state: State
    outlook: Outlook | None = None
    why: str = ""

    @property
    def manifest(self) -> Manifest | None:
        """Manifest of the finished result."""
        return self.outlook.manifest if self.outlook else None

    @property
    def folder(self) -> Path | None:
        """Folder of the finished result."""
        return self.outlook.folder if self.outlook and self.outlook.manifest else None


class Reuse:
    """The steps of a run on this machine, looked up in the folder of finished steps.

    Attributes:
        steps: what is known about each step, by the name of its component or its title, in the run's order: "pool",
            "rate" (by rater), "select" (by cell), "evaluate" (base models, then cells), "perplexity" and so on.
        assumed: what these findings assume because only a run can find it out; empty if nothing.
    """

    def __init__(self, settings: RunSettings) -> None:
        self.home = settings.work_dir.absolute() / ".tamis"
        self.steps: dict[str, list[Found]] = {}
        self.assumed = ""
        self._settings = settings
        self._commits = self._last_seen()
        if (self.home / "artifacts").is_dir():
            self._look()

    def of(self, step: str, number: int = 0) -> Found:
        """Return what is known about the `number`-th step with this name; "to do" if there has been no run."""
        found = self.steps.get(step, [])
        return found[number] if number < len(found) else Found("to do")

    @property
    def pool(self) -> Found:
        """What is known about the pool that is rated: without near-copies, if the run drops them."""
        return self.of("pool" if self._settings.near_copies is None else "drop-near-copies")

    @contextmanager
    def as_in_a_run(self) -> Iterator[None]:
        """Set up the environment in which steps would run, but without access to the Hub and object storage."""
        from tamis_pipelines.local import places_of

        surroundings = places_of(self.home) | {_OFFLINE: "1"}
        read = [module for name in _READ_ALREADY if (module := sys.modules.get(name)) is not None]
        before = {name: os.environ.get(name) for name in surroundings}, [getattr(module, _OFFLINE) for module in read]
        os.environ |= surroundings
        for module in read:
            setattr(module, _OFFLINE, True)
        try:
            with only_local(), as_last_seen(self._commits):
                yield
        finally:
            for name, value in before[0].items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value
            for module, value in zip(read, before[1], strict=True):
                setattr(module, _OFFLINE, value)
            for name in _READ_ALREADY:  # modules imported meanwhile have read the temporary value
                if (module := sys.modules.get(name)) is not None and module not in read:
                    setattr(module, _OFFLINE, os.environ.get(_OFFLINE, "").upper() in ("1", "ON", "YES", "TRUE"))

    def _look(self) -> None:
        from tamis_pipelines.chain import CHAINS
        from tamis_pipelines.local import shape_of

        fixed, looker = shape_of(self._settings), _Looker(self.home, self.steps)
        with self.as_in_a_run(), only_looking():
            CHAINS[self._settings.pipeline](looker, self._settings.arguments(), fixed)
        if self._commits:
            names = ", ".join(self._commits)
            self.assumed = f"these data sets on the Hugging Face Hub have not changed since the last run: {names}"

    def _last_seen(self) -> Mapping[str, str]:
        """Return the commits of data sets on the Hub from which the last run's pool was made, by name."""
        pool = manifest_in(self._settings.results / "pool")
        sources = pool.facts.get("sources", {}) if pool else {}
        seen = {facts["dataset"]: str(facts["revision"]) for facts in sources.values() if facts.get("dataset")}
        return {name: commit for name, commit in seen.items() if not Path(name).is_dir()}


class _Place(SimpleNamespace):
    """An artifact as components take it, with what is known about the step that makes it."""

    path: str
    found: Found


class _Looker:
    """Looks steps up instead of running them (`chain.Maker`); an artifact is the `_Place` where it would be."""

    grouped = False

    def __init__(self, home: Path, steps: dict[str, list[Found]]) -> None:
        self._nowhere, self._steps = str(home / "not-made-yet"), steps

    def step(
        self,
        component: Any,
        output: str = "",
        *,
        pod: PodKind | None = None,
        title: str | None = None,
        once: bool = False,
        timeout: int | None = None,
        **inputs: Any,
    ) -> Any:
        if once:
            return None
        found = self._found(component.python_func, inputs)
        self._steps.setdefault(title or component.name, []).append(found)
        return _Place(path=str(found.folder or self._nowhere), found=found)

    def each(self, items: Any, body: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        made = [body(_Fields(item)) for item in items]
        return {name: [parts[name] for parts in made] for name in made[0]}

    def all_of(self, made: Any) -> Any:
        return made

    def _found(self, function: Callable[..., Any], inputs: Mapping[str, Any]) -> Found:
        """Let the component's own code look the step up; a missing input only matters if that code uses it."""
        parameters = inspect.signature(function).parameters
        outputs = {name: _Place(path=self._nowhere, name=name, metadata={}) for name in {*parameters} - {*inputs}}
        given = {name: _settings(value) for name, value in inputs.items()}
        optional = {name for name, parameter in parameters.items() if parameter.default is not parameter.empty}
        outputs = {name: place for name, place in outputs.items() if name not in optional}
        before = [place.found for place in _places(inputs)]
        try:
            function(**given, **outputs)
        except LookedAtError as looked:
            return Found("there" if looked.outlook.manifest else "to do", looked.outlook)
        except (TamisError, OSError) as error:
            for unknown in before:
                if unknown.state == "not known":
                    return unknown
            if isinstance(error, ArtifactError) and any(one.state == "to do" for one in before):
                return Found("to do")
            return Found("not known", why=error.problem if isinstance(error, TamisError) else str(error))
        raise AssertionError(f"{function.__name__} makes no step")


class _Fields(dict[str, Any]):
    """An item in a list of settings, whose fields are also attributes."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


def _settings(value: Any) -> Any:
    return dict(value) if isinstance(value, _Fields) else value


def _places(inputs: Mapping[str, Any]) -> Iterator[_Place]:
    for value in inputs.values():
        yield from (one for one in (value if isinstance(value, list) else [value]) if isinstance(one, _Place))
