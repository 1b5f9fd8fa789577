"""Raters that ship with Tamis: versioned YAML files, each with the settings of one rater.

To add one, put a file here, or next to a package that an entry point of "tamis.raters" names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from tamis.core.settings import Settings, load, shipped_or_own

FOLDER = Path(__file__).parent


class RaterFile(Settings):
    """The content of a rater's file."""

    version: int = Field(ge=1, description="raised with every change of the settings")
    description: str = Field(min_length=1, description="which model this is, and where the settings come from")
    settings: dict[str, Any] = Field(description="settings of the rating stage")


def merged(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the rater that `values["rater"]` names, overridden by the rest of `values`.

    Raises:
        SettingsError: when there is no such rater, or its file is wrong.
    """
    file = shipped_or_own(FOLDER, str(values["rater"]), kind="rater", where="rater", group="tamis.raters")
    settings = load(RaterFile, file).settings
    own = {key: value for key, value in values.items() if key != "rater"}
    backend, own_backend = settings.get("backend"), own.get("backend")
    if isinstance(backend, dict) and isinstance(own_backend, dict):
        own["backend"] = backend | own_backend
    return settings | own
