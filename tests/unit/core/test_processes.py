"""Cores of a machine and of a container; how processes end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tamis.core import processes
from tamis.core.errors import StoppedError


@pytest.mark.parametrize(
    ("limit", "expected"), [("max 100000", 8), ("250000 100000", 3), ("5000 100000", 1), ("6400000 100000", 8), ("", 8)]
)
def test_cores_are_those_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, expected: int
) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text(f"{limit}\n")
    monkeypatch.setattr(processes, "_QUOTA", quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert processes.cores() == expected


def test_without_a_container_cores_are_those_the_process_is_bound_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_QUOTA", tmp_path / "absent")
    assert processes.cores() == len(os.sched_getaffinity(0))


def _work(first: signal.Signals, later: signal.Signals, finished: list[str]) -> None:
    """Work to which one signal comes, and another one while it stores its result."""
    with processes.ended_in_order():
        try:
            os.kill(os.getpid(), first)
            time.sleep(10)
        finally:
            os.kill(os.getpid(), later)
            finished.append("stored")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_work_as_an_error_and_what_comes_after_it_is_finished(number: signal.Signals) -> None:
    finished: list[str] = []
    with pytest.raises(StoppedError):
        _work(number, signal.SIGTERM, finished)
    assert finished == ["stored"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_ends_at_once() -> None:
    finished: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        _work(signal.SIGINT, signal.SIGINT, finished)
    assert finished == []


_CHILD = """
import os, sys, time
from pathlib import Path
from tamis.core.errors import StoppedError
from tamis.core.processes import end_with, ended_in_order

runner, stop, stored = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
try:
    with ended_in_order():
        end_with(runner, stop)
        stored.with_suffix(".ready").touch()
        time.sleep(60)
except StoppedError:
    stored.touch()
"""
_RUNNER = f"""
import os, subprocess, sys
from pathlib import Path
from tamis.core.processes import stops_children

stop, stored = Path(sys.argv[1]), Path(sys.argv[2])
with stops_children(stop) as signals:
    subprocess.run([sys.executable, "-c", {_CHILD!r}, str(os.getpid()), str(stop), str(stored)])
sys.exit(10 + len(signals))
"""


@pytest.mark.parametrize(
    ("number", "to_group", "exit_code"),
    [(signal.SIGTERM, False, 11), (signal.SIGINT, True, 11), (signal.SIGKILL, False, -signal.SIGKILL)],
)
def test_children_store_what_is_finished_when_their_runner_is_ended(
    tmp_path: Path, number: signal.Signals, to_group: bool, exit_code: int
) -> None:
    """A terminal sends Ctrl-C to a run and its steps, a supervisor SIGTERM to the run alone."""
    stored = tmp_path / "stored"
    command = [sys.executable, "-c", _RUNNER, str(tmp_path / "stop"), str(stored)]
    with subprocess.Popen(command, start_new_session=True) as runner:
        _wait_for(stored.with_suffix(".ready"))
        (os.killpg if to_group else os.kill)(runner.pid, number)
        assert runner.wait(30) == exit_code
    _wait_for(stored)


def _wait_for(file: Path) -> None:
    give_up = time.monotonic() + 30
    while not file.exists():
        assert time.monotonic() < give_up, file
        time.sleep(0.05)
