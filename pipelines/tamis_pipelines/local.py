"""A whole run on one machine: the Kubeflow pipeline through `kfp.local`, finished steps reused, results laid out."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import IO, TYPE_CHECKING, TextIO

from tamis.core.errors import StoppedError, StorageError, TamisError, make_folder
from tamis.core.processes import stopped_by, stops_children
from tamis.core.progress import WARNING, load_packages
from tamis.core.secrets import shown
from tamis.kubeflow import REASON_FILE, RUNNER_PID, STOP_FILE
from tamis.llm.machine import STORE, store_of_run
from tamis_pipelines.budget import by_payer, shares_of
from tamis_pipelines.results import Results
from tamis_pipelines.settings import RunSettings

if TYPE_CHECKING:
    from tamis_pipelines.pods import CompileSettings

# As `core.progress` formats them; a run's outcome in Kubeflow's words is for Kubeflow.
_OWN_LINE = re.compile(r"^\s*\d\d:\d\d:\d\d tamis\.(?!cluster\.)\S* ")
# What kfp says of a task that begins, its name in colours; some tasks are kfp's housekeeping, no steps of a run.
_TASK = re.compile(r"(\d\d:\d\d:\d\d)\.\d+ - INFO - Executing task \S*?'([a-z-]+?)(?:-\d+)?'")
_ENDED = re.compile(r"^\s*\d\d:\d\d:\d\d tamis\.step error: ")
_GOING_ON = re.compile(r" tamis\.progress .*: (\d+) of (?!\1 )\d+ ")  # the last one of a step stays
_TEMPORARY = "tamis-run-"
_NO_STEPS = ("note-outcome", "require-all-cells")
_MOST_WARNINGS = 20  # repeated at the end


class RunError(TamisError):
    """A step of a local run failed."""

    code = "run"


def run(settings: RunSettings) -> Path:
    """Run the pipeline that `settings` ask for.

    Results appear in `settings.results` (`pool/`, `ratings/<rater>/`, …, `report/report.html`); finished steps are kept
    in `.tamis/` of `settings.work_dir` and reused by later runs, whether this one ends well or not.

    Returns:
        The folder of the report.

    Raises:
        RunError: when a step fails; its text names the step's own error.
        StoppedError: when SIGTERM or Ctrl-C ended it.
        StorageError: when the working folder cannot be used, or another run uses it.
    """
    load_packages("kfp")
    from kfp import local

    from tamis_pipelines.definitions import PIPELINES

    arguments = settings.arguments(by_payer(shares_of(settings)))
    work = settings.work_dir.resolve()
    home = work / ".tamis"
    runs, results = home / "runs", Results(settings.results.resolve(), home)
    make_folder(home)
    with _only_one(home / "lock", work):
        results.make_room(settings)
        shutil.rmtree(runs, ignore_errors=True)  # links of an earlier run; the steps themselves are in artifacts/
        os.environ |= places_of(home) | {RUNNER_PID: str(os.getpid())}
        # kfp doubts that an image without "python" in its name runs Python; no image is used here.
        warnings.filterwarnings("ignore", message="You may be attemping to run a task", category=RuntimeWarning)
        # And it says of every step that sizes of pods mean nothing here.
        warnings.filterwarnings("ignore", message="Task '.*': settings .* have no effect", category=UserWarning)
        run_log = home / "run.log"
        with (
            _temporary_files(home / "temporary") as temporary,
            run_log.open("w", encoding="utf-8") as file,
            redirect_stdout(_Screen(file, sys.stderr)) as screen,
            stops_children(temporary / "stop") as signals,
        ):
            reason = temporary / "reason"
            reason.write_text("")
            os.environ |= {REASON_FILE: str(reason), STOP_FILE: str(temporary / "stop")}
            local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(runs))
            try:
                with screen.line_removed():
                    PIPELINES[settings.pipeline](shape_of(settings))(**arguments)
            except RuntimeError:  # whose words are of Kubeflow's tasks
                screen.repeat_warnings()
                why = reason.read_text() or (
                    f"the step '{screen.step}' ended without a word; one that needs more memory than there is ends so"
                )
                if signals:
                    why = stopped_by(signals[0])
                reported = any(runs.rglob("report.html"))  # a cell failed, and the report on the others is made
                try:
                    finished = results.lay_out(runs, whole=reported)
                except StorageError as blocked:
                    why = f"{why}\nand: {blocked}"
                else:
                    shutil.rmtree(runs, ignore_errors=True)
                    why += f"\n  finished so far, in {results.folder}: {', '.join(finished)}" if finished else ""
                if signals:
                    raise StoppedError(
                        why, action="start again: the run goes on from there; finished steps and ratings are kept"
                    ) from None
                raise RunError(
                    f"{why}\n  log:     {run_log}",
                    action="after that, run the same command again; finished steps are reused",
                ) from None
        results.lay_out(runs)
        shutil.rmtree(runs)
        screen.repeat_warnings()
    return results.folder / "report"


def shape_of(settings: RunSettings) -> CompileSettings:
    """What is fixed in the pipeline of a run on one machine."""
    from tamis_pipelines.pods import CompileSettings, Retries

    judging = settings.judging is not None
    return CompileSettings(parallelism=1, retries=Retries(count=0), scores=settings.scores, judging=judging)


def places_of(home: Path) -> dict[str, str]:
    """The environment by which the steps of a run on one machine find what is kept.

    That is finished steps and unfinished work, in `home`, and the answers of all runs.

    Raises:
        StorageError: when the user has no home folder for answers.
    """
    store = store_of_run(home)
    return {"TAMIS_HOME": str(home)} | ({} if store is None else {STORE: store})


@contextmanager
def _only_one(lock: Path, work: Path) -> Iterator[None]:
    """Hold the working folder for this process; the system lets go of it when the process ends, however it ends."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                f"another run is using {work}", action="wait for its end, or choose another work_dir"
            ) from None
        yield


