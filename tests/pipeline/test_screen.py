"""What a local run shows of the lines of its steps, and what it says once more at the end."""

from __future__ import annotations

import io
import logging
import os
import tempfile
from pathlib import Path

import pytest

from tamis.core import progress

pytest.importorskip("kfp")

LINES = """
12:00:00.123 - INFO - kfp is talking
    12:00:01 tamis.core.steps pool: started
    12:00:01.5 - INFO - kfp is talking again
    12:00:01 tamis.pool error: no rows
      to do:   give some
        
        Loading weights: 100%|##########| 103/103
    [KFP Executor 2026-11-30 12:15:26,561 INFO]: Got executor_input:
        "inputs": {
12:00:02 tamis.pool warning: 3 rows are no samples
  the first: row 7
not ours
  nor this
12:00:03 tamis.pool warning: 3 rows are no samples
  the first: row 7
12:00:04 tamis.cluster.outcome ended as COMPLETE
12:00:05 tamis.curation warning: few samples
12:00:06 tamis.step error: making pool failed: the disk is full
  to do:   free space
Traceback (most recent call last):
  File "somewhere"
"""


def test_own_lines_are_shown_with_what_belongs_to_them_and_warnings_are_repeated_once() -> None:
    from tamis_pipelines.local import _Screen

    log, terminal = io.StringIO(), io.StringIO()
    screen = _Screen(log, terminal)
    for start in range(0, len(LINES), 7):  # in pieces, as they come
        screen.write(LINES[start : start + 7])
    assert log.getvalue() == LINES
    assert terminal.getvalue().splitlines() == [
        "12:00:01 tamis.core.steps pool: started",
        "12:00:01 tamis.pool error: no rows",
        "  to do:   give some",
        "12:00:02 tamis.pool warning: 3 rows are no samples",
        "  the first: row 7",
        "12:00:03 tamis.pool warning: 3 rows are no samples",
        "  the first: row 7",
        "12:00:05 tamis.curation warning: few samples",
        "12:00:06 tamis.step error: making pool failed: the disk is full",  # the run's own error says the rest
    ]
    terminal.truncate(0)
    terminal.seek(0)
    screen.repeat_warnings()
    assert [line.strip() for line in terminal.getvalue().splitlines()[2:]] == [
        "3 rows are no samples",
        "the first: row 7",
        "few samples",
    ]


PROGRESS = """12:00:01 tamis.progress rater 'x': 10 of 400 samples (2 %), 3.0/s, 130 s left
    12:00:11 tamis.progress rater 'x': 120 of 400 samples (30 %), 11.0/s
12:00:12 tamis.rating a word
12:00:21 tamis.progress rater 'x': 300 of 400 samples (75 %), 11.0/s, and what else there is to be said of it, at length
12:00:31 tamis.progress rater 'x': 400 of 400 samples (100 %), 11.0/s
12:00:41 tamis.progress rater 'y': 1 of 11 samples (9 %), 3.0/s
"""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_progress_stays_in_one_line_and_the_end_of_a_step_remains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tamis_pipelines.local import _Screen

    monkeypatch.setenv("COLUMNS", "90")
    terminal, log = Terminal(), io.StringIO()
    screen = _Screen(log, terminal)
    screen.write(PROGRESS)
    assert not terminal.getvalue().endswith("\n")
    with pytest.raises(KeyboardInterrupt), screen.line_removed():
        raise KeyboardInterrupt
    assert log.getvalue() == PROGRESS
    shown = [[part.rstrip() for part in line.split("\r")] for line in terminal.getvalue().split("\n")]
    assert max(len(part) for line in shown for part in line) == 89
    assert [line[-1] for line in shown] == [
        "12:00:12 tamis.rating a word",
        "12:00:31 tamis.progress rater 'x': 400 of 400 samples (100 %), 11.0/s",
        "",
    ]
    assert [part for line in shown for part in line if " 120 of 400 " in part]


def test_elsewhere_each_line_of_progress_is_a_line() -> None:
    from tamis_pipelines.local import _Screen

    terminal = io.StringIO()
    screen = _Screen(io.StringIO(), terminal)
    with screen.line_removed():
        screen.write(PROGRESS)
    assert terminal.getvalue() == PROGRESS.replace("    12", "12")


def test_a_step_that_begins_is_said_and_housekeeping_is_not() -> None:
    from tamis_pipelines.local import _Screen

    terminal = io.StringIO()
    screen = _Screen(io.StringIO(), terminal)
    for task in ("pool", "find-neighbors", "evaluate-2", "require-all-cells", "note-outcome"):
        screen.write(f"07:09:15.758 - INFO - Executing task \x1b[96m'{task}'\x1b[0m\n")
    said = [line.split(" ", 1)[1] for line in terminal.getvalue().splitlines()]
    assert said == ["tamis.run step pool", "tamis.run step find-neighbors", "tamis.run step evaluate"]
    assert screen.step == "evaluate"


def test_temporary_files_go_at_the_end_and_those_of_a_killed_run_at_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tamis_pipelines.local import _temporary_files

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    note, left, mine = tmp_path / "note", tmp_path / "tamis-run-killed", tmp_path / "mine"
    for folder in (left, mine):
        folder.mkdir()
    note.write_text(str(left))
    with _temporary_files(note) as temporary:
        assert not left.exists()
        assert Path(tempfile.mkdtemp()).parent == Path(os.environ["TMPDIR"]) == Path(note.read_text()) == temporary
    assert os.environ["TMPDIR"] == str(tmp_path)
    note.write_text(str(mine))  # no folder of a run
    with _temporary_files(note):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_warnings_and_errors_are_labelled(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    try:
        progress.set_up_logging()
        for level in (logging.INFO, logging.WARNING, logging.ERROR):
            logging.getLogger("tamis.x").log(level, "said")
        said = [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    finally:
        root.handlers[:] = before
    assert said == ["tamis.x said", "tamis.x warning: said", "tamis.x error: said"]
