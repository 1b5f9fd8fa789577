"""Kubeflow Pipelines: `compile`, `submit`, `upload`, `schedule`."""

from __future__ import annotations

import json
import logging
import shlex
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tamis.cli.loading import load, run_settings, takes_run_settings
from tamis.cli.reaching import reaches_kubeflow, tamis
from tamis.cli.sections import SettingsFileCommand
from tamis.cli.watching import takes_waiting, watch
from tamis.core.errors import SettingsError

_log = logging.getLogger(__name__)


def _takes_compile_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Options of what is compiled into a package."""
    for option in (
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="NAME=VALUE",
            help="Override one setting of the section `kubeflow`, as in compiled.queue=tamis.",
        ),
        click.option(
            "--settings",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Settings file of a run, for which the packages are compiled; or a file with only `kubeflow`.",
        ),
    ):
        command = option(command)
    return command


@click.command("compile", epilog="\b\nExample:\n  tamis compile --out packages --set compiled.queue=tamis")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FOLDER", help="Where the packages go.")
@_takes_compile_settings
@click.option(
    "--objects", "namespace", metavar="NAMESPACE", help="Write objects for `kubectl apply` in this namespace instead."
)
def compile_pipelines(out: Path, settings: Path | None, overrides: tuple[str, ...], namespace: str | None) -> None:
    """Compile the Kubeflow pipelines to YAML packages.

    Compiled in: queue label, time limits, retries, parallelism, /dev/shm, which volumes are mounted. Images, sizes,
    places and names of objects are parameters of every run. From a run's settings file, what the run needs is compiled
    in too: scores, judging, shards of raters, TrainJobs, and the number of cells that share pods.
    """
    packages, compiled = load("tamis_pipelines.packages"), _compiled_for(settings, overrides)
    made = packages.compile_objects(out, namespace, compiled) if namespace else packages.compile_all(out, compiled)
    for path in made:
        click.echo(path)


def _compiled_for(file: Path | None, overrides: tuple[str, ...]) -> Any:
    """What is compiled into packages for the runs of a file, as `--uploaded` needs it, with the cells that share pods.

    Raises:
        SettingsError: when settings are wrong, or `tamis submit --uploaded` would refuse the size of the run.
    """
    compiled = _compiled_settings(file, overrides)
    if file is None or not _describes_run(file):
        return compiled
    fitting, budget = load("tamis_pipelines.workflow.fitting"), load("tamis_pipelines.budget")
    parsed = run_settings(file, _below_kubeflow(overrides))
    with tempfile.TemporaryDirectory(prefix="tamis-") as folder:
        shares = budget.by_payer(budget.shares_of(parsed))
        made = fitting.fitted(parsed, compiled, Path(folder), shares=shares, constant=False)
    return compiled.model_copy(update={"cells_per_pod": made.cells_per_pod}) if made.cells_per_pod > 1 else compiled


def _compiled_settings(file: Path | None, overrides: tuple[str, ...]) -> Any:
    """What a file's settings and `overrides` compile in; for a run's file, also the steps that the run needs."""
    from tamis.core.settings import filled, load_yaml, parse, with_overrides

    overrides = _below_kubeflow(overrides)
    if file is not None and _describes_run(file):
        return run_settings(file, overrides).compiled
    where = str(file or "settings")
    given = load_yaml(file) if file else {}
    given = with_overrides({name: given.get(name) for name in ("kubeflow", "variables")}, list(overrides))
    used = filled(given, where=where)["kubeflow"] or {}
    return parse(load("tamis_pipelines.pods").KubeflowSettings, used, where=f"{where}: kubeflow").compiled


def _below_kubeflow(overrides: tuple[str, ...]) -> tuple[str, ...]:
    """The overrides with the prefix `kubeflow.`, which may be left out for packages."""
    return tuple(f"kubeflow.{override.removeprefix('kubeflow.')}" for override in overrides)


def _describes_run(file: Path) -> bool:
    """Whether a settings file has the sections that every run needs; those of the chart have only `kubeflow`."""
    from tamis.core.settings import load_yaml

    return {"pool", "raters"} <= set(load_yaml(file))


def _orders_runs(command: Callable[..., None]) -> Callable[..., None]:
    """Options that say what a run on the server is."""
    for option in (
        click.option(
            "--dry-run", is_flag=True, help="Show what would be sent, with a summary at the end. Sends nothing."
        ),
        click.option(
            "--force",
            is_flag=True,
            help="Submit even if settings name files on this machine, or places that cannot be written from here.",
        ),
        click.option(
            "--no-cache", is_flag=True, help="Run every step again, even if its result is in Kubeflow's cache."
        ),
        click.option(
            "--uploaded",
            default="",
            metavar="VERSION",
            help="Run this uploaded version ('newest': the last one). It must be compiled for this run.",
        ),
        click.option(
            "--outcomes",
            default="",
            metavar="PATH",
            help="Folder in object storage where each run writes how it ended.",
        ),
        click.option("--root", default="", metavar="PATH", help="Where artifacts go. Default: the server's place."),
        click.option(
            "--service-account", default="", metavar="NAME", help="Service account of the pods. Default: the server's."
        ),
        click.option(
            "--experiment", default="tamis", show_default=True, help="Kubeflow experiment: the server's group of runs."
        ),
        click.option("--name", default="", help="Name of the run. Default: that of the settings file."),
    ):
        command = option(command)
    return command


def _order(
    settings: Path,
    overrides: tuple[str, ...],
    folder: Path,
    *,
    name: str,
    experiment: str,
    service_account: str,
    root: str,
    outcomes: str,
    uploaded: str,
    no_cache: bool,
    force: bool,
) -> Any:
    """What the options of `_orders_runs` ask for; a pipeline that is not uploaded is compiled into `folder`."""
    remote, budget = load("tamis_pipelines.remote"), load("tamis_pipelines.budget")
    fitting = load("tamis_pipelines.workflow.fitting")
    noted = (f"kubeflow.compiled.outcomes={outcomes}",) if outcomes else ()
    parsed = run_settings(settings, (*overrides, *noted))
    if not force:
        load("tamis_pipelines.checks.reachable").check_reachable(parsed)
    if uploaded and no_cache:
        raise SettingsError(
            "--no-cache and --uploaded: caching is compiled into a package",
            action="leave --uploaded out, or tamis upload --set compiled.cached=false and use that version",
        )
    compiled = parsed.compiled.model_copy(update={"cached": False} if no_cache else {})
    shares = budget.by_payer(budget.shares_of(parsed))
    made = fitting.fitted(parsed, compiled, folder, shares=shares, constant=not uploaded)
    return remote.Order(
        pipeline=parsed.pipeline,
        arguments=made.arguments,
        name=name or settings.stem,
        experiment=experiment,
        package=made.package,
        version=uploaded,
        upload=_upload_command(settings, made.compiled) if uploaded else "",
        service_account=service_account,
        root=root,
        constants=made.constants,
        compiled=made.compiled.model_dump(mode="json"),
        workflow=str(made),
        costs=budget.highest_costs(parsed),
    )


def _upload_command(file: Path, needed: Any) -> str:
    """The command that uploads packages into which what is `needed` is compiled."""
    command = ["tamis upload"]
    try:
        given = _compiled_settings(file, ())
        command.append(f"--settings {shlex.quote(str(file))}")
    except SettingsError:  # variables of the file that only `--set` gives, which upload does not have
        given = type(needed)()
    known, wanted = given.model_dump(mode="json"), needed.model_dump(mode="json")
    changed = [f"compiled.{name}={json.dumps(value)}" for name, value in wanted.items() if value != known[name]]
    return " ".join([*command, *(f"--set {shlex.quote(one)}" for one in changed)])


def _test_places(settings: Path, overrides: tuple[str, ...], options: dict[str, Any]) -> None:
    """Test the places that a run will write to, unless the user forces it."""
    if not options["force"]:
        places = load("tamis_pipelines.checks.places")
        parsed = run_settings(settings, overrides)
        for untested in places.check_places(parsed, root=options["root"], outcomes=options["outcomes"]):
            _log.warning("places for results cannot be tested from here: %s", untested)


def _show(order: Any, **more: str) -> None:
    """Print what a dry run would send; `more` is what only some commands send."""
    click.echo(load("tamis_pipelines.dry_run").as_text(order, **more))


@click.command(
    cls=SettingsFileCommand,
    epilog="\b\nExamples:\n  tamis submit settings.yaml --dry-run\n"
    "  tamis submit settings.yaml --host http://127.0.0.1:8080 --wait\n"
    "  tamis submit settings.yaml --set kubeflow.pods.rating.gpus=4 --service-account tamis-pipeline",
)
@takes_run_settings
@reaches_kubeflow
@_orders_runs
@click.option("--wait", is_flag=True, help="Show the run's progress until it ends.")
@takes_waiting
def submit(
    server: Any,
    settings: Path,
    overrides: tuple[str, ...],
    dry_run: bool,
    wait: bool,
    timeout: float,
    every: float,
    **order_options: Any,
) -> None:
    """Run the whole chain on Kubeflow.

    Takes the same settings file as `tamis run`. Its section `kubeflow` sets the size and placement of pods.
    With `--wait`, the exit code is 0 if the run succeeded, 1 if it failed or was stopped, and 3 after the timeout.
    """
    with tempfile.TemporaryDirectory(prefix="tamis-") as folder:
        order = _order(settings, overrides, Path(folder), **order_options)
        if dry_run:
            return _show(order)
        _test_places(settings, overrides, order_options)
        kubeflow = load("tamis_pipelines.remote").Kubeflow(server)
        run = kubeflow.submit(order)
    click.echo(f"run: {run.url}")
    click.echo(f"workflow: {order.workflow}")
    if wait:
        watch(kubeflow.connection, run.id, every=every, timeout=timeout)
    else:
        click.echo(f"follow it: {tamis('status', run.id, '--follow')}")


@click.command(
    epilog="\b\nExample:\n  tamis upload --settings settings.yaml --host http://127.0.0.1:8080 --version 2026-11"
)
@reaches_kubeflow
@_takes_compile_settings
@click.option("--version", default="", help="Name of the version; made from the content if left out.")
def upload(server: Any, settings: Path | None, overrides: tuple[str, ...], version: str) -> None:
    """Upload the pipelines to Kubeflow.

    The UI, `--uploaded` and schedules can then use them. A package that is already on the server is not uploaded again.
    What is compiled in is described by `tamis compile --help`.
    """
    compiled = _compiled_for(settings, overrides)
    with tempfile.TemporaryDirectory(prefix="tamis-") as folder:
        packages = load("tamis_pipelines.packages").compile_all(Path(folder), compiled)
        kubeflow = load("tamis_pipelines.remote").Kubeflow(server)
        for package in packages:
            name, made = kubeflow.upload(package.stem, package, version)
            click.echo(f"{package.stem} {name}: {made.url}")


@click.command(
    cls=SettingsFileCommand,
    epilog="\b\nExamples:\n  tamis schedule settings.yaml --cron '0 0 3 * * *' --name nightly\n"
    "  tamis schedule settings.yaml --every 604800 --uploaded newest --name weekly --replace",
)
@takes_run_settings
@reaches_kubeflow
@_orders_runs
@click.option("--cron", default="", metavar="FIELDS", help="second minute hour day month weekday, as in '0 0 3 * * *'.")
@click.option("--every", type=click.IntRange(min=1), metavar="SECONDS", help="Instead of --cron: time between starts.")
@click.option("--at-once", type=click.IntRange(1, 10), default=1, show_default=True, help="Most runs at the same time.")
@click.option("--replace", is_flag=True, help="Replace a schedule of the same name.")
def schedule(
    server: Any,
    settings: Path,
    overrides: tuple[str, ...],
    dry_run: bool,
    cron: str,
    every: int | None,
    at_once: int,
    replace: bool,
    **order_options: Any,
) -> None:
    """Run the whole chain on Kubeflow on a schedule.

    For example, when data is added every day.
    """
    remote = load("tamis_pipelines.remote")
    remote.check_time(cron, every or 0)
    with tempfile.TemporaryDirectory(prefix="tamis-") as folder:
        order = _order(settings, overrides, Path(folder), **order_options)
        if dry_run:
            return _show(order, starts=f"{cron or f'every {every} s'}, {at_once} at once")
        _test_places(settings, overrides, order_options)
        kubeflow = remote.Kubeflow(server)
        made = kubeflow.schedule(order, cron=cron, every=every or 0, at_once=at_once, replace=replace)
    click.echo(f"schedule: {made.url}")
