"""A test that skips proves nothing: with `TAMIS_TEST_SKIPS`, only those named in that file may skip.

Each line of the file has the path of a test file and the beginning of the reason that its tests may skip for.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest


def _allowed(file: Path) -> list[tuple[str, str]]:
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip() and line[0] != "#"]
    return [(path, reason.strip()) for path, _, reason in (line.partition(" ") for line in lines)]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run when a test has skipped that is not on the list."""
    file, reporter = os.environ.get("TAMIS_TEST_SKIPS"), session.config.pluginmanager.get_plugin("terminalreporter")
    if not file or reporter is None or "PYTEST_XDIST_WORKER" in os.environ:
        return
    allowed = _allowed(Path(file))
    for report in reporter.stats.get("skipped", ()):
        path, reason = report.nodeid.partition("::")[0], _reason(report)
        if not any(path == known and reason.startswith(beginning) for known, beginning in allowed):
            reporter.write_line(f"SKIPPED, and not named in {file}: {report.nodeid}: {reason}", red=True)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _reason(report: Any) -> str:
    told = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return told.removeprefix("Skipped: ")
