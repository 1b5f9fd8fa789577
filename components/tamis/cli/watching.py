"""Runs on Kubeflow: `status`, `stop`, and the progress that `submit --wait` shows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from tamis.cli.loading import load
from tamis.cli.reaching import reaches_kubeflow
from tamis.core.secrets import shown
from tamis.core.texts import printable

_FAILED, _GOES_ON = 1, 3  # exit codes


def takes_waiting(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator: the options --timeout and --every."""
    for option in (
        click.option(
            "--every", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="Seconds between looks."
        ),
        click.option(
            "--timeout", type=click.FloatRange(min=0), default=0.0, help="Seconds to wait; 0: as long as it takes."
        ),
    ):
        command = option(command)
    return command


def _takes_run(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator: the argument RUN and the options that it needs."""
    experiment = click.option(
        "--experiment",
        default="tamis",
        show_default=True,
        help="Kubeflow's group of runs in which RUN is looked for by name or as the newest.",
    )
    return click.argument("run")(reaches_kubeflow(experiment(command)))


@click.command(
    epilog="\b\nExamples:\n  tamis status newest --host http://127.0.0.1:8080\n"
    "  tamis status nightly --follow\n"
    "  tamis status 60a8918d-bbec-4c8f-8f99-da4eb1e6dd0c"
)
@_takes_run
@click.option("--follow", is_flag=True, help="Show the progress until the run ends.")
@takes_waiting
def status(server: Any, run: str, experiment: str, follow: bool, every: float, timeout: float) -> None:
    """Show the steps of a run on Kubeflow, and why it failed.

    RUN is a run's id, its name or that of its schedule (the newest such run), or `newest`.
    The exit code is 0 if the run succeeded, 1 if it failed or was stopped, and 3 if it has not ended.
    """
    connection = load("tamis_pipelines.server").Connection(server)
    run_id = load("tamis_pipelines.runs.finding").find(connection, run, experiment)
    click.echo(f"run: {connection.page(f'runs/details/{run_id}')}")
    if follow:
        watch(connection, run_id, every=every, timeout=timeout)
        return
    found, text = load("tamis_pipelines.runs.reading").read(connection, run_id), load("tamis_pipelines.runs.text")
    for line in [*text.table(found), *text.ending(found)]:
        click.echo(_said(line))
    sys.exit(_exit_code(found))


@click.command(epilog="\b\nExample:\n  tamis stop newest --host http://127.0.0.1:8080")
@_takes_run
def stop(server: Any, run: str, experiment: str) -> None:
    """Stop a run on Kubeflow.

    RUN is a run's id, its name or that of its schedule (the newest such run), or `newest`. Finished steps stay in the
    cache.
    """
    connection = load("tamis_pipelines.server").Connection(server)
    finding = load("tamis_pipelines.runs.finding")
    found = load("tamis_pipelines.runs.reading").read(connection, finding.find(connection, run, experiment))
    click.echo(f"run: {found.url}")
    if found.state.ended:
        click.echo(f"{_said(found.name)} has already ended: {found.state}")
        return
    finding.stop(connection, found.id)
    click.echo(f"{_said(found.name)} is being stopped; tamis status {found.id} --follow shows when it has ended")


def watch(connection: Any, run_id: str, *, every: float, timeout: float) -> None:
    """Show the progress of a run until it ends or the time is up, then what happened and why.

    In a terminal, a table is redrawn; elsewhere, there is a line for each change. Ctrl-C ends the watching only.

    Raises:
        SystemExit: unless the run succeeded.
    """
    following, text = load("tamis_pipelines.runs.following"), load("tamis_pipelines.runs.text")
    screen = _Table(text) if sys.stdout.isatty() else _Lines(text)
    try:
        with screen:
            run = following.follow(connection, run_id, screen.show, every=every, timeout=timeout)
    except KeyboardInterrupt:
        click.echo(f"stopped watching; the run goes on: tamis status {run_id} --follow", err=True)
        sys.exit(130)
    for line in text.ending(run):
        click.echo(_said(line))
    if not run.state.ended:
        click.echo(f"the run has not ended after {timeout:g} s and goes on: tamis status {run_id} --follow")
    sys.exit(_exit_code(run))


def _said(text: str) -> str:
    """A text with what others have said, as a terminal may show it."""
    return printable(shown(text))


def _exit_code(run: Any) -> int:
    if not run.state.ended:
        return _GOES_ON
    return 0 if run.state == "SUCCEEDED" else _FAILED


class _Lines:
    """Progress for files and pipes: a line for each change."""

    def __init__(self, text: Any) -> None:
        self._text = text
        self._seen: dict[str, str] = {}

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, run: Any) -> None:
        """Write what is new."""
        for line in self._text.changes(run, self._seen):
            click.echo(_said(line))


class _Table:
    """Progress for a terminal: a table with a row for each step, which is redrawn."""

    def __init__(self, text: Any) -> None:
        self._text, self._run = text, None
        self._live = load("rich.live").Live(get_renderable=self._draw, refresh_per_second=1)

    def __enter__(self) -> _Table:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, run: Any) -> None:
        """Redraw the table."""
        self._run = run
        self._live.refresh()

    def _draw(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        if self._run is None:
            return Text("asking for the run …")
        # The text after the table has the state of a run that has ended.
        title = None if self._run.state.ended else Text(_said(self._text.headline(self._run)))
        table = Table(box=None, pad_edge=False, show_header=False, title=title, title_justify="left")
        for step in self._run.steps:
            progress = _said(self._text.progress_of(step))
            table.add_row(Text(_said(f"  {step.title}")), Text(progress, style=_style(progress)))
        return table


def _style(progress: str) -> str:
    if "failed" in progress or "unfinished" in progress:
        return "red"
    if "running" in progress or "pending" in progress:
        return "yellow"
    return "dim" if progress in ("waiting", "not run") else "green"
