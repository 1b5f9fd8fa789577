"""A whole run on one machine: the Kubeflow pipeline in `kfp.local`, with finished steps reused."""

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
from tamis.core.last_words import REASON_FILE
from tamis.core.processes import stopped_by, stops_children
from tamis.core.progress import WARNING, load_packages
from tamis.core.secrets import shown
from tamis.kubeflow import RUNNER_PID, STOP_FILE
from tamis.llm.machine import STORE, store_of_run
from tamis_pipelines.budget import by_payer, shares_of
from tamis_pipelines.results import Results
from tamis_pipelines.settings import RunSettings

if TYPE_CHECKING:
    from tamis_pipelines.pods import CompileSettings

# Lines of Tamis, as `core.progress` formats them. Lines of tamis.cluster are meant for Kubeflow.
_OWN_LINE = re.compile(r"^\s*\d\d:\d\d:\d\d tamis\.(?!cluster\.)\S* ")
# kfp's line for a task that starts, with its name in colours. Tasks in _NO_STEPS are not steps of a run.
_TASK = re.compile(r"(\d\d:\d\d:\d\d)\.\d+ - INFO - Executing task \S*?'([a-z-]+?)(?:-\d+)?'")
_ENDED = re.compile(r"^\s*\d\d:\d\d:\d\d tamis\.step error: ")
_GOING_ON = re.compile(r" tamis\.progress .*: (\d+) of (?!\1 )\d+ ")  # progress that the next line may replace
_TEMPORARY = "tamis-run-"
_NO_STEPS = ("start-run", "note-outcome", "require-all-cells")
_MOST_WARNINGS = 20  # repeated at the end


class RunError(TamisError):
    """A step of a local run failed."""

    code = "run"


def run(settings: RunSettings) -> Path:
    """Run the pipeline that `settings` describe.

    Results appear in `settings.results` (`pool/`, `ratings/<rater>/`, …, `report/report.html`). Finished steps are kept
    in `.tamis/` of `settings.work_dir`, where later runs reuse them, even if this run fails.

    Returns:
        The folder of the report.

    Raises:
        RunError: when a step fails; its text has the step's own error.
        StoppedError: when SIGTERM or Ctrl-C stopped the run.
        StorageError: when the working folder cannot be used, or another run uses it.
    """
    load_packages("kfp")
    from kfp import local

    from tamis_pipelines.definitions import pipeline

    arguments = settings.arguments(by_payer(shares_of(settings)))
    work = settings.work_dir.resolve()
    home = work / ".tamis"
    runs, results = home / "runs", Results(settings.results.resolve(), home)
    make_folder(home)
    with _only_one(home / "lock", work):
        results.make_room(settings)
        shutil.rmtree(runs, ignore_errors=True)  # links of an earlier run; the steps themselves are in artifacts/
        os.environ |= places_of(home) | {RUNNER_PID: str(os.getpid())}
        # kfp warns if an image's name does not contain "python"; no image is used here.
        warnings.filterwarnings("ignore", message="You may be attemping to run a task", category=RuntimeWarning)
        # It also warns for every step that a pod's resources have no effect here.
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
                    pipeline(settings.pipeline, shape_of(settings), grouped=False)(**arguments)
            except RuntimeError:  # its text is about Kubeflow's tasks
                screen.repeat_warnings()
                why = reason.read_text() or (
                    f"the step '{screen.step}' ended without an error message, as happens when memory runs out"
                )
                if signals:
                    why = stopped_by(signals[0])
                reported = any(runs.rglob("report.html"))  # a cell failed, but the others have their report
                try:
                    finished = results.lay_out(runs, whole=reported)
                except StorageError as blocked:
                    why = f"{why}\nand: {blocked}"
                else:
                    shutil.rmtree(runs, ignore_errors=True)
                    why += f"\n  finished so far, in {results.folder}: {', '.join(finished)}" if finished else ""
                if signals:
                    raise StoppedError(
                        why, action="start the run again to continue; finished steps and ratings are kept"
                    ) from None
                raise RunError(
                    f"{why}\n  log:     {run_log}",
                    action="fix the cause, then run the same command again; finished steps are reused",
                ) from None
        results.lay_out(runs)
        shutil.rmtree(runs)
        screen.repeat_warnings()
    return results.folder / "report"


def shape_of(settings: RunSettings) -> CompileSettings:
    """Return what is compiled into the pipeline of a run on one machine."""
    from tamis_pipelines.pods import OPTIONAL_STEPS, CompileSettings, Retries

    steps = {name: getattr(settings, name) is not None for name in ("judging", *OPTIONAL_STEPS)}
    return CompileSettings(parallelism=1, retries=Retries(count=0)).model_copy(
        update=steps | {"scores": settings.scores}
    )


def places_of(home: Path) -> dict[str, str]:
    """Return the environment variables that tell a local run's steps where to keep things.

    Finished steps and unfinished work are in `home`; the answers of all runs are in the default store.

    Raises:
        StorageError: when the user has no home folder for the store.
    """
    store = store_of_run(home)
    return {"TAMIS_HOME": str(home)} | ({} if store is None else {STORE: store})


@contextmanager
def _only_one(lock: Path, work: Path) -> Iterator[None]:
    """Lock the working folder for this process; the system releases the lock however the process ends."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                f"another run is using {work}", action="wait until it ends, or choose another work_dir"
            ) from None
        yield


@contextmanager
def _temporary_files(note: Path) -> Iterator[Path]:
    """Give this process and its steps a temporary folder, and remove it at the end, because kfp leaves files behind.

    Its path is written to `note`, so that the next run can remove the folder of a killed one.
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
    """Filters what kfp prints: writes everything except secrets to a file, and shows the lines of Tamis.

    Attributes:
        warnings: the warnings among these lines, in full and each once.
        step: name of the step that started last.
    """

    def __init__(self, log_file: IO[str], terminal: TextIO) -> None:
        self._log, self._terminal, self._rest = log_file, terminal, ""
        self._showing, self._indent = False, 0
        self._brief = False  # whether to show only a message's first line, because the run's own error has all of it
        self._in_place = 0  # length of the progress line that the next line replaces
        self._warning: list[str] = []  # lines of a warning that may continue
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
            # A message continues in lines that are indented more than its first line, up to an empty line.
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
        """Show a line; on a terminal, the next line replaces one that is `in_place`."""
        self._end_line()
        if in_place and self._terminal.isatty():
            line = line[: shutil.get_terminal_size().columns - 1]
            self._in_place = len(line)
            print(line, end="", file=self._terminal, flush=True)
        else:
            print(line, file=self._terminal, flush=True)

    @contextmanager
    def line_removed(self) -> Iterator[None]:
        """Remove the progress line at the end of this context, also after an error, so that others can write."""
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
        """Repeat the warnings of the run."""
        self._end_warning()
        if self.warnings:
            noun = "warning" if len(self.warnings) == 1 else "warnings"
            print(f"\n{len(self.warnings)} {noun} in this run:", file=self._terminal)
            for warning in list(self.warnings)[:_MOST_WARNINGS]:
                print(f"  {warning}", file=self._terminal)
            if len(self.warnings) > _MOST_WARNINGS:
                print(f"  and {len(self.warnings) - _MOST_WARNINGS} more in {self._log.name}", file=self._terminal)

    def flush(self) -> None:
        self._log.flush()
