"""The commands of the stages, made from their descriptions."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click

from tamis.cli.loading import load, settings_from
from tamis.core.stages import Stage, all_stages

_log = logging.getLogger(__name__)


STAGES = all_stages()


class StageCommand(click.Command):
    """The command of a stage. Its help ends with the stage's settings."""

    def __init__(self, stage: Stage, **options: Any) -> None:
        super().__init__(**options)
        self._stage = stage

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write every setting of the stage, then an example."""
        if settings := describe(self._stage.settings_model):
            with formatter.section("Settings (in the --settings file, or with --set)"):
                formatter.write_dl(settings)
        with formatter.section("Example"):
            formatter.write(f"  {self._stage.example}\n")


def stage_command(name: str, stage: Stage) -> click.Command:
    """The command of a stage."""

    def call(
        settings: Path | None,
        overrides: tuple[str, ...],
        out: str | None,
        shard: str | None = None,
        dry_run: bool = False,
        metrics_port: int | None = None,
        **inputs: Any,
    ) -> None:
        _log.info("%s: loading", name)  # the stage's packages take seconds to load
        if metrics_port is not None:
            os.environ["TAMIS_METRICS_PORT"] = str(metrics_port)
        more = {} if shard is None else {"shard": shard}
        parsed = settings_from(stage.settings_model, settings, overrides, **more)
        given = {key: list(value) if isinstance(value, tuple) else value for key, value in inputs.items()}
        module = load(f"tamis.{stage.room}.{stage.module}")
        if dry_run:
            click.echo(module.plan(parsed, **given))
            return
        if out is None:
            raise click.UsageError("Missing option '--out'.")
        manifest = module.run(parsed, **given, out=out)
        click.echo(f"{manifest.kind}: {manifest.rows:,} rows in {out}")

    options: list[click.Parameter] = [
        click.Option(
            [f"--{item.name}"],
            required=item.required,
            multiple=item.many,
            metavar="PATH",
            help=f"{item.help or f'The {item.name} artifact'}{'; may be given several times' if item.many else ''}.",
        )
        for item in stage.inputs
    ]
    options += [
        click.Option(["--settings"], type=click.Path(path_type=Path), metavar="FILE", help="YAML file of settings."),
        click.Option(
            ["--set", "overrides"], multiple=True, metavar="NAME=VALUE", help="Override one setting of the file."
        ),
        click.Option(
            ["--out"],
            metavar="PATH",
            help="Where to write the result: a folder, or a prefix in object storage, as in s3://…  [required]",
        ),
    ]
    if stage.planned:
        options.append(click.Option(["--dry-run"], is_flag=True, help="Only show the time and cost."))
    if stage.sharded:
        options += [
            click.Option(["--shard"], metavar="I/N", help="Process only this shard of the samples, as in 3/8."),
            click.Option(
                ["--metrics-port"],
                type=click.IntRange(1, 65535),
                metavar="PORT",
                help="Serve progress as Prometheus metrics on this port.",
            ),
        ]
    return StageCommand(stage, name=name, callback=call, params=options, help=stage.help)


def describe(model: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Name and description of every setting of a pydantic model. Settings of nested models follow their section.

    If the settings of a section depend on its `kind`, a row for each kind precedes them.
    """
    from tamis.core.settings import all_fields, models_in

    rows: list[tuple[str, str]] = []
    for plain_name, field in all_fields(model).items():
        name = f"{prefix}{field.alias or plain_name}"
        needed = (
            "required" if field.is_required() else f"default: {_plain(field.get_default(call_default_factory=True))}"
        )
        rows.append((name, "; ".join(filter(None, [field.description, _allowed(field.annotation), needed]))))
        inner = models_in(field.annotation)
        for one in inner:
            if len(inner) > 1:
                rows.append((f"{name}.kind: {' or '.join(get_args(one.model_fields['kind'].annotation))}", ""))
            rows += [row for row in describe(one, f"{name}.") if len(inner) == 1 or row[0] != f"{name}.kind"]
    return rows


def _allowed(annotation: Any) -> str:
    """The allowed values of a setting, if they are a fixed list."""
    if get_origin(annotation) is Literal:
        words = get_args(annotation)
        return f"one of {', '.join(map(str, words))}" if len(words) > 1 else ""
    return next(filter(None, map(_allowed, get_args(annotation))), "")


def _plain(value: Any) -> str:
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        return "as below"
    return "none" if value is None else str(value)
