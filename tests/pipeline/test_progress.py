"""The progress of runs on Kubeflow: recorded runs as they were at every time."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from itertools import pairwise

import pytest
from click.testing import CliRunner, Result

from tamis.cli import main
from tamis.cli.watching import visible
from tamis_pipelines.runs.run import State
from tamis_pipelines.runs.steps import Status, Work
from tamis_pipelines.runs.text import table
from tests.pipeline.recorded import WRAPPERS, RecordedServer, Serve, look, progress, without_pods
from tests.recordings import CASES


def tamis(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), catch_exceptions=False)


def rank(work: Work) -> int:
    """How far a piece of work has come: 0 before, 1 on the way, 2 at its end."""
    return {Status.WAITING: 0, Status.PENDING: 1, Status.RUNNING: 1}.get(work.status, 2)


@pytest.mark.parametrize("name", CASES)
def test_at_every_time_progress_is_that_of_the_run_then(serve: Serve, name: str) -> None:
    case, server = serve(name)
    last = look(case, server)
    titles = [step.title for step in last.steps]
    works = {(step.title, work.names): work for step in last.steps for work in step.works}
    before = dict.fromkeys(works, 0)
    times = case.times()
    for case.at in times[:-1:3]:
        now = look(case, server)
        assert now.state in (State.PENDING, State.RUNNING, State.STOPPING)
        assert now.reasons == ()
        assert [step.title for step in now.steps] == titles, "all steps are there from the beginning"
        assert not WRAPPERS.search("\n".join(table(now)))
        for step in now.steps:
            for work in step.works:
                end = works[step.title, work.names]
                assert rank(work) >= before[step.title, work.names], "nothing goes back"
                before[step.title, work.names] = rank(work)
                if work.status in (Status.DONE, Status.CACHED, Status.FAILED):
                    assert work.status == end.status or end.status is Status.UNFINISHED
                if work.began:
                    assert work.began <= str(case.at)
                if work.status is Status.WAITING:
                    assert not end.began or end.began > str(case.at)
    assert any(before.values())


def test_following_writes_a_line_for_each_change_only(serve: Serve) -> None:
    case, server = serve("experiment", at="2026-11-30T00:18:20Z")
    times = case.times()
    case.later = [*sorted([*times[3::3], *times[3:30:3]]), None]  # some times twice, so that nothing is new
    result = tamis("status", case.run_id, "--host", server.url, "--follow", "--every", "0.1")
    assert result.exit_code == 0, result.output
    address, *timed = result.output.splitlines()
    assert address == f"run: {server.url}/#/runs/details/{case.run_id}"
    assert all(re.match(r"\d\d:\d\d:\d\d \w", line) for line in timed[:-1]), "piped lines have the time of day"
    lines = [line[9:] for line in timed[:-1]]
    assert lines.count("run: running") == 1
    assert "rate: 0/2; 2 running: gpt and mistral" in lines
    assert "finetune: 0/3; 2 running: ds2-16-gpt-s42 and random-16-s42" in lines
    assert any(line.startswith("evaluate (cells): 1/3; ") for line in lines)
    assert len(lines) <= 45, "it was 143 lines"
    assert all(one != other for one, other in pairwise(lines))
    assert not WRAPPERS.search(result.output)


def test_packed_nodes_go_on_being_read_while_the_tasks_of_v2beta1_stand_still(serve: Serve) -> None:
    case, server = serve("experiment", packed=True, at="2026-11-30T00:24:00Z")
    assert progress(look(case, server))["select"] == "3/3"
    case.at = "2026-11-30T00:19:00Z"
    assert progress(look(case, server))["select"] == "waiting"


def in_a_terminal(server: RecordedServer, run: str, *options: str, lines: int = 40) -> tuple[int, list[str]]:
    """The exit code of `tamis status --follow`, and every row that it has drawn."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "tamis", "status", run, "--host", server.url, "--follow", "--every", "0.1"]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": str(lines)}
    with subprocess.Popen([*command, *options], stdout=slave, stderr=subprocess.STDOUT, env=environment) as process:
        os.close(slave)
        screen = _everything(master)
    return process.returncode, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen).splitlines()


def test_a_low_terminal_shows_what_runs_and_all_steps_at_the_end(serve: Serve) -> None:
    _, server = serve("experiment", at="2026-11-30T00:22:00Z")
    code, rows = in_a_terminal(server, "newest", "--timeout", "0.3", lines=8)
    assert code == 3
    first = [row.strip() for row in rows[: next(at for at, row in enumerate(rows) if "other steps" in row)]]
    assert any(row.startswith("finetune ") and "running" in row for row in first), rows
    assert not any(row.startswith("pool ") for row in first), "what is done goes first"
    assert any(row.strip().startswith("pool ") for row in rows)


@pytest.mark.parametrize(
    ("room", "places"), [(6, [0, 1, 2, 3, 4, 5]), (5, [2, 3, 4, 5]), (3, [2, 4]), (2, [2]), (0, [2])]
)
def test_rows_of_steps_that_run_are_hidden_last(room: int, places: list[int]) -> None:
    assert visible(["green", "green", "yellow", "green", "dim", "dim"], room) == places


def test_the_table_in_a_terminal_has_a_row_for_each_step(serve: Serve) -> None:
    _, server = serve("failed-cell")
    code, rows = in_a_terminal(server, "few")
    assert code == 1
    drawn = [row.strip() for row in rows if row.strip().startswith("select  ")]
    assert set(drawn) == {"select             1/2; 1 from the cache; 1 failed: toomany"}
    assert "few: FAILED after 3 min 2 s" in rows
    assert not WRAPPERS.search(without_pods("\n".join(rows)))


def _everything(master: int) -> str:
    seen = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # Linux' way to say that nobody writes any more
            part = b""
        if not part:
            os.close(master)
            return seen.decode()
        seen += part
