"""A step: one execution of a stage, from inputs to a finished artifact. It is reused if nothing it depends on changed.

Every stage's `run` calls `run_step`. The body writes into a private folder. The folder gets its manifest and its final
name only when the body has succeeded, so that a kill or an error never leaves an incomplete artifact that looks
complete.

The variable `TAMIS_HOME` names a folder that keeps finished artifacts by key (`artifacts/`) and unfinished work that
the next attempt continues (`scratch/`). `tamis run` sets it to `.tamis` in its work_dir; a pod may set it to a mounted
folder. Without it, unfinished work is next to a local output, or in the user's cache for an output in object storage.
"""

from __future__ import annotations

import fcntl
import logging
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Generic, TypeAlias, TypeVar

from tamis.core import storage
from tamis.core.artifacts import (
    MANIFEST,
    SCHEMA_VERSION,
    Artifact,
    Execution,
    Kind,
    Manifest,
    content_hash,
    files_in,
    manifest_in,
    manifest_of,
    versions,
)
from tamis.core.errors import ArtifactError, TamisError, explained_os_errors, make_folder
from tamis.core.finished import fetch, place_of
from tamis.core.hardware import hardware
from tamis.core.outlook import LookedAtError, Outlook, looking
from tamis.core.processes import ended_in_order
from tamis.core.secrets import masked_values, shown
from tamis.core.settings import StageSettings, canonical_json, hash_of

log = logging.getLogger(__name__)
_LOCK = "lock"  # a file in every folder of unfinished work
S = TypeVar("S", bound=StageSettings)
Uri: TypeAlias = "str | Path"


@dataclass
class Step(Generic[S]):
    """What a stage's body works with: validated settings, open inputs, a folder for the output, and its findings.

    Attributes:
        settings: the stage's settings.
        out: an empty local folder; its content becomes the artifact when the body returns.
        scratch: a folder that survives a kill, for the next run of the same step; removed at the end.
        rows: row count for the manifest, set by the body.
        facts: counts and measurements for the manifest (JSON values), set by the body.
        models: model revisions by role for the manifest, set by the body.
    """

    settings: S
    out: Path
    scratch: Path
    _inputs: Mapping[str, Sequence[Artifact]]
    rows: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)

    def input(self, name: str) -> Artifact:
        """The one artifact given as input `name`."""
        (artifact,) = self._inputs[name]
        return artifact

    def inputs(self, name: str) -> Sequence[Artifact]:
        """All artifacts given as input `name`; there may be none."""
        return self._inputs.get(name, ())


@dataclass(frozen=True)
class Input:
    """The location of a step's input, and its allowed kinds. `uri` is one location, several, or None if not given."""

    uri: Uri | Sequence[Uri] | None
    kind: Kind
    other: Kind | None = None

    @property
    def uris(self) -> list[Uri]:
        """The locations; there may be none."""
        return [] if self.uri is None else [self.uri] if isinstance(self.uri, (str, Path)) else list(self.uri)

    def open(self, cache: Path | None) -> list[Artifact]:
        """Open the artifacts; `cache` is the folder for downloads from object storage.

        Raises:
            ArtifactError: when one is missing, unfinished or of another kind.
        """
        kinds = [self.kind, *([self.other] if self.other else [])]
        return [Artifact.open(uri, *kinds, cache=cache) for uri in self.uris]


