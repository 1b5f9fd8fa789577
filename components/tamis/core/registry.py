"""Registries: objects that are found, not listed, in the modules of a package and by entry points."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, reduce
from importlib import metadata
from operator import or_
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Generic, TypeVar

from pydantic import Field

from tamis.core.errors import RegistryError

T = TypeVar("T")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # also for parts of paths


class Registry(Mapping[str, T], Generic[T]):
    """All objects of one kind by name: those of Tamis, and those that installed packages add.

    Nothing is imported before the first look-up. After that the content does not change.

    Args:
        package: a package of Tamis; each of its modules that has `attribute` adds an object.
        attribute: the object's name in its module, as in "STRATEGY".
        group: entry points of this group, as in "tamis.strategies", add objects as "module:attribute".
        kind: class of the objects, or their base class if the objects are classes.
        name_of: returns an object's name.
        first: the name that comes first; the others follow in alphabetical order.
    """

    def __init__(
        self,
        package: str,
        attribute: str,
        group: str,
        kind: type[Any],
        name_of: Callable[[T], str],
        first: str = "",
    ) -> None:
        self._package, self._attribute, self._group = package, attribute, group
        self._kind, self._name_of, self._first = kind, name_of, first
        self._origins: dict[str, str] = {}

    def __getitem__(self, name: str) -> T:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    @cached_property
    def _found(self) -> dict[str, T]:
        """The objects by name.

        Raises:
            RegistryError: when an entry point cannot be loaded or is of another kind, an object's name has other
                characters than allowed, or two objects have one name.
        """
        places: dict[str, str] = {}
        found: dict[str, T] = {}
        for place, one, origin in [*self._shipped(), *added(self._group)]:
            is_one = issubclass(one, self._kind) if isinstance(one, type) else isinstance(one, self._kind)
            if not is_one:
                raise RegistryError(
                    f"{place} is not a {self._kind.__name__}",
                    allowed=f"entry points of the group {self._group} that name a {self._kind.__name__}",
                    action="correct the package's entry point, or uninstall the package",
                )
            name = self._name_of(one)
            if not _NAME.fullmatch(name):
                raise RegistryError(
                    f"{place} is called '{name}'",
                    allowed="letters, digits, '.', '_', '-'; a letter or digit first",
                    action="correct the package, or uninstall it",
                )
            if name in found:
                raise RegistryError(
                    f"{place} and {places[name]} are both called '{name}'",
                    action="rename one of them, or uninstall its package",
                )
            found[name], places[name] = one, place
            self._origins[name] = origin
        return {name: found[name] for name in sorted(found, key=lambda name: (name != self._first, name))}

    def origin(self, name: str) -> dict[str, str]:
        """What a step's key must contain besides its settings: the package that adds the object, with its version.

        It is empty for an object of Tamis, whose changes raise the stage's output revision.
        """
        return {f"{self._group}: {name}": origin} if name in self and (origin := self._origins[name]) else {}

    def _shipped(self) -> Iterator[tuple[str, Any, str]]:
        for module in pkgutil.iter_modules(importlib.import_module(self._package).__path__, f"{self._package}."):
            one = getattr(importlib.import_module(module.name), self._attribute, None)
            if one is not None:
                yield f"{module.name}.{self._attribute}", one, ""


def added(group: str) -> Iterator[tuple[str, Any, str]]:
    """The objects that installed packages add with entry points of `group`.

    Yields:
        A description of the entry point, the object that it names, and the package with its version.

    Raises:
        RegistryError: when an entry point cannot be loaded.
    """
    for point in sorted(metadata.entry_points(group=group), key=lambda point: (point.name, point.value)):
        package, version = (point.dist.name, point.dist.version) if point.dist else ("a package", "unknown")
        place = f"{point.value} (entry point '{point.name}' of {package})"
        try:
            one = point.load()
        except (Exception, SystemExit) as error:
            raise RegistryError(
                f"{place} cannot be loaded: {type(error).__name__}: {error}",
                action="correct the package, or uninstall it",
            ) from error
        yield place, one, f"{package} {version}"


def yaml_files(folder: Path, group: str) -> dict[str, Path]:
    """YAML files by name: those in `folder`, and those in the packages that entry points of `group` name.

    Raises:
        RegistryError: when an entry point cannot be loaded or does not name a module, or two files have the same name.
    """
    files = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    for place, module, _ in added(group):
        if not isinstance(module, ModuleType):
            raise RegistryError(
                f"{place} is not a module",
                allowed=f"entry points of the group {group} that name a package with YAML files",
                action="correct the package's entry point, or uninstall the package",
            )
        # A folder without an __init__.py has no __file__, and a module that is a file has no __path__.
        folders = getattr(module, "__path__", None) or [Path(str(module.__file__)).parent]
        for path in sorted(path for one in folders for path in Path(one).glob("*.yaml")):
            if files.setdefault(path.stem, path) != path:
                raise RegistryError(
                    f"{place} and {files[path.stem].parent} both have a file {path.name}", action="rename one of them"
                )
    return files


def one_of(*kinds: type[Any]) -> Any:
    """The annotation of a setting that is one of several classes of settings, distinguished by their `kind`."""
    return Annotated[reduce(or_, kinds), Field(discriminator="kind")]
