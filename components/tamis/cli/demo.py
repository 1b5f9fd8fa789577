"""`demo`: run everything on small real models and data that come with Tamis."""

from __future__ import annotations

import os
import sys

import click

from tamis.cli.runs import run
from tamis.demo import FOLDER


@click.command(
    epilog="\b\nExamples:\n  tamis demo\n"
    "  tamis demo /data/demo --prepare all     write data, models and settings; do not run"
)
@click.argument("folder", default=FOLDER, type=click.Path(file_okay=False))
@click.option(
    "--prepare",
    type=click.Choice(["all", "data", "models"]),
    help="Only write these to FOLDER and do not run: the data with the settings, the models, or both.",
)
@click.pass_context
def demo(context: click.Context, folder: str, prepare: str | None) -> None:
    """Run everything on two small models and 400 samples.

    Writes data, models and settings to FOLDER (default: tamis-demo), runs all stages, and ends with a report. It needs
    two CPU cores, 4 GiB of free memory, 1 GB of disk, a few minutes, and no network. If you start it again, it
    continues after the last finished step.
    """
    from tamis.demo import data, models

    place = data.folder_at(folder)
    if prepare != "data":
        models.require_packages()
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # progress bars of libraries are for terminals only
    if prepare != "models":
        for file in data.prepare_data(place):
            click.echo(f"wrote {file}")
    if prepare != "data":
        for model in models.prepare_models(place / "models"):
            click.echo(f"wrote {model}")
    if prepare is None:
        context.invoke(run, settings=place / data.SETTINGS, overrides=(), force=False)