def run_step(
    stage: str,
    kind: Kind,
    settings: S,
    body: Callable[[Step[S]], None],
    *,
    out: Uri,
    inputs: Mapping[str, Input] | None = None,
    files: Mapping[str, str] | None = None,
    name: str = "",
    tells_origins: bool = False,
) -> Manifest:
    """Run `body` and make its folder the finished artifact at `out`, unless an equal step is already finished.

    Args:
        stage: the stage's name, as in "curation".
        kind: kind of the artifact.
        settings: the stage's settings. Except for money limits and paces they are part of the step's key, as is the
            stage's output revision.
        body: does the work; called only if nothing can be reused.
        out: a local folder, or a prefix in object storage.
        inputs: input names to locations; the content hashes are part of the key.
        files: what else the result depends on, each with a fingerprint of its content (`storage.fingerprint`).
        name: the user's name for this artifact, if a run has several of its kind.
        tells_origins: whether the result shows what its inputs were made from. Their keys are then part of this step's
            key, because different settings may produce equal content.

    Returns:
        The manifest of the artifact at `out`.

    Raises:
        ArtifactError: when an input cannot be used, or `out` already has another finished artifact or other files.
        StorageError: when `out` cannot be written.
        StoppedError: when SIGTERM or Ctrl-C stopped the work.
        LookedAtError: always, within `only_looking`.
    """
    home = Path(os.environ["TAMIS_HOME"]) if "TAMIS_HOME" in os.environ else None
    if not storage.is_remote(out) and not looking():
        out = Path(os.path.expanduser(out)).resolve()
        _refuse_foreign(out)
    places = [out, *(uri for value in (inputs or {}).values() for uri in value.uris)]
    # Created only for object storage, because a kill would leave it behind.
    fetches = home is None and any(map(storage.is_remote, places))
    with tempfile.TemporaryDirectory(prefix="tamis-") if fetches else nullcontext() as temporary:
        at_hand = Path(temporary) if temporary else home
        cache = at_hand / "downloads" if at_hand else None
        opened = {key: value.open(cache) for key, value in (inputs or {}).items()}
        recipe = _Recipe(stage, kind, name, settings, opened, dict(files or {}), tells_origins)
        kept = _kept_in(home, stage, recipe.key) if home else None
        if looking():
            raise LookedAtError(Outlook(stage, name, recipe.key, kept, _kept(recipe, kept)))
        if (finished := _finished_before(recipe, kept, out)) is not None:
            return finished
        target = kept or (Path(temporary) / "built" if temporary and storage.is_remote(out) else Path(out))
        scratch = _scratch_of(home, out) / f".{stage}-{recipe.key[:24]}.scratch"
        with explained_os_errors(f"writing {target}"), ended_in_order(), _only_one(scratch), _unless_empty(scratch):
            manifest = _finished_before(recipe, kept, out)  # finished by a process that this one waited for
            if manifest is None and kept is not None and _fetched(recipe, kept):
                manifest = _finished_before(recipe, kept, out)
            if manifest is None:
                manifest = _build(recipe, settings, body, target, scratch)
                if target != Path(out):
                    deliver(target, manifest, out)
                if kept is not None and (place := place_of(kept.name)) is not None:
                    deliver(target, manifest, place)
            _remove(scratch)
    return manifest


def _refuse_foreign(out: Path) -> None:
    """Make sure that nothing is at `out` that must not be replaced; only a damaged artifact may be.

    Raises:
        ArtifactError: when a file, a mount point, or a folder with other files is there.
    """
    seen = None
    with explained_os_errors(f"writing {out}"):
        if out.exists() and not out.is_dir():
            seen = "is a file"
        elif out.is_mount():
            seen = "is the root of a file system, which cannot be replaced"
        elif out.is_dir() and any(out.iterdir()) and manifest_in(out) is None:
            seen = "contains files that are not an artifact of Tamis"
    if seen:
        raise ArtifactError(f"{out} {seen}", allowed="a folder that does not exist yet", action="choose another output")


def _scratch_of(home: Path | None, out: Uri) -> Path:
    """The folder for a step's unfinished work. It outlives the process."""
    if home is not None:
        return home / "scratch"
    if not storage.is_remote(out):
        return Path(out).parent
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tamis" / "scratch"


@dataclass(frozen=True)
class _Recipe:
    """Everything that a step's result depends on."""

    stage: str
    kind: Kind
    name: str
    settings: StageSettings
    inputs: dict[str, list[Artifact]]
    files: dict[str, str]
    tells_origins: bool

    @property
    def input_hashes(self) -> dict[str, list[str]]:
        return {name: [artifact.manifest.content_hash for artifact in given] for name, given in self.inputs.items()}

    @cached_property
    def key(self) -> str:
        names = {name: [artifact.name for artifact in given] for name, given in self.inputs.items()}
        config = self.settings.for_key()
        made_from = [self.stage, self.kind, self.name, config, self.input_hashes, names, self.files]
        if self.tells_origins:
            made_from.append({name: [given.manifest.key for given in those] for name, those in self.inputs.items()})
        return hash_of([self.settings.OUTPUT_REVISION, made_from])


