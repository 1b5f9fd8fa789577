"""The example run and its report, made once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tamis.core.artifacts import Manifest
from tamis.reporting.settings import ReportingSettings
from tamis.reporting.stage import run
from tests.unit.reporting.example import Run, make_run

HOSTILE = "<script>alert(1)</script><img src=http://evil.example/x.png onerror=alert(2)>\x00\x1b[31m"
SETTINGS = ReportingSettings(
    title="A & B <b>", truth="grade", group="topic", notes=("This rater is weak & <i>small</i>.",)
)


@dataclass(frozen=True)
class Made:
    """A report and what it was made from."""

    run: Run
    folder: Path
    manifest: Manifest

    def text(self, name: str) -> str:
        """One of the report's files."""
        return (self.folder / name).read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The report of the example, with malicious texts in samples, errors, warnings, title and notes."""
    folder = tmp_path_factory.mktemp("report")
    example = make_run(folder, hostile=HOSTILE)
    manifest = run(SETTINGS, **example.inputs(), out=folder / "report")
    return Made(example, folder / "report", manifest)
