"""Whole runs on this machine: `run`, `doctor` and `plan`."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import click

from tamis.cli.loading import load, run_settings, takes_run_settings
from tamis.cli.reaching import reaches_kubeflow
from tamis.cli.sections import SettingsFileCommand
from tamis.core.errors import SettingsError
from tamis.core.secrets import shown

_log = logging.getLogger(__name__)
_SUBSETS = 12  # largest number of subsets whose files are listed at the end of a run


@click.command(cls=SettingsFileCommand, epilog="\b\nExample:\n  tamis run settings.yaml --set work_dir=/data/demo")
@takes_run_settings
@click.option("--force", is_flag=True, help="Start even if checks fail.")
def run(settings: Path, overrides: tuple[str, ...], force: bool) -> None:
    """Run everything on this machine.

    Does the checks of `tamis doctor` first. Finished steps are reused if their settings and inputs have not changed, so
    the same command also continues a run that was stopped.
    """
    _log.info("checking settings, data and models, as `tamis doctor` does")
    parsed = run_settings(settings, overrides)
    checks = load("tamis_pipelines.doctor").examine(parsed, quick=True)
    failed = [check for check in checks if not check.passed]
    if failed and not force:
        raise SettingsError(
            "checks failed before anything was run:\n" + "\n".join(f"  {check}" for check in failed),
            action="fix the problems, or start with --force",
            permanent=False,  # some checks ask services and other machines
        )
    for check in checks:
        if check.level == "note":
            click.echo(shown(str(check)), err=True)
    report = load("tamis_pipelines.local").run(parsed)
    click.echo("\n" + _summary(report, [cell.name for cell in parsed.cells]))


def _summary(report: Path, cells: list[str]) -> str:
    """The results of a run: headline, files of the subsets, and the report's path."""
    from tamis.core.artifacts import Artifact

    headline = Artifact.open(report, "report").manifest.facts["headline"]
    files = {name: report.parent / "selections" / name / "subset.jsonl" for name in cells}
    width = max(map(len, files))
    named = [f"  {name:{width}}  {file}" for name, file in files.items()]
    if len(named) > _SUBSETS:
        named[_SUBSETS:] = [f"  and {len(named) - _SUBSETS} more in {report.parent / 'selections'}"]
    lines = [headline, "", "subsets, ready for training, with one sample per line:", *named]
    return "\n".join([*lines, "", f"report: {report / 'report.html'}"])


@click.command(
    cls=SettingsFileCommand,
    epilog="\b\nExamples:\n  tamis doctor settings.yaml\n"
    "  tamis doctor settings.yaml --try 1     also rate one sample, and show the prompt and the answer\n"
    "  tamis doctor settings.yaml --cluster --host http://127.0.0.1:8080",
)
@takes_run_settings
@reaches_kubeflow
@click.option("--cluster", is_flag=True, help="Check the run on Kubeflow instead of this machine.")
@click.option(
    "--try", "tried", type=click.IntRange(0, 100), default=0, metavar="N", help="Rate N samples with each rater."
)
def doctor(settings: Path, overrides: tuple[str, ...], tried: int, cluster: bool, server: Any) -> None:
    """Check everything before a run.

    Checks settings, models, data, services, storage, memory and disk. This costs nothing, except with `--try`.
    With `--cluster`, checks what `tamis submit` checks before it sends a run (files, stores, secrets, places for
    results, size), and the server and the claims that pods mount.
    """
    if cluster and tried:
        raise SettingsError("--try rates on this machine, and --cluster checks another", allowed="one of the two")
    parsed = run_settings(settings, overrides)
    _log.info("checking %s", "the run and the Kubeflow server" if cluster else "settings, data and models")
    examined = load("tamis_pipelines.doctor")
    checks = examined.examine_cluster(parsed, server) if cluster else examined.examine(parsed)
    for check in checks:
        click.echo(shown(str(check)))
    levels = Counter(check.level for check in checks)
    click.echo(f"{levels['failed']} failed, {levels['note']} to review, {levels['ok']} ok")
    if tried and not levels["failed"]:
        for trial in load("tamis_pipelines.checks.trial").tried(parsed, tried):
            click.echo(f"\n{shown(trial)}")
    if not all(check.passed for check in checks):
        sys.exit(1)


@click.command(
    cls=SettingsFileCommand,
    epilog="\b\nExamples:\n  tamis plan examples/paper.yaml --set rates.gpu_hour=1.9\n"
    "  tamis plan settings.yaml --measure     also load the models that run here, and measure their speed",
)
@takes_run_settings
@click.option("--measure", is_flag=True, help="Measure the speed of models here, where no earlier step shows it.")
def plan(settings: Path, overrides: tuple[str, ...], measure: bool) -> None:
    """Show the steps of a run, which of them are done, and the time and cost of the rest.

    GPU hours and costs use the stated rates. The time on this machine comes from earlier steps on it, from a service's
    limits, or from measurements of a few seconds per model (--measure); otherwise it is unknown. The command counts
    the rows of local files. It writes and downloads nothing and sends no requests.
    """
    made = load("tamis_pipelines.plan").plan(run_settings(settings, overrides), measure=measure)
    click.echo(load("tamis_pipelines.plan_text").as_text(made))
