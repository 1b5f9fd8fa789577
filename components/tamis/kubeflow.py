"""The frame of every Kubeflow component in its pod: one call that runs a stage and reports what it made."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from kfp import dsl

import tamis
from tamis.core.artifacts import Manifest, manifest_of
from tamis.core.errors import (
    PERMANENT,
    MissingExtraError,
    SettingsError,
    StoppedError,
    StorageError,
    TamisError,
    UnexpectedError,
)
from tamis.core.failures import Failure, failure_in, leave_failure
from tamis.core.hub_access import use_own_cache
from tamis.core.last_words import ended_for_good, leave_cell, leave_reason, withdraw_cell, withdraw_reason
from tamis.core.outlook import looking
from tamis.core.processes import end_with
from tamis.core.progress import set_up_logging
from tamis.core.settings import StageSettings, parse, understood

log = logging.getLogger("tamis.step")  # seen in local runs too, where nothing is of Kubeflow
S = TypeVar("S", bound=StageSettings)
RUNNER_PID = "TAMIS_RUNNER_PID"  # process whose end ends the steps that it started
STOP_FILE = "TAMIS_STOP_FILE"  # appears when they are to end
REVISION = "--output-revision"  # an argument of every stage's container


def execute(
    run: Callable[..., Manifest],
    settings_model: type[S],
    settings: dict[str, Any],
    *,
    out: dsl.Artifact,
    metrics: dsl.Metrics,
    **inputs: Any,
) -> Manifest:
    """Run a stage inside a component: validate `settings`, call `run`, describe the result on `out` and `metrics`.

    `inputs` are the paths of the stage's input artifacts, by the names that `run` gives them.

    Raises:
        SystemExit: after a `TamisError`, whose text is then the last thing in the log, without a traceback above it.
            Its exit code says whether another attempt can help. Any other error is raised as it is. The reason is kept
            for Kubernetes or `tamis run`, and for the run's outcome, in both cases.
    """
    if looking():  # raises what it has seen
        return run(parse(settings_model, understood(settings), where="settings"), out=out.path, **inputs)
    _begin(settings_model, out)
    what = _named(out.name, settings.get("name"))
    try:
        parsed = parse(settings_model, understood(settings), where="settings")
        return _described(run(parsed, out=out.path, **inputs), out, metrics)
    except TamisError as error:
        raise _ended_by(error, what, out) from error
    except Exception as error:
        _unexpected(error, what, out)
        raise


def execute_cell(
    run: Callable[..., Manifest],
    settings_model: type[S],
    settings: dict[str, Any],
    *,
    source: str | None,
    out: dsl.Artifact,
    metrics: dsl.Metrics,
    name: str | None = None,
    **inputs: Any,
) -> None:
    """Like `execute`, for a step of one cell of an experiment: a failure does not end the other cells.

    Any error is written into `out` as `failure.json`, without a manifest, and goes on to the steps behind it in place
    of their own work; `require_whole` ends the run with it when the rest is done. Faults of storage, installation and
    the operating system still end the pod, because another try may succeed; on one machine, where there is none, they
    are the cell's failure too. Kills from outside end the step everywhere.

    `source` is the cell's artifact that this step works on, after which it is named; None: `name`, or the settings,
    name it.

    Raises:
        SystemExit: when the step ends here, or its failure cannot be written.
    """
    if looking():  # raises what it has seen
        run(parse(settings_model, understood(settings), where="settings"), out=out.path, **inputs)
    _begin(settings_model, out)
    failure = failure_in(source) if source else None
    known = settings = understood(settings)
    try:
        parsed = parse(settings_model, settings, where="settings")
        known = parsed.model_dump(mode="json")
        if failure is None:
            _described(run(parsed, out=out.path, **inputs), out, metrics)
            withdraw_cell(_cell_of(source, known, name), out.uri)
            return
    except StoppedError as error:
        raise _ended_by(error, _named(out.name, _cell_of(source, known, name)), out) from error
    except Exception as error:
        what = _named(out.name, _cell_of(source, known, name))
        if isinstance(error, (StorageError, MissingExtraError)) and not _on_one_machine():
            raise _ended_by(error, what, out) from error
        # Libraries raise OSError without a number for much else.
        if isinstance(error, OSError) and error.errno is not None and not _on_one_machine():
            _unexpected(error, what, out)
            raise
        if not isinstance(error, TamisError):
            log.exception("%s: an unexpected error", out.name)
            error = UnexpectedError.of(error, out.name)
        cell = _cell_of(source, known, name)
        failure = failure or Failure(name=cell, stage=out.name, code=error.code, reason=str(error))
        log.error("making %s failed; the other cells continue: %s", _named(failure.stage, failure.name), failure.reason)
    else:
        why = f"its {failure.stage} could not be made"
        log.error("%s is skipped: %s", _named(out.name, failure.name), why)
    failure = failure.model_copy(update={"settings": failure.settings | {out.name: known}})
    try:
        leave_failure(out.path, failure)
    except TamisError as error:
        raise _ended_by(error, _named(failure.stage, failure.name), out) from error
    leave_cell(failure, out.uri)
    withdraw_reason(out.uri)
    out.metadata.update({"name": failure.name, "failed": failure.stage})
    metrics.log_metric("failed", 1)


@contextmanager
def ending(out: dsl.Artifact | None = None) -> Iterator[None]:
    """Within this context, a `TamisError` ends a step that runs no stage, as `execute` does for one that does.

    If `out`, an output of the step, is given, the run's outcome gets the reason too.

    Raises:
        SystemExit: after a `TamisError`.
    """
    set_up_logging()
    _end_with_runner()
    if out is not None:
        _end_at_once(out)
    try:
        yield
    except TamisError as error:
        raise _ended_by(error, out=out) from error
    if out is not None:
        withdraw_reason(out.uri)


def require_whole(failures: Sequence[Failure]) -> None:
    """End the step with what failed, if anything did.

    Raises:
        SystemExit: after the cells' reasons, which are then the last thing in the log.
    """
    set_up_logging()
    if failures:
        cells = "\n".join(f"  {_named(failure.stage, failure.name)}: {failure.reason}" for failure in failures)
        problem = (
            f"{len(failures)} of the results could not be made; all others are finished and in the report:\n{cells}"
        )
        action = (
            "fix the cause"
            if _on_one_machine()
            else "fix the cause; on Kubeflow, submit again: only what failed is done again"
        )
        raise _ended_by(TamisError(problem, action=action))


def _begin(stage: type[StageSettings], out: dsl.Artifact) -> None:
    """Set the process up for `stage`, which makes `out`.

    Raises:
        SystemExit: when an earlier attempt of the step has ended for good, or the pipeline was compiled for another
            revision of the stage's output than this image makes.
    """
    set_up_logging()
    _end_with_runner()
    _end_at_once(out)
    use_own_cache()
    asked = sys.argv[sys.argv.index(REVISION) + 1] if REVISION in sys.argv[:-1] else None
    if asked is not None and asked != str(stage.OUTPUT_REVISION):
        problem = (
            f"the pipeline was compiled for output revision {asked} of this stage, but this image, of Tamis "
            f"{tamis.__version__}, has output revision {stage.OUTPUT_REVISION}"
        )
        action = "use images and pipelines of the same version: make images, tamis compile"
        raise _ended_by(SettingsError(problem, action=action), out=out)


def _described(manifest: Manifest, out: dsl.Artifact, metrics: dsl.Metrics) -> Manifest:
    """Tell Kubeflow what a finished artifact is."""
    withdraw_reason(out.uri)
    out.metadata.update(
        {"kind": manifest.kind, "name": manifest.name, "rows": manifest.rows, "content_hash": manifest.content_hash}
    )
    metrics.log_metric("rows", manifest.rows)
    metrics.log_metric("seconds", manifest.execution.seconds)
    for name, value in manifest.facts.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            metrics.log_metric(name, value)
    return manifest


def _named(artifact: str, name: object) -> str:
    """What a step makes, and of which rater or subset, as in "ratings of 'llama'"."""
    return f"{artifact} of '{name}'" if name else artifact


def _cell_of(source: str | None, settings: dict[str, Any], name: str | None) -> str:
    """The cell that a step works for: named by what it works on, by `name` if there is one, or by the settings."""
    manifest = manifest_of(source) if source else None
    return manifest.name if manifest else name or str(settings.get("name", "base"))


def _on_one_machine() -> bool:
    """Whether `tamis run` started this step, so that nobody tries it again."""
    return RUNNER_PID in os.environ


def _ended_by(error: TamisError, what: str = "", out: dsl.Artifact | None = None) -> SystemExit:
    """Keep the reason why the step ends. If `out` is given, the run's outcome names it as that of a failed step."""
    reason = f"making {what} failed: {error}" if what and not isinstance(error, StoppedError) else str(error)
    leave_reason(reason, uri=out.uri if out else "", what=what, code=error.code, permanent=error.permanent)
    log.error("%s", reason)  # the last thing in the log
    return SystemExit(error.exit_code)


def _end_at_once(out: dsl.Artifact) -> None:
    """End this attempt if an earlier one has failed in a way that no further attempt can help.

    Kubeflow retries every failed pod. The reason stays the earlier one, so that all attempts show the same.

    Raises:
        SystemExit: when that is so.
    """
    if (words := ended_for_good(out.uri)) is not None:
        leave_reason(words.words)
        log.error("attempt %d ended for good, so this one does nothing: %s", words.attempt, words.words)
        raise SystemExit(PERMANENT)


def _unexpected(error: Exception, what: str, out: dsl.Artifact) -> None:
    """Keep the reason of an error that Tamis did not expect, before it is raised on."""
    described = UnexpectedError.of(error, out.name)
    leave_reason(f"making {what} failed: {described}", uri=out.uri, what=what, code=described.code)


def _end_with_runner() -> None:
    """On one machine, end in order when `tamis run` asks for it, or is gone: nobody waits for this step any more."""
    runner, stop = os.environ.get(RUNNER_PID), os.environ.get(STOP_FILE)
    if runner is not None:
        end_with(int(runner), Path(stop) if stop else None)
