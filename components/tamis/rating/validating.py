"""Checks files of raters and prompts before a run."""

from __future__ import annotations

from pathlib import Path

from tamis.core.settings import load, load_yaml, parse
from tamis.rating import prompts, raters
from tamis.rating.prompts import Prompt, load_prompt
from tamis.rating.settings import AskedRater, ImportedRater, RatingSettings


def shipped() -> list[Path]:
    """The files of the raters and prompts that ship with Tamis."""
    return sorted(path for module in (raters, prompts) for path in Path(str(module.__file__)).parent.glob("*.yaml"))


def describe(path: Path) -> str:
    """Describe in one line a file with a prompt, a rater, or settings of the rating stage.

    Raises:
        SettingsError: when something in it is wrong.
    """
    values = load_yaml(path)
    if "template" in values:
        prompt = load(Prompt, path)
        return f"{path.name}: prompt, version {prompt.version}, hash {prompt.hash[:12]}"
    given = {"rater": str(path)} if "settings" in values else values
    settings = parse(RatingSettings, given, where=str(path))
    if isinstance(settings, ImportedRater):
        return f"{path.name}: rater '{settings.name}', imported from {settings.backend.path}"
    assert isinstance(settings, AskedRater)
    prompt = load_prompt(settings.prompt)
    backend = settings.backend
    return (
        f"{path.name}: rater '{settings.name}', {backend.model} by {backend.kind}, prompt '{settings.prompt}' "
        f"(version {prompt.version}, hash {prompt.hash[:12]})"
    )
