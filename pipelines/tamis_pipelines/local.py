"""A whole run on one machine: the Kubeflow pipeline through `kfp.local`, finished steps reused, results laid out."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import shutil
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import IO, TextIO

from tamis.core.artifacts import MANIFEST, Artifact, Kind, Manifest, manifest_in
from tamis.core.errors import StoppedError, StorageError, TamisError, explained_os_errors
from tamis.core.kubeflow import REASON_FILE, RUNNER_PID, STOP_FILE
from tamis.core.processes import stops_children
from tamis.core.storage import link_tree, write_bytes
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
_RECORD = "laid-out.json"
_SINGLE: tuple[Kind, ...] = ("pool", "embeddings", "neighbors", "curation", "report")
# As `core.progress` formats them; a run's outcome in Kubeflow's words is for Kubeflow.
_OWN_LINE = re.compile(r"^\s*\d\d:\d\d:\d\d tamis\.(?!cluster\.)")


class RunError(TamisError):
    """A step of a local run failed."""

    code = "run"


def run(settings: RunSettings) -> Path:
    """Run the pipeline that `settings` ask for.

    Results appear in `settings.work_dir` (`pool/`, `ratings/<rater>/`, …, `report/report.html`); finished steps are
    kept in its `.tamis/` and reused by later runs, whether this one ends well or not.

    Returns:
        The folder of the report.

    Raises:
        RunError: when a step fails; its text names the step's own error.
        StoppedError: when SIGTERM or Ctrl-C ended it.
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
        _refuse_foreign(settings, work, home)
        shutil.rmtree(runs, ignore_errors=True)  # links of an earlier run; the steps themselves are in artifacts/
        stop = home / "stop"
        os.environ |= {"TAMIS_HOME": str(home), RUNNER_PID: str(os.getpid()), STOP_FILE: str(stop)}
        # kfp doubts that an image without "python" in its name runs Python; no image is used here.
        warnings.filterwarnings("ignore", message="You may be attemping to run a task", category=RuntimeWarning)
        # And it says of every step that sizes of pods mean nothing here.
        warnings.filterwarnings("ignore", message="Task '.*': settings .* have no effect", category=UserWarning)
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(runs))
        reason, run_log = home / "reason", home / "run.log"
        reason.write_text("")
        os.environ[REASON_FILE] = str(reason)
        with (
            run_log.open("w", encoding="utf-8") as file,
            redirect_stdout(_Screen(file, sys.stderr)),
            stops_children(stop) as signals,
        ):
            try:
                judging = settings.judging is not None
                fixed = CompileSettings(
                    parallelism=1, retries=Retries(count=0), scores=settings.scores, judging=judging
                )
                PIPELINES[settings.pipeline](fixed)(**settings.arguments())
            except RuntimeError as error:
                why = reason.read_text() or f"{error}; the step's own words are in the log"
                if signals:
                    why = f"ended from outside ({signal.Signals(signals[0]).name})"
                reported = any(runs.rglob("report.html"))  # a cell failed, and the report on the others is made
                try:
                    finished = _lay_out(runs, work, home, whole=reported)
                except StorageError as blocked:
                    why = f"{why}\nand: {blocked}"
                else:
                    why += f"\n  finished, in {work}: {', '.join(finished)}" if finished else ""
                if signals:
                    raise StoppedError(
                        why, action="start again: the run goes on from there; answers of services are kept too"
                    ) from None
                raise RunError(
                    f"{why}\n  log:     {run_log}", action="then start again: finished steps are kept"
                ) from None
        _lay_out(runs, work, home)
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


def _lay_out(runs: Path, work: Path, home: Path, *, whole: bool = True) -> list[str]:
    """Link every artifact of the run to its place in the working folder, in place of an earlier run's.

    Where the run is not `whole`, artifacts of an earlier run stay that it has not made anew, such as the report.

    Returns:
        The places, in order.

    Raises:
        StorageError: when other files are in the way of some; the others are there then. Or when the folder cannot be
            written.
    """
    with explained_os_errors(f"writing {work}"):
        places, blocked = _put_in_place(runs, work, home, whole)
    if blocked:
        raise _in_the_way(blocked)
    return places


