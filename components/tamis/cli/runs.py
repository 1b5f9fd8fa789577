"""Whole runs on this machine: `run`, and `doctor` and `plan` before it."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from pathlib import Path

import click

from tamis.cli.loading import load, run_settings, takes_run_settings
from tamis.cli.sections import SettingsFileCommand
from tamis.core.errors import SettingsError
from tamis.core.secrets import shown

_log = logging.getLogger(__name__)
_SUBSETS = 12  # whose files are named at the end of a run


@click.command(cls=SettingsFileCommand, epilog="\b\nExample:\n  tamis run settings.yaml --set work_dir=/data/demo")
@takes_run_settings
@click.option("--force", is_flag=True, help="Start although a check of `tamis doctor` failed.")
def run(settings: Path, overrides: tuple[str, ...], force: bool) -> None:
    """Run the whole chain on this machine.

    Checks everything first, as `tamis doctor` does. Finished steps are reused when neither their settings nor their
    inputs have changed; after a kill, the same command goes on.
    """
    _log.info("looking at what the run needs, as `tamis doctor` does")
    parsed = run_settings(settings, overrides)
    checks = load("tamis_pipelines.doctor").examine(parsed, quick=True)
    failed = [check for check in checks if not check.passed]
    if failed and not force:
        raise SettingsError(
            "checks failed before anything was run:\n" + "\n".join(f"  {check}" for check in failed),
            action="mend them, or start with --force",
        )
    for check in checks:
        if check.level == "note":
            click.echo(shown(str(check)), err=True)
    report = load("tamis_pipelines.local").run(parsed)
    click.echo("\n" + _told(report, [cell.name for cell in parsed.cells]))


def _told(report: Path, cells: list[str]) -> str:
    """What a run has made, the place of its report last."""
    from tamis.core.artifacts import Artifact

    headline = Artifact.open(report, "report").manifest.facts["headline"]
    files = {name: report.parent / "selections" / name / "subset.jsonl" for name in cells}
    width = max(map(len, files))
    named = [f"  {name:{width}}  {file}" for name, file in files.items()]
    if len(named) > _SUBSETS:
        named[_SUBSETS:] = [f"  and {len(named) - _SUBSETS} more in {report.parent / 'selections'}"]
    lines = [headline, "", "subsets, one sample a line, ready for training:", *named]
    return "\n".join([*lines, "", f"report: {report / 'report.html'}"])


@click.command(
    cls=SettingsFileCommand,
    epilog="\b\nExamples:\n  tamis doctor settings.yaml\n"
    "  tamis doctor settings.yaml --try 1     also rates one sample, and shows what was asked and answered",
)
@takes_run_settings
@click.option(
    "--try", "tried", type=click.IntRange(0, 100), default=0, metavar="N", help="Rate N samples with each rater."
)
def doctor(settings: Path, overrides: tuple[str, ...], tried: int) -> None:
    """Check everything before anything is spent.

    Looks at settings, models, data, services, storage, memory and disk. Only `--try` spends something.
    """
    _log.info("looking at what the run needs")
    parsed = run_settings(settings, overrides)
    checks = load("tamis_pipelines.doctor").examine(parsed)
    for check in checks:
        click.echo(shown(str(check)))
    levels = Counter(check.level for check in checks)
    click.echo(f"{levels['failed']} failed, {levels['note']} to look at, {levels['ok']} ok")
    if tried and not levels["failed"]:
        for trial in load("tamis_pipelines.checks.trial").tried(parsed, tried):
            click.echo(f"\n{shown(trial)}")
    if not all(check.passed for check in checks):
        sys.exit(1)


@click.command(
    cls=SettingsFileCommand,
    epilog="\b\nExamples:\n  tamis plan examples/paper.yaml --set rates.gpu_hour=1.9\n"
    "  tamis plan settings.yaml --measure     also loads the models that run here, and measures them",
)
@takes_run_settings
@click.option("--measure", is_flag=True, help="Measure models that run here, where no earlier step tells their speed.")
def plan(settings: Path, overrides: tuple[str, ...], measure: bool) -> None:
    """Show the steps of a run, what of them is there already, and what the others take.

    GPU hours and money are at stated rates. The time on this machine is by the speed of earlier steps here, by a
    service's limits, or, with --measure, measured in some seconds for each model; else it is not known. Nothing is
    written, no service is asked and nothing is downloaded; of local files the rows are counted.
    """
    made = load("tamis_pipelines.plan").plan(run_settings(settings, overrides), measure=measure)
    click.echo(load("tamis_pipelines.plan_text").as_text(made))
