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
from tamis_pipelines.runs.run import State
from tamis_pipelines.runs.steps import Status, Work
from tamis_pipelines.runs.text import table
from tests.pipeline.recorded import WRAPPERS, Serve, look, progress, without_pods
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
    address, *lines = result.output.splitlines()
    assert address == f"run: {server.url}/#/runs/details/{case.run_id}"
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


def test_the_table_in_a_terminal_has_a_row_for_each_step(serve: Serve) -> None:
    _, server = serve("failed-cell")
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "tamis", "status", "few", "--host", server.url, "--follow", "--every", "0.1"]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    with subprocess.Popen(command, stdout=slave, stderr=subprocess.STDOUT, env=environment) as process:
        os.close(slave)
        screen = _everything(master)
    assert process.returncode == 1
    rows = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen).splitlines()
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