def _kept(recipe: _Recipe, kept: Path | None) -> Manifest | None:
    """The manifest of an equal step's artifact at `kept` in TAMIS_HOME, or None."""
    found = None if kept is None else manifest_of(kept)
    return found if found is not None and found.key == recipe.key else None


def _finished_before(recipe: _Recipe, kept: Path | None, out: Uri) -> Manifest | None:
    """The manifest of an equal step at `out`, or in TAMIS_HOME, from where it is delivered to `out`; or None."""
    there = manifest_of(out)
    if there is not None and there.key != recipe.key:
        raise ArtifactError(
            f"{out} contains a finished {there.kind} that was made from other settings or inputs",
            action="choose another output, or remove that artifact",
        )
    if there is None and kept is not None and (there := _kept(recipe, kept)) is not None:
        deliver(kept, there, out)
    if there is not None:
        called = f" ({recipe.name})" if recipe.name else ""
        log.info("%s: finished before, reused%s", recipe.stage, called)
        for warning in there.execution.warnings:
            log.warning("from the reused step %s%s: %s", recipe.stage, called, warning)
    return there


def _fetched(recipe: _Recipe, kept: Path) -> bool:
    """Whether the place of finished artifacts had an equal step's, which is then at `kept`."""
    staging = kept.with_name(f".{kept.name}.unfinished")
    shutil.rmtree(staging, ignore_errors=True)
    found = fetch(kept.name, recipe.key, staging)
    if found is not None:
        _seal(staging, found, kept)
    return found is not None


def _build(recipe: _Recipe, settings: S, body: Callable[[Step[S]], None], target: Path, scratch: Path) -> Manifest:
    """Run the body in a private folder and make that the finished artifact at `target`."""
    staging = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    step = Step(settings, staging, scratch, recipe.inputs)
    resumed = any(path.name != _LOCK for path in scratch.iterdir())
    started, clock = datetime.now(UTC), time.monotonic()
    log.info("%s: started%s", recipe.stage, f" ({recipe.name})" if recipe.name else "")
    try:
        with _warned() as warned:
            body(step)
    except BaseException as error:
        shutil.rmtree(staging, ignore_errors=True)
        if isinstance(error, Exception) and not isinstance(error, TamisError):
            _refuse_damaged(recipe)
        raise
    files, config = files_in(staging), settings.model_dump(mode="json")
    execution = Execution(
        started=started.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - clock, 3),
        peak_memory_bytes=_peak_memory(),
        machine=hardware(),
        resumed=resumed,
        warnings=list(warned),
    )
    manifest = Manifest(
        kind=recipe.kind,
        schema_version=SCHEMA_VERSION,
        name=recipe.name,
        rows=step.rows,
        content_hash=content_hash(files),
        files=files,
        stage=recipe.stage,
        revision=settings.OUTPUT_REVISION,
        key=recipe.key,
        config=masked_values(config),
        config_hash=hash_of(config),
        inputs=recipe.input_hashes,
        models=step.models,
        facts=masked_values(step.facts),
        versions=versions(),
        execution=execution,
    )
    _seal(staging, manifest, target)
    seconds, mebibytes = execution.seconds, execution.peak_memory_bytes >> 20
    log.info("%s: done in %.1f s, %s rows, peak memory %d MiB", recipe.stage, seconds, f"{step.rows:,}", mebibytes)
    return manifest


