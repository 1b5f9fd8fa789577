"""Which tests run when: `--tier check` takes the short ones, `--tier test` leaves out the long ones.

How long a test function takes, all its cases together, stands in `tests/durations.txt`. With `TAMIS_WRITE_DURATIONS` a
run of all tests writes it. A function that is not there is a short one.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import pytest

_FILE = Path(__file__).with_name("durations.txt")
_LONGEST = {"check": 0.3, "test": 5.0, "all": float("inf")}  # seconds of a test function, all cases together
_NOTED = 0.2  # seconds below which a function is not written down
_taken: dict[str, float] = defaultdict(float)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that chooses a tier."""
    group = parser.getgroup("tamis")
    group.addoption("--tier", choices=[*_LONGEST, "long"], default="all", help="long: only what `--tier test` leaves")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of other tiers."""
    tier = config.getoption("tier")
    if tier == "all":
        return
    seconds, most = _known(), _LONGEST.get(tier, _LONGEST["test"])
    short = {item for item in items if seconds.get(_function(item.nodeid), 0.0) <= most}
    chosen = [item for item in items if (item in short) != (tier == "long")]
    config.hook.pytest_deselected(items=[item for item in items if item not in {*chosen}])
    items[:] = chosen


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up what the cases of each function take, with what they share."""
    _taken[_function(report.nodeid)] += report.duration


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the durations down, where that is asked for.

    Of a tier, the longer of two durations stays: what tests share counts for the first of them that runs.
    """
    if "TAMIS_WRITE_DURATIONS" not in os.environ or "PYTEST_XDIST_WORKER" in os.environ:
        return
    known = {} if session.config.getoption("tier") == "all" else _known()
    found = known | {name: max(taken, known.get(name, 0.0)) for name, taken in _taken.items()}
    lines = [f"{taken:7.1f}  {name}\n" for name, taken in sorted(found.items()) if taken >= _NOTED]
    _FILE.write_text("".join(lines), encoding="utf-8")


def _known() -> dict[str, float]:
    lines = _FILE.read_text(encoding="utf-8").splitlines() if _FILE.exists() else []
    return {name: float(taken) for taken, _, name in (line.strip().partition("  ") for line in lines)}


def _function(nodeid: str) -> str:
    return nodeid.partition("[")[0]