def _put_in_place(runs: Path, work: Path, home: Path, whole: bool) -> tuple[list[str], list[Path]]:
    """Returns: the artifacts' places, and those where other files are in the way."""
    earlier, blocked = _laid_out(work, home), []
    artifacts = [Artifact.open(path.parent) for path in sorted(runs.rglob(MANIFEST))]
    places = {_place_of(artifact.manifest): artifact for artifact in artifacts}
    now = {place: artifact.manifest.key for place, artifact in places.items()}
    kept = {} if whole else {place: key for place, key in earlier.items() if place not in now}
    _record(home, [*earlier.items(), *now.items()])  # both, for a kill in between
    for place in [place for place in earlier if place not in kept]:
        _clear(work / place)
    for place, artifact in places.items():
        if any((work / place / name).exists() for name in _files_of(artifact.manifest)):
            blocked.append(work / place)
        else:
            _put(artifact.folder, work / place, home)
    _record(home, [*kept.items(), *now.items()])
    return sorted(places), blocked


def _put(folder: Path, place: Path, home: Path) -> None:
    """Link an artifact to its place; it appears there in one move, unless files of the user's lie there as well."""
    if place.exists():
        link_tree(folder, place)
        return
    waiting = home / "laying-out"
    shutil.rmtree(waiting, ignore_errors=True)
    link_tree(folder, waiting)
    place.parent.mkdir(parents=True, exist_ok=True)
    os.replace(waiting, place)


def _place_of(manifest: Manifest) -> str:
    return str(Path(_SHELVES[manifest.kind]) / manifest.name)


def _refuse_foreign(settings: RunSettings, work: Path, home: Path) -> None:
    """Make sure that no place of a result is one of the user's files or folders.

    Raises:
        StorageError: naming those that are.
    """
    cells = [cell.name for cell in settings.cells]
    names: dict[Kind, list[str]] = {kind: [""] for kind in _SINGLE}
    names |= {"ratings": [rater.name for rater in settings.raters]}
    names |= {kind: cells for kind in ("selection", "model", "evaluation", "judgement")}
    earlier = _laid_out(work, home)
    places = [str(Path(_SHELVES[kind]) / name) for kind, those in names.items() for name in those]
    if foreign := [work / place for place in places if place not in earlier and _in_use(work / place)]:
        raise _in_the_way(foreign)


def _in_use(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.exists()


def _in_the_way(places: list[Path]) -> StorageError:
    return StorageError(
        f"{', '.join(map(str, places))}: other files are where results of the run belong",
        action="move them, or choose another work_dir",
    )


def _record(home: Path, places: Iterable[tuple[str, str]]) -> None:
    """Note which artifacts, by their keys, an earlier run has put where."""
    write_bytes(home / _RECORD, (json.dumps(list(places)) + "\n").encode())


def _laid_out(work: Path, home: Path) -> dict[str, str]:
    """Where artifacts of an earlier run lie in the working folder, with their keys."""
    noted = json.loads((home / _RECORD).read_bytes()) if (home / _RECORD).is_file() else []
    return {place: key for place, key in noted if (found := manifest_in(work / place)) is not None and found.key == key}


def _clear(folder: Path) -> None:
    """Remove the files of the artifact in `folder`, and folders that are empty then; what a user put there stays."""
    manifest = manifest_in(folder)
    for name in _files_of(manifest) if manifest else ():
        (folder / name).unlink(missing_ok=True)
    for below in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        _remove_if_empty(below)
    _remove_if_empty(folder)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
        folder.rmdir()


def _files_of(manifest: Manifest) -> list[str]:
    return [*(file.name for file in manifest.files), MANIFEST]  # the manifest last: it tells what the folder is