class _Warned(logging.Handler):
    """Keeps each message once, with secrets masked."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: dict[str, None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self.messages[shown(record.getMessage())] = None


@contextmanager
def _warned() -> Iterator[dict[str, None]]:
    """Collect the warnings of Tamis in this block, from any thread."""
    handler, logger = _Warned(), logging.getLogger("tamis")
    logger.addHandler(handler)
    try:
        yield handler.messages
    finally:
        logger.removeHandler(handler)


def _refuse_damaged(recipe: _Recipe) -> None:
    """After an unexpected error, check whether an input is damaged. Damaged artifacts are removed from TAMIS_HOME.

    Raises:
        ArtifactError: naming the first damaged file.
    """
    home = os.environ.get("TAMIS_HOME")
    for given in (artifact for those in recipe.inputs.values() for artifact in those):
        try:
            given.verify()
        except ArtifactError as error:
            if home is not None:
                shutil.rmtree(_kept_in(Path(home), given.manifest.stage, given.manifest.key), ignore_errors=True)
            action = "start again; the artifact will be made again" if home is not None else "make the artifact again"
            raise ArtifactError(error.problem, action=action, permanent=home is None) from error


def _kept_in(home: Path, stage: str, key: str) -> Path:
    """Where TAMIS_HOME keeps the finished artifact of the step with this key."""
    return home / "artifacts" / f"{stage}-{key[:24]}"


@contextmanager
def _only_one(scratch: Path) -> Iterator[None]:
    """Lock `scratch` so that one process on this machine works in it. The system frees the lock of a dead process."""
    lock = scratch / _LOCK
    while True:
        with _opened(lock) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info("another process is working on this step; waiting for it (%s)", lock)
                fcntl.flock(file, fcntl.LOCK_EX)
            # The other process may have removed the folder when it ended, and this lock with it.
            if _is_open(file, lock):
                yield
                return


@contextmanager
def _unless_empty(scratch: Path) -> Iterator[None]:
    """Remove the folder if an error ends the work before anything was saved in it."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            if all(path.name == _LOCK for path in scratch.iterdir()):
                _remove(scratch)
        raise


def _opened(lock: Path) -> IO[str]:
    """The open lock file. File and folder are created again if another process has just removed them."""
    while True:
        make_folder(lock.parent)
        with suppress(FileNotFoundError):
            return lock.open("w")


def _remove(scratch: Path) -> None:
    """Remove the folder, its lock last, so that nothing of a process that creates it again is removed."""
    for path in scratch.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != _LOCK:
            path.unlink(missing_ok=True)
    (scratch / _LOCK).unlink()
    with suppress(OSError):  # another process may have just created its lock there
        scratch.rmdir()


def _is_open(file: IO[str], path: Path) -> bool:
    """Whether `path` still names the open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _seal(staging: Path, manifest: Manifest, target: Path) -> None:
    """Write the manifest, flush everything to disk, and give the folder its final name in one rename."""
    for file in manifest.files:
        with (staging / file.name).open("rb") as handle:
            os.fsync(handle.fileno())
    storage.write_bytes(staging / MANIFEST, _as_json(manifest))
    for folder in {(staging / file.name).parent for file in manifest.files}:
        storage.sync_folder(folder)
    if target.exists():
        shutil.rmtree(target)  # not a finished artifact: this was checked before the work began
    os.replace(staging, target)
    storage.sync_folder(target.parent)


def deliver(folder: Path, manifest: Manifest, out: Uri) -> None:
    """Copy a finished local artifact to `out`, the manifest last."""
    if not storage.is_remote(out):
        there = Path(out)
        waiting = there.with_name(f".{there.name}.unfinished")
        with explained_os_errors(f"writing {out}"):
            shutil.rmtree(waiting, ignore_errors=True)
            storage.link_tree(folder, waiting)
            if there.exists():
                shutil.rmtree(there)
            os.replace(waiting, there)
            storage.sync_folder(there.parent)
        return
    target = storage.locate(out)
    for file in manifest.files:
        storage.upload(folder / file.name, target / file.name)
    storage.write_bytes(target / MANIFEST, _as_json(manifest))


def _as_json(manifest: Manifest) -> bytes:
    return (canonical_json(manifest.model_dump(mode="json")) + "\n").encode()


def _peak_memory() -> int:
    """Peak resident memory in bytes of this process or of its largest child, whichever is larger."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
