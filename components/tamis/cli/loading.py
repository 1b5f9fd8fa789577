"""Loading of modules and settings when a command runs, so that `tamis --help` loads nothing."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tamis.core.errors import MissingExtraError


def load(module: str) -> Any:
    """Import and return a module.

    Raises:
        MissingExtraError: when it needs a package of the extra `kubeflow`, and that is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (package := (error.name or "").partition(".")[0]) in ("kfp", "rich"):
            raise MissingExtraError.of(package, "kubeflow") from None
        raise


def settings_from(model: Any, file: Path | None, overrides: tuple[str, ...], **more: Any) -> Any:
    """The settings of a file as the pydantic `model`. `overrides` of `--set` replace those of the file, `more` both.

    Raises:
        SettingsError: when the file is missing or a setting is wrong.
    """
    from tamis.core.settings import load_yaml, parse, with_overrides

    values = with_overrides(load_yaml(file) if file else {}, list(overrides)) | more
    return parse(model, values, where=str(file or "settings"))


def run_settings(file: Path, overrides: tuple[str, ...]) -> Any:
    """The settings of a whole run."""
    return load("tamis_pipelines.settings").load_run(file, overrides)


def takes_run_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator: the argument SETTINGS and the option --set of commands about whole runs."""
    override = click.option(
        "--set", "overrides", multiple=True, metavar="NAME=VALUE", help="Override one setting of the file."
    )
    return click.argument("settings", type=click.Path(path_type=Path))(override(command))
