"""Which tests a tier takes, and what is measured for that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT
from tests.tiers import shortest

CONFTEST = "pytest_plugins = ['tiers']\n"
TESTS = """
import time
import pytest

@pytest.fixture(scope="module")
def server():
    time.sleep(0.5)

def test_first(server):
    time.sleep(0.1)

@pytest.mark.parametrize("case", [1, 2])
def test_second(server, case):
    time.sleep(0.1)

def test_at_once():
    pass
"""


def test_the_shortest_that_fit_are_taken_and_unknown_ones_always() -> None:
    known = {"a": 3.0, "b": 1.0, "c": 2.0}
    assert shortest(known, dict.fromkeys("abcd", ()), 3.5) == {"b", "c", "d"}
    assert shortest(known, dict.fromkeys("abcd", ()), 0.0) == {"d"}


def test_what_tests_share_counts_once_for_each_of_two_processes() -> None:
    known = {"a": 1.0, "b": 1.0, "alone": 1.5, "server": 4.0}
    shared = {"a": ["server"], "b": ["server"], "alone": []}
    assert shortest(known, shared, 11.4) == {"alone", "a"}  # 1.5, then 1 and 2 times 4
    assert shortest(known, shared, 11.5) == {"alone", "a", "b"}


def test_one_that_does_not_fit_leaves_room_for_those_that_need_nothing_more() -> None:
    known = {"slow start": 0.1, "other": 3.0, "server": 9.0}
    assert shortest(known, {"slow start": ["server"], "other": []}, 5.0) == {"other"}


def test_durations_are_measured_without_what_is_shared_and_choose_the_next_run(tmp_path: Path) -> None:
    (tmp_path / "tiers.py").write_text((ROOT / "tests" / "tiers.py").read_text())
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_one.py").write_text(TESTS)
    pytest(tmp_path, "TAMIS_WRITE_DURATIONS=1")
    lines = (tmp_path / "durations.txt").read_text().splitlines()
    taken = {name: float(seconds) for seconds, name in (line.split() for line in lines)}
    assert taken.keys() == {"test_one.py::server", "test_one.py::test_first", "test_one.py::test_second"}
    assert taken["test_one.py::server"] >= 0.5
    assert 0.1 <= taken["test_one.py::test_first"] < 0.5
    assert taken["test_one.py::test_second"] >= 0.2
    (tmp_path / "durations.txt").write_text("999  test_one.py::test_second\n1.0  test_one.py::server\n")
    assert pytest(tmp_path, tier="test") == {"test_one.py::test_at_once", "test_one.py::test_first"}
    assert pytest(tmp_path, tier="long") == {"test_one.py::test_second[1]", "test_one.py::test_second[2]"}


def pytest(folder: Path, *environment: str, tier: str = "all") -> set[str]:
    """The tests of `folder` that passed in a run of their own."""
    command = ["env", "-u", "PYTEST_XDIST_WORKER", "-u", "TAMIS_WRITE_DURATIONS", *environment]
    command += [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        "/dev/null",
        "-rA",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--tier={tier}",
    ]
    ended = subprocess.run([*command, "."], cwd=folder, capture_output=True, text=True, check=True)
    return {line.split()[1] for line in ended.stdout.splitlines() if line.startswith("PASSED ")}
