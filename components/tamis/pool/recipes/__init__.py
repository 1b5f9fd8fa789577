"""Recipes: known data sets with everything that is needed to read them, in one versioned YAML file each.

To add a recipe, add a file here, or in a package that an entry point of the group "tamis.recipes" names.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tamis.core.registry import yaml_files


@cache
def _files() -> dict[str, Path]:
    return yaml_files(Path(__file__).parent, "tamis.recipes")


def names() -> tuple[str, ...]:
    """The names of the recipes, sorted."""
    return tuple(sorted(_files()))


def text_of(name: str) -> str:
    """The YAML text of the recipe `name`."""
    return _files()[name].read_text(encoding="utf-8")
