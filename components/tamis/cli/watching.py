"""Runs on Kubeflow: `status`, `stop`, and the progress that `submit --wait` shows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import click

from tamis.cli.loading import load
from tamis.cli.reaching import reaches_kubeflow, tamis
from tamis.core.secrets import shown
from tamis.core.texts import printable

_FAILED, _GOES_ON = 1, 3  # exit codes
_OTHER_ROWS = 2  # of the table in a terminal: its title, and the line of the cursor


def takes_waiting(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator: the options --timeout and --every."""
    for option in (
        click.option(
            "--every", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="Seconds between requests."
        ),
        click.option("--timeout", type=click.FloatRange(min=0), default=0.0, help="Seconds to wait; 0: no limit."),
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
@click.option(
    "--follow",
    is_flag=True,
    help="Show the progress until the run ends, or the server is away for 5 minutes.",
)
@takes_waiting
def status(server: Any, run: str, experiment: str, follow: bool, every: float, timeout: float) -> None:
    """Show the steps of a run on Kubeflow, and why it failed.

    RUN is a run's id, its name or that of its schedule (the newest such run), or `newest`.
    The exit code is 0 if the run succeeded, 1 if it failed or was stopped, and 3 if it has not ended.
    """
    connection, text = load("tamis_pipelines.server").Connection(server), load("tamis_pipelines.runs.text")
    run_id = load("tamis_pipelines.runs.finding").find(connection, run, experiment)
    found = load("tamis_pipelines.runs.reading").read(connection, run_id)
    click.echo(f"run: {found.url}")
    if follow:
        watch(connection, run_id, every=every, timeout=timeout)
        return
    for line in [*text.table(found), *text.ending(found)]:
        click.echo(_said(line))
    sys.exit(_exit_code(found))


@click.command(epilog="\b\nExample:\n  tamis stop nightly --host http://127.0.0.1:8080")
@_takes_run
def stop(server: Any, run: str, experiment: str) -> None:
    """Stop a run on Kubeflow.

    RUN is a run's id, its name or that of its schedule (the newest such run), or `newest`, which may be the run of
    another person. Finished steps stay in the cache.
    """
    connection, text = load("tamis_pipelines.server").Connection(server), load("tamis_pipelines.runs.text")
    finding = load("tamis_pipelines.runs.finding")
    found = load("tamis_pipelines.runs.reading").read(connection, finding.find(connection, run, experiment))
    click.echo(f"run: {found.url}")
    click.echo(_said(text.headline(found)))
    if found.state.ended:
        click.echo("the run has already ended, so there is nothing to stop")
        return
    finding.stop(connection, found.id)
    click.echo(f"the run is being stopped; its end: {tamis('status', found.id, '--follow')}")


def watch(connection: Any, run_id: str, *, every: float, timeout: float) -> None:
    """Show the progress of a run until it ends or the time is up, then what happened and why.

    In a terminal, a table is redrawn; elsewhere, there is a line for each change. Ctrl-C ends the watching only.

    Raises:
        SystemExit: unless the run succeeded.
    """
    following, text = load("tamis_pipelines.runs.following"), load("tamis_pipelines.runs.text")
    screen = _Table(text) if sys.stdout.isatty() else _Lines(text)
    again = tamis("status", run_id, "--follow")
    try:
        with screen:
            seen = following.follow(connection, run_id, screen.show, every=every, timeout=timeout)
    except KeyboardInterrupt:
        click.echo(f"the run continues; follow it again: {again}", err=True)
        sys.exit(130)
    run = seen.run
    if seen.away:
        when = f"{seen.at.astimezone():%H:%M:%S}"
        click.echo(f"{_said(run.name)}: {run.state} at {when}; the server has not answered since then")
        click.echo(f"whether the run continues is unknown; follow it again: {again}")
        sys.exit(_GOES_ON)
    for line in text.ending(run):
        click.echo(_said(line))
    if not run.state.ended:
        click.echo(f"the run has not ended after {timeout:g} s and continues; follow it again: {again}")
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
            click.echo(f"{datetime.now():%H:%M:%S} {_said(line)}")


class _Table:
    """Progress for a terminal: a table with a row for each step, which is redrawn.

    Where the terminal has fewer rows, steps that run or have failed are shown first; at the end, all are.
    """

    def __init__(self, text: Any) -> None:
        self._text, self._run, self._over = text, None, False
        self._live = load("rich.live").Live(get_renderable=self._draw, refresh_per_second=1)

    def __enter__(self) -> _Table:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
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
        rows = [(_said(f"  {step.title}"), _said(self._text.progress_of(step))) for step in self._run.steps]
        room = len(rows) if self._over else self._live.console.height - _OTHER_ROWS
        shown_rows = visible([_style(progress) for _, progress in rows], room)
        for title, progress in (rows[place] for place in shown_rows):
            table.add_row(Text(title), Text(progress, style=_style(progress)))
        if hidden := len(rows) - len(shown_rows):
            table.add_row(Text("  …"), Text(f"and {hidden} other steps", style="dim"))
        return table


def visible(styles: Sequence[str], room: int) -> list[int]:
    """The places of the rows that are shown if there is room for `room` of them, in their order.

    Rows in red and yellow (steps that have failed or run) come first, then what waits, then what is done, the latest
    first. If rows are hidden, one of `room` is left for a line that says so.
    """
    if len(styles) <= room:
        return list(range(len(styles)))
    places = range(len(styles))
    active = [at for at in places if styles[at] in ("red", "yellow")]
    waiting = [at for at in places if styles[at] == "dim"]
    done = [at for at in reversed(places) if at not in (*active, *waiting)]
    return sorted([*active, *waiting, *done][: max(1, room - 1)])


def _style(progress: str) -> str:
    if "failed" in progress or "unfinished" in progress:
        return "red"
    if "running" in progress or "pending" in progress:
        return "yellow"
    return "dim" if progress in ("waiting", "not run") else "green"
