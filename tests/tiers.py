"""Which tests run when: `--tier check` and `--tier test` take the shortest that fit into a number of seconds.

How long each test function takes, all its cases together, stands in `tests/durations.txt`, and how long the fixtures
take that tests of a module or of a whole run share. A run of all tests with `TAMIS_WRITE_DURATIONS` writes it. What is
not there takes no time.
"""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Generator, Mapping
from pathlib import Path
from typing import Any

import pytest

_FILE = Path(__file__).with_name("durations.txt")
# Seconds of work, which two processes share. Start, collection and, for `check`, lint take some 30 seconds more.
_SECONDS = {"check": 40.0, "test": 500.0}
_PROCESSES = 2  # each makes the shared fixtures for itself
_NOTED = 0.05  # seconds below which nothing is written down
_taken: dict[str, float] = defaultdict(float)
_made: list[tuple[str, float]] = []  # shared fixtures made for the test that is being set up, with seconds


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that chooses a tier."""
    group = parser.getgroup("tamis")
    group.addoption("--tier", choices=[*_SECONDS, "long", "all"], default="all", help="long: what `--tier test` leaves")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of other tiers."""
    tier = config.getoption("tier")
    if tier == "all":
        return
    shared = {_function(item.nodeid): _shared_fixtures(item) for item in items}
    short = shortest(_known(), shared, _SECONDS.get(tier, _SECONDS["test"]))
    chosen = [item for item in items if (_function(item.nodeid) in short) != (tier == "long")]
    config.hook.pytest_deselected(items=[item for item in items if item not in {*chosen}])
    items[:] = chosen


def shortest(known: Mapping[str, float], shared: Mapping[str, Collection[str]], seconds: float) -> set[str]:
    """The test functions that together take no more than `seconds`, the shortest first.

    Args:
        known: seconds of functions and of shared fixtures; 0 for any other.
        shared: for each function, the shared fixtures that it uses. They count once for each process. In the order of
            functions, each takes an equal part of them.
        seconds: of all processes together.
    """
    users = Counter(fixture for fixtures in shared.values() for fixture in fixtures)

    def alone(function: str) -> float:
        return known.get(function, 0.0) + sum(known.get(fixture, 0.0) / users[fixture] for fixture in shared[function])

    chosen: set[str] = set()
    made: set[str] = set()
    for function in sorted(shared, key=lambda function: (alone(function), function)):
        new = {*shared[function]} - made
        takes = known.get(function, 0.0) + _PROCESSES * sum(known.get(fixture, 0.0) for fixture in new)
        if takes <= seconds:
            seconds -= takes
            made |= new
            chosen.add(function)
    return chosen


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
    """Measure how long shared fixtures take, without those that they use themselves."""
    began = time.perf_counter()
    try:
        return (yield)
    finally:
        if fixturedef.scope != "function":
            _made.append((_name(fixturedef), time.perf_counter() - began))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the shared fixtures that were made for a test into the report of its set-up."""
    report = yield
    if call.when == "setup":
        report.shared_fixtures = [*_made]
        _made.clear()
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up what the cases of each function take, without what they share."""
    made = getattr(report, "shared_fixtures", [])
    _taken[_function(report.nodeid)] += max(0.0, report.duration - sum(seconds for _, seconds in made))
    for name, seconds in made:
        _taken[name] = max(_taken[name], seconds)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the durations down, where that is asked for; those of tests that did not run stay, if not all were to."""
    if "TAMIS_WRITE_DURATIONS" not in os.environ or "PYTEST_XDIST_WORKER" in os.environ:
        return
    known = {} if session.config.getoption("tier") == "all" else _known()
    lines = [f"{taken:8.2f}  {name}\n" for name, taken in sorted((known | _taken).items()) if taken >= _NOTED]
    _FILE.write_text("".join(lines), encoding="utf-8")


def _known() -> dict[str, float]:
    lines = _FILE.read_text(encoding="utf-8").splitlines() if _FILE.exists() else []
    return {name: float(taken) for taken, _, name in (line.strip().partition("  ") for line in lines)}


def _shared_fixtures(item: pytest.Item) -> set[str]:
    info = getattr(item, "_fixtureinfo", None)
    found = info.name2fixturedefs.values() if info is not None else ()
    return {_name(fixtures[-1]) for fixtures in found if fixtures and fixtures[-1].scope != "function"}


def _name(fixture: pytest.FixtureDef[Any]) -> str:
    return f"{fixture.baseid}::{fixture.argname}"


def _function(nodeid: str) -> str:
    return nodeid.partition("[")[0]
