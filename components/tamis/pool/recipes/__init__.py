"""Recipes: well-known data sets with all that is needed to read them, one versioned YAML file each."""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def names() -> tuple[str, ...]:
    """The names of the recipes, sorted."""
    files = resources.files(__name__).iterdir()
    return tuple(sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml")))


def text_of(name: str) -> str:
    """The YAML text of the recipe `name`."""
    return (resources.files(__name__) / f"{name}.yaml").read_text(encoding="utf-8")
