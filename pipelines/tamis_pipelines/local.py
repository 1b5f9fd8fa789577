"""A whole run on one machine: the Kubeflow pipeline through `kfp.local`, finished steps reused, results laid out."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import IO, TextIO

from tamis.core.artifacts import MANIFEST, Artifact, Kind
from tamis.core.errors import StorageError, TamisError, explained_os_errors
from tamis.core.kubeflow import REASON_FILE, RUNNER_PID
from tamis.core.storage import link_tree
from tamis_pipelines.settings import RunSettings

log = logging.getLogger(__name__)

# Where each kind lies in the working folder. Those that a run has several of get a folder each, by name.
_SHELVES: dict[Kind, str] = {
    "pool": "pool",
    "ratings": "ratings",
    "embeddings": "embeddings",
    "neighbors": "neighbors",
    "curation": "curation",
    "scores": "scores",
    "selection": "selections",
    "model": "models",
    "evaluation": "evaluations",
    "judgement": "judgements",
    "report": "report",
}
_OWN_LINE = re.compile(r"^\s*\d\d:\d\d:\d\d tamis\.")  # as `core.progress` formats them


class RunError(TamisError):
    """A step of a local run failed."""


def run(settings: RunSettings) -> Path:
    """Run the pipeline that `settings` ask for.

    Results appear in `settings.work_dir` (`pool/`, `ratings/<rater>/`, …, `report/report.html`); finished steps are
    kept in its `.tamis/` and reused by later runs, whether this one ends well or not.

    Returns:
        The folder of the report.

    Raises:
        RunError: when a step fails; its text names the step's own error.
        StorageError: when the working folder cannot be used, or another run uses it.
    """
    from kfp import local

    from tamis_pipelines.definitions import PIPELINES
    from tamis_pipelines.pods import CompileSettings, Retries

    work = settings.work_dir.resolve()
    home = work / ".tamis"
    runs = home / "runs"
    with explained_os_errors(f"writing {work}"):
        home.mkdir(parents=True, exist_ok=True)
    with _only_one(home / "lock", work):
        shutil.rmtree(runs, ignore_errors=True)  # links of an earlier run; the steps themselves are in artifacts/
        os.environ["TAMIS_HOME"], os.environ[RUNNER_PID] = str(home), str(os.getpid())
        # kfp doubts that an image without "python" in its name runs Python; no image is used here.
        warnings.filterwarnings("ignore", message="You may be attemping to run a task", category=RuntimeWarning)
        # And it says of every step that sizes of pods mean nothing here.
        warnings.filterwarnings("ignore", message="Task '.*': settings .* have no effect", category=UserWarning)
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(runs))
        reason, run_log = home / "reason", home / "run.log"
        reason.write_text("")
        os.environ[REASON_FILE] = str(reason)
        with run_log.open("w", encoding="utf-8") as file, redirect_stdout(_Screen(file, sys.stderr)):
            try:
                judging = settings.judging is not None
                fixed = CompileSettings(
                    parallelism=1, retries=Retries(count=0), scores=settings.scores, judging=judging
                )
                PIPELINES[settings.pipeline](fixed)(**settings.arguments())
            except RuntimeError as error:
                if any(runs.rglob("report.html")):  # a cell failed, and the report on the others is made
                    _lay_out(runs, work)
                why = reason.read_text() or f"{error}; the step's own words are in the log"
                raise RunError(
                    f"{why}\n  log:     {run_log}", action="then start again: finished steps are kept"
                ) from None
        _lay_out(runs, work)
        shutil.rmtree(runs)
    return work / "report"


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


class _Screen:
    """Takes what kfp prints: keeps all of it in a file, and shows the lines of Tamis itself."""

    def __init__(self, log_file: IO[str], terminal: TextIO) -> None:
        self._log, self._terminal, self._rest = log_file, terminal, ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._log.write(line + "\n")
            if _OWN_LINE.match(line):
                print(line.strip(), file=self._terminal, flush=True)
        self._log.flush()
        return len(text)

    def flush(self) -> None:
        self._log.flush()


def _lay_out(runs: Path, work: Path) -> None:
    """Link every artifact of the run to its place in the working folder, in place of an earlier run's."""
    shelves: dict[str, list[Artifact]] = {}
    for manifest in sorted(runs.rglob(MANIFEST)):
        artifact = Artifact.open(manifest.parent)
        shelves.setdefault(_SHELVES[artifact.manifest.kind], []).append(artifact)
    for shelf in _SHELVES.values():
        shutil.rmtree(work / shelf, ignore_errors=True)
        for artifact in shelves.get(shelf, ()):
            link_tree(artifact.folder, work / shelf / artifact.name)
