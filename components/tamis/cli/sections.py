"""The list of a settings file's sections, in the help of commands that take such a file."""

from __future__ import annotations

from typing import Any

import click

from tamis.cli.loading import load
from tamis.cli.stages import STAGES
from tamis.core.errors import MissingExtraError


class SettingsFileCommand(click.Command):
    """A command that takes a run's settings file. Its help ends with the file's sections."""

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write every section with the command that lists its settings, then the examples."""
        try:
            rows = _sections(load("tamis_pipelines.settings").RunSettings)
        except MissingExtraError:
            rows = []
        if rows:
            with formatter.section("Sections of the settings file (--set section.name=value; lists only as a whole)"):
                formatter.write_dl(rows)
        super().format_epilog(context, formatter)


def _sections(model: Any) -> list[tuple[str, str]]:
    from tamis.core.settings import models_in

    command_of = {stage.settings: name for name, stage in STAGES.items()}
    rows = []
    for name, field in model.model_fields.items():
        commands = [command_of[one.__name__] for one in models_in(field.annotation) if one.__name__ in command_of]
        more = f"; for its settings see tamis {commands[0]} --help" if commands else ""
        rows.append((name, f"{field.description}{more}{'; required' if field.is_required() else ''}"))
    rows.append(("variables", "values that replace ${name} anywhere in the file, as in {models: /data/models}"))
    return rows