@contextmanager
def _temporary_files(note: Path) -> Iterator[Path]:
    """Give this process and its steps a folder for temporary files, and remove it at the end: kfp leaves some behind.

    Its place is written into `note`, so that the next run removes what a killed one has left.
    """
    left = Path(note.read_text(encoding="utf-8")) if note.is_file() else None
    if left is not None and left.name.startswith(_TEMPORARY):
        shutil.rmtree(left, ignore_errors=True)
    before, given = tempfile.tempdir, os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory(prefix=_TEMPORARY, ignore_cleanup_errors=True) as folder:
        note.write_text(folder, encoding="utf-8")
        tempfile.tempdir = os.environ["TMPDIR"] = folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = before
            os.environ.pop("TMPDIR")
            os.environ |= {"TMPDIR": given} if given is not None else {}
            note.unlink(missing_ok=True)


class _Screen:
    """Takes what kfp prints: keeps all of it but secrets in a file, and shows the lines of Tamis itself.

    `warnings` are those among them, whole and each once; `step` is the name of the step that has begun last.
    """

    def __init__(self, log_file: IO[str], terminal: TextIO) -> None:
        self._log, self._terminal, self._rest = log_file, terminal, ""
        self._showing, self._indent = False, 0
        self._brief = False  # whether only the message's first line is shown: the run's own error tells all of it
        self._in_place = 0  # characters of a line of progress that the next line replaces
        self._warning: list[str] = []  # the lines of the warning that may go on
        self.warnings: dict[str, None] = {}
        self.step = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in map(shown, lines):
            self._log.write(line + "\n")
            if (begun := _TASK.search(line)) is not None and begun[2] not in _NO_STEPS:
                self.step = begun[2]
                self._show(f"{begun[1]} tamis.run step {self.step}")
            own = _OWN_LINE.match(line)
            if own is not None:
                self._showing, self._indent = True, len(line) - len(line.lstrip())  # kfp indents what steps print
                self._brief = _ENDED.match(line) is not None
            # A message goes on in lines that are indented more than its first, up to an empty one.
            goes_on = bool(line.strip()) and line.startswith(" " * (self._indent + 2))
            self._showing = own is not None or (self._showing and goes_on and not self._brief)
            if self._showing:
                self._show(line[self._indent :].rstrip(), in_place=_GOING_ON.search(line) is not None)
            if own is not None or not self._showing:
                self._end_warning()
            if own is not None and line[own.end() :].startswith(WARNING):
                self._warning = [line[own.end() + len(WARNING) :].rstrip()]
            elif self._warning:
                self._warning.append(line[self._indent :].rstrip())
        self._log.flush()
        return len(text)

    def _show(self, line: str, *, in_place: bool = False) -> None:
        """Show a line; on a terminal, one that is `in_place` stays until there is another line."""
        self._end_line()
        if in_place and self._terminal.isatty():
            line = line[: shutil.get_terminal_size().columns - 1]
            self._in_place = len(line)
            print(line, end="", file=self._terminal, flush=True)
        else:
            print(line, file=self._terminal, flush=True)

    @contextmanager
    def line_removed(self) -> Iterator[None]:
        """At the end of this context, however it comes, no line of progress is left where others write."""
        try:
            yield
        finally:
            self._end_line()

    def _end_line(self) -> None:
        if self._in_place:
            print(f"\r{' ' * self._in_place}\r", end="", file=self._terminal, flush=True)
            self._in_place = 0

    def _end_warning(self) -> None:
        if self._warning:
            self.warnings["\n  ".join(self._warning)] = None
            self._warning = []

    def repeat_warnings(self) -> None:
        """Say once more what was warned of on the way."""
        self._end_warning()
        if self.warnings:
            print(f"\nWarnings of this run, {len(self.warnings)}:", file=self._terminal)
            for warning in list(self.warnings)[:_MOST_WARNINGS]:
                print(f"  {warning}", file=self._terminal)
            if len(self.warnings) > _MOST_WARNINGS:
                print(f"  and {len(self.warnings) - _MOST_WARNINGS} more in {self._log.name}", file=self._terminal)

    def flush(self) -> None:
        self._log.flush()
