"""`demo`: the whole chain on small real models, without data of one's own."""

from __future__ import annotations

import os
import sys

import click

from tamis.cli.runs import run
from tamis.demo import FOLDER


@click.command(
    epilog="\b\nExamples:\n  tamis demo\n"
    "  tamis demo /data/demo --prepare all     writes data, models and settings, and runs nothing"
)
@click.argument("folder", default=FOLDER, type=click.Path(file_okay=False))
@click.option(
    "--prepare",
    type=click.Choice(["all", "data", "models"]),
    help="Only write these into FOLDER: the data with the settings, the models, or both. Run nothing.",
)
@click.pass_context
def demo(context: click.Context, folder: str, prepare: str | None) -> None:
    """Run the whole chain on two small models and 400 samples.

    Writes data, models and settings into FOLDER (default: tamis-demo), runs them, and ends with a report. This needs no
    network, two CPU cores, 4 GiB of free memory, 1 GB of disk and some minutes. Started again, it goes on from the last
    finished step.
    """
    from tamis.demo import data, models

    place = data.folder_at(folder)
    if prepare != "data":
        models.require_packages()
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # the libraries' progress bars are for terminals
    if prepare != "models":
        for file in data.prepare_data(place):
            click.echo(f"wrote {file}")
    if prepare != "data":
        for model in models.prepare_models(place / "models"):
            click.echo(f"wrote {model}")
    if prepare is None:
        context.invoke(run, settings=place / data.SETTINGS, overrides=(), force=False)
